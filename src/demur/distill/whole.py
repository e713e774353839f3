"""Full fine-tuning: the weights themselves are trained, in place of a low-rank change of them.

    trained = begin(model, layers)       # float32, with a gradient; a copy of them is kept
    ...                                  # the trainer writes `WEIGHTS` into each checkpoint
    put(model, checkpoint, 0.85)         # W + 0.85 (trained W - W), in memory
    changes(model, folder, checkpoint, 0.85)    # the same, as a patch has it

Trained are the weights of the chosen layers, norms and biases too; where all layers are chosen,
those outside the layers as well: the embedding, the last norm, the head. They are trained in
float32 whatever the model runs in, since steps this small are lost in bfloat16's eight bits.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from demur.checkpoint import Dense
from demur.checkpoint.index import open_checkpoint
from demur.distill.untouched import forget, remember, remembered
from demur.errors import ModelError, TrainingError
from demur.models.edits import name_on_disk
from demur.run.processes import launched

WEIGHTS = "trained.safetensors"
LAYER = re.compile(r"(?:^|\.)(\d+)\.")
STATE = 4 + 4 + 8  # bytes a trained weight: its copy, its gradient, and AdamW's two moments


def whole_names(model: Any, layers: Collection[int]) -> list[str]:
    """Return the names in memory of the parameters that are trained.

    Args:
        layers: the indices of the layers.
    """
    depth = int(model.config.get_text_config().num_hidden_layers)
    everything = set(layers) == set(range(depth))
    names = []
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        found = LAYER.search(name)
        if everything if found is None else int(found[1]) in layers:
            names.append(name)
    return names


def require_whole_on_disk(model: Any, folder: Path, layers: Collection[int]) -> None:
    """Check, before hours of training, that what is trained can be written as a patch.

    Raises:
        ModelError: a parameter has no tensor of its own in the checkpoint at `folder`.
    """
    tensors = open_checkpoint(folder).tensors
    for name in whole_names(model, layers):
        _on_disk(model, name, tensors)


def _on_disk(model: Any, name: str, tensors: Collection[str]) -> str:
    found = name_on_disk(model, name, tensors)
    if found is None:
        raise ModelError(
            f"The weight {name} is to be trained, but the checkpoint has no tensor for it alone.",
            "Leave --full out: a low-rank change is put onto the projections alone.",
        )
    return found


def memory_needed(model: Any, layers: Collection[int]) -> int:
    """Return the bytes that full fine-tuning takes beside the model as it is loaded."""
    sizes = {name: one for name, one in model.named_parameters()}
    wider: int = sum(one.numel() * (4 - one.element_size()) for one in sizes.values())
    trained: int = sum(sizes[name].numel() for name in whole_names(model, layers))
    return wider + STATE * trained


def require_memory(model: Any, layers: Collection[int], free: int | None = None) -> None:
    """Check that memory will do for full fine-tuning, activations not counted.

    Args:
        free: bytes that are free; by default of the model's device.

    Raises:
        TrainingError: it will not.
    """
    needed = memory_needed(model, layers)
    free = _free(model.device) if free is None else free
    if needed > free:
        raise TrainingError(
            f"Training all weights of {len(layers)} layers takes {needed / 1e9:.1f} GB beside the "
            f"model (float32, gradients, AdamW's moments, a copy), and {free / 1e9:.1f} GB are "
            "free.",
            "Leave --full out, or train fewer layers with a higher --first-layer.",
        )


def _free(device: Any) -> int:
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil  # type: ignore[import-untyped]

    return int(psutil.virtual_memory().available) // launched().count


def begin(model: Any, layers: Collection[int]) -> dict[str, Any]:
    """Make the model's chosen weights trainable, and keep a copy of them as they are.

    Returns:
        The trained parameters, by their name in memory.

    Raises:
        TrainingError: memory will not do.
    """
    import torch

    require_memory(model, layers)
    cast(model, dict.fromkeys((name for name, _ in model.named_parameters()), torch.float32))
    names = set(whole_names(model, layers))
    remember(model, names)
    trained = {name: one for name, one in model.named_parameters() if name in names}
    for parameter in trained.values():
        parameter.requires_grad_(True)
    return trained


def cast(model: Any, dtypes: Mapping[str, Any]) -> None:
    """Give parameters these dtypes, by name; buffers, such as of positions, stay as they are."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtypes[name])


def save(trained: Mapping[str, Any], checkpoint: Path) -> None:
    """Write the trained weights into a checkpoint's folder."""
    from safetensors.torch import save_file

    checkpoint.mkdir(parents=True, exist_ok=True)
    weights = {name: one.detach().cpu().contiguous() for name, one in trained.items()}
    save_file(weights, checkpoint / WEIGHTS)


def load(trained: Mapping[str, Any], checkpoint: Path) -> None:
    """Put a checkpoint's weights into the parameters that go on being trained."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(checkpoint / WEIGHTS)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(weights[name])


def put(model: Any, checkpoint: Path, strength: float) -> None:
    """Give the model a checkpoint's weights, the change from the untouched ones scaled."""
    import torch

    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in _scaled(model, checkpoint, strength):
            parameters[name].copy_(value)


def put_back(model: Any, checkpoint: Path) -> None:
    """Give the model its weights of before training, and forget that it was trained.

    Args:
        checkpoint: one of that training.
    """
    put(model, checkpoint, 0.0)
    forget(model)


def changes(model: Any, folder: Path, checkpoint: Path, strength: float) -> Mapping[str, Dense]:
    """Return the new weights by the tensor's name in the checkpoint at `folder`, one at a time.

    Raises:
        ModelError: a parameter has no tensor of its own on disk.
    """
    return _Changes(model, folder, checkpoint, strength)


class _Changes(Mapping[str, Dense]):
    """The new weights of each tensor, read when they are asked for."""

    def __init__(self, model: Any, folder: Path, checkpoint: Path, strength: float) -> None:
        from safetensors import safe_open

        self.model, self.checkpoint, self.strength = model, checkpoint, strength
        tensors = open_checkpoint(folder).tensors
        with safe_open(checkpoint / WEIGHTS, framework="pt") as file:
            names = list(file.keys())
        self.names = {_on_disk(model, name, tensors): name for name in names}

    def __getitem__(self, tensor: str) -> Dense:
        name = self.names[tensor]
        ((_, value),) = _scaled(self.model, self.checkpoint, self.strength, [name])
        return Dense(value.cpu().numpy())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _scaled(
    model: Any, checkpoint: Path, strength: float, names: Collection[str] | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield each trained weight in float32, its change scaled."""
    from safetensors import safe_open

    before = dict(remembered(model).named_parameters())
    with safe_open(checkpoint / WEIGHTS, framework="pt") as file:
        for name in names or list(file.keys()):
            value = file.get_tensor(name)
            if strength != 1:
                base = before[name].detach().float().cpu()
                value = base + strength * (value - base)
            yield name, value
