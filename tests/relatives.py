"""Relatives for tests of grafting: a base, a recipient tuned from it, a low-rank donor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from demur.models.chat_model import ChatModel, load_chat_model
from demur.models.device import choose_device_and_dtype
from tests.models.architectures import tiny
from tests.tiny import tiny_llama, tiny_tokenizer

LAYERS = 4


@dataclass(frozen=True)
class Relatives:
    """Folders of the three, and what was added to which tensors of the donor."""

    base: Path
    recipient: Path
    donor: Path
    added: dict[str, NDArray[Any]]

    def chat(self) -> ChatModel:
        """Load the recipient."""
        placement = choose_device_and_dtype("cpu", "float32")
        return load_chat_model(self.recipient, placement, weights="recipient")


def make_relatives(
    folder: Path,
    kind: str = "llama",
    *,
    rank: int = 2,
    size: float = 0.3,
    tensors: tuple[str, ...] = ("gate", "down_proj", "o_proj"),
    **config: Any,
) -> Relatives:
    """Write tiny relatives into `folder`.

    Args:
        kind: `llama`, or the name of one of `tests.models.architectures`.
        rank, size: of what is added to the donor, and its largest number, roughly.
        tensors: what the names of the changed tensors hold.
    """
    base = folder / "base"
    if kind == "llama":
        tiny_llama(base, num_hidden_layers=LAYERS, **config)
    else:
        tiny(kind).save_pretrained(base)
        tiny_tokenizer().save_pretrained(base)
    generator = np.random.default_rng(5)
    weights = load_file(base / "model.safetensors")
    added, tuned, given = {}, dict(weights), dict(weights)
    for name, values in sorted(weights.items()):
        if values.ndim == 2 and "layers" in name:
            noise = generator.standard_normal(values.shape) * 0.01
            tuned[name] = (values + noise).astype("f4")
            if any(part in name for part in tensors):
                up = generator.standard_normal((values.shape[0], rank))
                down = generator.standard_normal((rank, values.shape[1]))
                added[name] = (up @ down * size / rank).astype("f4")
                given[name] = values + added[name]
    for name, content in (("recipient", tuned), ("donor", given)):
        _save(base, folder / name, content)
    return Relatives(base, folder / "recipient", folder / "donor", added)


def _save(base: Path, folder: Path, content: dict[str, NDArray[Any]]) -> None:
    folder.mkdir()
    for path in base.iterdir():
        if path.name != "model.safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    save_file(content, folder / "model.safetensors", {"format": "pt"})
