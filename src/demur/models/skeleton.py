"""A model's modules and their shapes, without its weights, for whoever needs no more than these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demur.errors import ModelError


def without_weights(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Return the model of a folder as transformers builds it, its parameters on no device.

    Raises:
        ModelError: transformers cannot build it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"transformers cannot build {folder.name} ({reason}).",
            "Check that the folder holds a causal language model with its config.json.",
        ) from error
