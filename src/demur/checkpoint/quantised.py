"""Weights that are stored quantised: they cannot be changed in place, and what to do instead."""

from __future__ import annotations

import json
from collections.abc import Sequence

from demur.checkpoint.arithmetic import BIT_TYPES
from demur.checkpoint.index import Checkpoint
from demur.errors import CheckpointError


def require_plain(checkpoint: Checkpoint, names: Sequence[str], what: str) -> None:
    """Check that tensors are there as plain numbers in F32, F16 or BF16.

    Args:
        what: how to call the model, such as "recipient".

    Raises:
        CheckpointError: one is not; where the model is quantised that is said.
    """
    method = _quantisation(checkpoint)
    for name in names:
        tensor = checkpoint.tensors.get(name)
        if tensor is not None and tensor.dtype in BIT_TYPES:
            continue
        if method is None and tensor is None:
            checkpoint.tensor(name)
        stored = f"is stored as {tensor.dtype}" if tensor else "is not there as plain numbers"
        raise CheckpointError(
            f"The {what} {checkpoint.folder} is quantised ({method}): {name} {stored}."
            if method
            else f"{name} of the {what} {checkpoint.folder} {stored}, which cannot be changed.",
            f"Use the {what} as it was before it was quantised, in F32, F16 or BF16; quantise what"
            " comes out again if you need to.",
        )


def _quantisation(checkpoint: Checkpoint) -> str | None:
    """Return how a model says in `config.json` that it is quantised; None if it does not."""
    try:
        config = json.loads((checkpoint.folder / "config.json").read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    found = config.get("quantization_config")
    if not found:
        return None
    return str(found.get("quant_method", "unknown")) if isinstance(found, dict) else "unknown"
