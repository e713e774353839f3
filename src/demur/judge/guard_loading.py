"""Guard models from a folder or the hub into memory.

Their own chat templates are not used, so they need not have one: WildGuard and HarmBench's
classifiers have none. Llama Guard 4 is stored as a model that also reads pictures; it is loaded as
such and given text alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import ModelError
from demur.judge.guards import LocalGuard

if TYPE_CHECKING:
    from demur.models.chat_model import ChatModel
    from demur.models.device import Placement


def local_guard(
    model: str, *, device: str = "auto", dtype: str = "auto", sees: bool = False
) -> LocalGuard:
    """Load a guard model.

    Args:
        model: a folder or a hub id.
        device, dtype: where it runs and in which number format; see `choose_device_and_dtype`.
        sees: it is stored as a model that also reads pictures.

    Raises:
        ModelError: it cannot be found or loaded.
        CheckpointError: its weights are broken.
    """
    from demur.checkpoint import checkpoint_hash, open_checkpoint
    from demur.models.chat_model import load_chat_model
    from demur.models.device import choose_device_and_dtype
    from demur.models.resolve import resolve

    seeing = _seeing_folder(model) if sees else None
    folder = seeing or resolve(model).folder
    weights = checkpoint_hash(open_checkpoint(folder))
    placement = choose_device_and_dtype(device, dtype)
    if seeing is not None:
        chat = _load_seeing(folder, placement, weights, model)
    else:
        chat = load_chat_model(
            folder, placement, weights=weights, name=model, chat_template="plain"
        )
    short = model.rstrip("/").split("/")[-1]
    return LocalGuard(chat, f"{short} {weights[:8]} {placement.dtype}")


def _seeing_folder(model: str) -> Path | None:
    """Return the folder of a model that also reads pictures; None where it is one of text."""
    from demur.models.config import read_config
    from demur.models.hub import fetch

    path = Path(model).expanduser()
    folder = path.resolve() if path.is_dir() else fetch(model).folder
    sees = "vision_config" in read_config(folder)
    return folder if sees else None


def _load_seeing(folder: Path, placement: Placement, weights: str, name: str) -> ChatModel:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    from demur.models.chat_model import ChatModel

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=getattr(torch, placement.dtype),
            device_map="auto" if placement.device == "cuda" else None,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{name} cannot be loaded ({reason}).",
            "Check that the folder holds a complete guard model with its tokenizer.",
        ) from error
    if placement.device == "mps":
        model.to("mps")
    model.eval()
    model.requires_grad_(False)
    ends = [model.generation_config.eos_token_id, tokenizer.eos_token_id]
    stops = {end for each in ends for end in (each if isinstance(each, list) else [each])}
    return ChatModel(folder, model, tokenizer, placement, weights, _stops=frozenset(stops - {None}))
