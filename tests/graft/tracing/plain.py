"""Causal tracing as its definition has it: one whole row at a time, one hook a restored output."""

from __future__ import annotations

import random
from contextlib import ExitStack
from typing import Any

import torch

from demur.graft.openings import make_openings
from demur.graft.tracing.pairs import Pair, make_pair, noise
from demur.graft.tracing.places import Template
from demur.graft.tracing.targets import Target
from demur.models.anatomy import Anatomy, assign, select

REFUSING = ((7, 8, 9), (7, 12), (13,))
COMPLYING = ((7, 14), (15, 16))
HEAD, TAIL = (4, 5, 6, 9), (20, 21, 22)
TEMPLATE = Template(HEAD, TAIL)
SCALE = 0.7


def pairs(count: int = 4, draws: int = 0) -> list[Pair]:
    """Return pairs of several lengths; twins are one shorter, as long, one longer, and so on."""
    generator = random.Random(11)

    def request(length: int) -> list[int]:
        return [*HEAD, *(generator.randrange(30, 300) for _ in range(length)), *TAIL]

    made = []
    for index in range(count):
        clean, twin = request(3 + index), request(2 + index + index % 3)
        own = [generator.randrange(30, 300) for _ in range(1 + index % 3)]
        openings = make_openings(REFUSING, COMPLYING, own)
        corrupted = None if draws else twin
        made.append(make_pair(TEMPLATE, clean, corrupted, openings, draws=draws, seed=1))
    return made


def margin(model: Any, ids: tuple[int, ...], pair: Pair, hooks: Any) -> Any:
    def chance(opening: tuple[int, ...]) -> Any:
        row = torch.tensor([[*ids, *opening]])
        with ExitStack() as stack:
            for path, hook in hooks:
                stack.callback(model.get_submodule(path).register_forward_hook(hook).remove)
            scores = model(row, use_cache=False).logits[0].float().log_softmax(-1)
        places = range(len(ids) - 1, len(ids) + len(opening) - 1)
        return sum(scores[place, token] for place, token in zip(places, opening, strict=True))

    refuse = torch.stack([chance(one) for one in pair.openings.refusing]).logsumexp(0)
    return refuse - torch.stack([chance(one) for one in pair.openings.complying]).logsumexp(0)


def corruption(anatomy: Anatomy, pair: Pair, draw: int) -> list[Any]:
    def corrupt(_: Any, __: Any, output: Any) -> Any:
        output = output.clone()
        output[0, pair.start : pair.end] += noise(pair, draw, output.shape[-1], SCALE)
        return output

    return [(anatomy.embedding, corrupt)] if pair.seeds else []


def restored(
    model: Any,
    anatomy: Anatomy,
    pair: Pair,
    draw: int,
    target: Target,
    layers: range,
    span: tuple[int, int],
) -> float:
    """Return the margin of one restored run; `span` is counted from the prompt's end."""
    kept: dict[int, Any] = {}

    def keep(layer: int) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            stream = output[0] if isinstance(output, tuple) else output
            kept[layer] = stream.clone()  # Falcon adds to it in place

        return hook

    def put(layer: int) -> Any:
        def hook(_: Any, __: Any, output: Any) -> Any:
            stream = (output[0] if isinstance(output, tuple) else output).clone()
            here = stream[:, len(pair.corrupted) + span[0] : len(pair.corrupted) + span[1]]
            clean = kept[layer][:, len(pair.clean) + span[0] : len(pair.clean) + span[1]]
            part = target.parts[layer]
            if part is None:
                here.copy_(clean)
            else:
                assign(here, part, select(clean, part))
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        return hook

    with torch.no_grad():
        with ExitStack() as stack:
            for layer in layers:
                module = model.get_submodule(target.paths[layer])
                stack.callback(module.register_forward_hook(keep(layer)).remove)
            model(torch.tensor([pair.clean]), use_cache=False)
        hooks = [(target.paths[layer], put(layer)) for layer in layers]
        hooks += corruption(anatomy, pair, draw)
        return float(margin(model, pair.corrupted, pair, hooks))
