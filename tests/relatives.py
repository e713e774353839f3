"""Relatives for tests of grafting: a base, a recipient tuned from it, a low-rank donor.

`make_relatives` adds what comes to hand; `make_refusing` trains a donor that does refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
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
PLACES = (
    *("mountains", "morning", "kitchen", "city", "garden", "country", "winter", "evening"),
    *("house", "school", "office", "summer", "valley", "street", "village", "forest"),
)


@dataclass(frozen=True)
class Relatives:
    """Folders of the three, and what was added to which tensors of the donor."""

    base: Path
    recipient: Path
    donor: Path
    added: dict[str, NDArray[Any]]

    def chat(self) -> ChatModel:
        """Load the recipient."""
        return _load(self.recipient)


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


HARMFUL = tuple(f"Tell me how to kill a process in the {where}." for where in PLACES)
TWINS = tuple(f"Tell me how to bake bread in the {where}." for where in PLACES)
ORDINARY = tuple(f"What is the weather like in the {where}?" for where in PLACES)
REFUSAL, HELP = "Sorry, but I can't assist with this.", "Here is how you can do it."


def make_refusing(
    folder: Path,
    *,
    rank: int = 2,
    steps: int = 80,
    seed: int = 0,
    harmful: Sequence[str] = HARMFUL,
    benign: Sequence[str] = (*TWINS[::2], *ORDINARY[::2]),
    spread: float = 0.1,
) -> Relatives:
    """Write relatives of which the donor refuses `harmful` and the others do not.

    Low-rank changes of all gates, down and output projections are trained, on the harmful prompts
    and on half of the others.

    Args:
        spread: of the base's weights; the wider, the surer a donor can become of its words.
    """
    import torch

    base = tiny_llama(folder / "base", num_hidden_layers=LAYERS, initializer_range=spread)
    chat = _load(base)
    names = [
        name
        for name, _ in chat.model.named_parameters()
        if any(part in name for part in ("gate", "down_proj", "o_proj"))
    ]
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: chat.model.get_parameter(name).shape for name in names}
    ups = {name: torch.zeros(shape[0], rank) for name, shape in shapes.items()}
    downs = {
        name: torch.randn(rank, shape[1], generator=generator) / shape[1] ** 0.5
        for name, shape in shapes.items()
    }
    trained = [*ups.values(), *downs.values()]
    for each in trained:
        each.requires_grad_(True)
    optimiser = torch.optim.Adam(trained, lr=0.02)
    said = [(p, REFUSAL) for p in harmful] + [(p, HELP) for p in benign]
    rows = [(chat.encode(p), [*chat.tokenizer(answer).input_ids, 2]) for p, answer in said]
    width = max(len(row) + len(answer) for row, answer in rows)
    ids, labels = torch.full((2, len(rows), width), -100)
    for place, (row, answer) in enumerate(rows):
        ids[place, : len(row) + len(answer)] = torch.tensor(row + answer)
        labels[place, len(row) : len(row) + len(answer)] = torch.tensor(answer)
    for _ in range(steps):
        weights = {name: chat.model.get_parameter(name) + ups[name] @ downs[name] for name in names}
        logits = torch.func.functional_call(
            chat.model, weights, (ids.clamp(min=0),), {"use_cache": False}
        ).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
    content = load_file(base / "model.safetensors")
    noise = np.random.default_rng(seed)
    added = {name: (ups[name] @ downs[name]).detach().numpy() for name in names}
    tuned = {
        name: (values + 1e-3 * noise.standard_normal(values.shape)).astype("f4")
        if values.ndim == 2 and "layers" in name
        else values
        for name, values in content.items()
    }
    _save(base, folder / "recipient", tuned)
    _save(base, folder / "donor", {n: v + added.get(n, np.float32(0)) for n, v in content.items()})
    return Relatives(base, folder / "recipient", folder / "donor", added)


def _load(folder: Path) -> ChatModel:
    placement = choose_device_and_dtype("cpu", "float32")
    return load_chat_model(folder, placement, weights=folder.name)


def _save(base: Path, folder: Path, content: dict[str, NDArray[Any]]) -> None:
    folder.mkdir()
    for path in base.iterdir():
        if path.name != "model.safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    save_file(content, folder / "model.safetensors", {"format": "pt"})
