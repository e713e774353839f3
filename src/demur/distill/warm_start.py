"""Training that goes on from refusals already taught: LoRA begins as their low-rank change.

Reinforcement learns from differences between a student's own answers. Where it hardly ever refuses
there are few, and supervised fine-tuning first is the usual remedy (Ouyang et al. 2022, arXiv
2203.02155, section 3.1). The student as it was before stays what it is held to: LoRA's weights
switched off.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from demur.checkpoint import LowRank
from demur.errors import TrainingError
from demur.models.edits import name_on_disk


def begin_from(peft: Any, changes: Mapping[str, LowRank], tensors: Collection[str]) -> int:
    """Put a low-rank change into the LoRA weights of a wrapped model.

    What a change has less of rank than LoRA stays as LoRA began, with up-projections of zero;
    modules without a change stay so altogether.

    Args:
        peft: the wrapped student.
        changes: by the tensor's name on disk, of LoRA's rank at most.
        tensors: the names in the student's checkpoint.

    Returns:
        How many adapters begin with a change.

    Raises:
        TrainingError: LoRA does not train a tensor that is changed.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    left = dict(changes)
    for name, module in peft.base_model.model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        tensor = name_on_disk(peft.base_model.model, f"{name}.weight", tensors)
        change = left.pop(tensor or "", None)
        if change is None:
            continue
        down, up = torch.from_numpy(change.down.copy()), torch.from_numpy(change.up.copy())
        if getattr(module, "fan_in_fan_out", False):  # stored as (in, out)
            down, up = up.T, down.T
        into, out_of = module.lora_A["default"].weight, module.lora_B["default"].weight
        rank = len(down)
        with torch.no_grad():
            into[:rank] = down.to(into)
            out_of[:, :rank] = up.to(out_of)
    if left:
        raise TrainingError(
            f"Training is to begin from a change of {min(left)}"
            + (f" and {len(left) - 1} other tensors" if len(left) > 1 else "")
            + ", which it would not train.",
            "Give the --first-layer and --last-layer that the change was trained with.",
        )
    return len(changes)
