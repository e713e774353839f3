"""What to say about a folder that holds no safetensors model: what it is, and the way out.

Pickled weights are never opened here: unpickling can run any code that the file carries.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from demur.errors import CheckpointError

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
NOT_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state")

WITH_TRANSFORMERS = (
    "import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
    "[c.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2]) for c in (M, T)]"
)
WITH_TORCH = (
    "import sys, torch, safetensors.torch as s; "
    "s.save_file({k: v.clone() for k, v in torch.load(sys.argv[1], map_location='cpu', "
    "weights_only=True).items()}, sys.argv[2], {'format': 'pt'})"
)


def no_safetensors(folder: Path) -> CheckpointError:
    """Return the error for a folder without `model.safetensors` or its index: what is there."""
    if not folder.exists():
        return CheckpointError(f"There is no folder {folder}.", "Check the path.")
    if not folder.is_dir():
        return CheckpointError(
            f"{folder} is a file, not a model folder.",
            "Name the folder that holds config.json and model.safetensors.",
        )
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    others = [name for name in files if name.endswith(".safetensors")]
    if "adapter_model.safetensors" in others:
        return CheckpointError(
            f"{folder} holds a PEFT adapter, not a whole model.",
            "Merge the adapter into its base model first.",
        )
    if others:
        return CheckpointError(
            f"{folder} has {', '.join(others[:3])} but neither model.safetensors nor"
            " model.safetensors.index.json.",
            "Download the model again, with its index.",
        )
    pickled = [name for name in files if is_pickled_weights(name)]
    if pickled:
        return _only_pickled(folder, pickled)
    return CheckpointError(
        f"{folder} holds no model: it has no safetensors file.",
        "Name the folder that holds config.json and model.safetensors.",
    )


def is_pickled_weights(name: str) -> bool:
    """Return whether a file of this name usually holds weights as a Python pickle."""
    return name.endswith(PICKLE_SUFFIXES) and not name.startswith(NOT_WEIGHTS)


def _only_pickled(folder: Path, pickled: list[str]) -> CheckpointError:
    standard = any(name.startswith("pytorch_model") for name in pickled)
    if standard:
        target = folder.with_name(f"{folder.resolve().name}-safetensors")
        command = _command(WITH_TRANSFORMERS, folder, target)
    else:
        command = _command(WITH_TORCH, folder / pickled[0], folder / "model.safetensors")
    return CheckpointError(
        f"{folder} holds only pickled weights ({', '.join(pickled[:3])}), which demur never opens"
        " because a pickle can run any code that it carries.",
        "Use a safetensors version of the model, or, only if you trust where the file comes from,"
        f" for this opens the pickle, convert it: {command}",
    )


def _command(code: str, source: Path, target: Path) -> str:
    return f'python -c "{code}" {shlex.quote(str(source))} {shlex.quote(str(target))}'
