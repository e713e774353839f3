"""Causal tracing beside a plain loop of hooks: the same map, the same numbers, seconds of each.

    python benchmarks/tracing.py MODEL [--pairs 8] [--corruption resampled] [--cells 6]

MODEL is one that refuses, such as a run's `model` folder. Seconds are of the processor, which
others cannot stretch as they do those on the wall; run it with one thread (OMP_NUM_THREADS=1) on a
CPU. The map has the states, MLPs and attentions of all layers at all groups of tokens. The plain
loop is what ROME's code does: for each restoration one forward pass of the whole corrupted batch,
all layers and tokens, with a hook that puts the clean value in. It is timed twice: with a row for
each opening, as the definition of the margin has it, and with each prompt's openings in one pass as
demur reads them, so that what the trees save is told apart from what the map saves. Of the plain
loops some cells are run, spread over the map, and the whole is extrapolated from them; demur's map
and attribution are timed whole.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demur.checkpoint import checkpoint_hash, open_checkpoint
from demur.graft.margin import RefusalMargin, ask, margins_of, node_logits, tree_of
from demur.graft.tracing.choose import choose, pairs_of
from demur.graft.tracing.effects import agreement, by_pair
from demur.graft.tracing.maps import attributed, exact
from demur.graft.tracing.names import DEFAULT
from demur.graft.tracing.pairs import deviation, noise, places_of
from demur.graft.tracing.runs import Runs
from demur.graft.tracing.targets import Target, targets_of
from demur.models.anatomy import anatomy_of
from demur.models.batch import Batch
from demur.models.branches import Branched, standing_cache
from demur.models.chat_model import ChatModel, load_chat_model
from demur.models.device import choose_device_and_dtype
from demur.models.forward import last_positions
from demur.models.generation import Decoding, answer
from demur.models.later import stream_of, with_stream
from demur.models.resolve import resolve
from demur.prompts.builtin import builtin_set
from demur.prompts.split import evenly
from demur.run.journal import Journal

WIDEST = 32  # rows of a plain forward pass


def load(name: str, dtype: str) -> ChatModel:
    """Return the model, as the commands would load it."""
    resolved = resolve(name)
    placement = choose_device_and_dtype("auto", dtype)
    weights = checkpoint_hash(open_checkpoint(resolved.folder))
    return load_chat_model(resolved.folder, placement, weights=weights)


class PlainLoop:
    """One restored forward pass a cell, of the whole batch, with hooks."""

    def __init__(self, chat: ChatModel, runs: Runs, *, rows_an_opening: bool) -> None:
        self.model, self.runs, self.apart = chat.model, runs, rows_an_opening
        self.pairs = [runs.pairs[index] for index in runs.units]
        self.trees = [tree_of(pair.openings) for pair in self.pairs]
        self.openings = [pair.openings for pair in self.pairs]
        self.asked = ask(self.openings, self.trees, chat.model.device)

    def rows(self) -> Iterator[tuple[list[int], list[tuple[int, ...]], Any]]:
        """Yield forward passes: the units of their rows, whole rows, and what to make of logits."""
        if not self.apart:
            units = list(range(len(self.pairs)))
            yield units, [pair.corrupted for pair in self.pairs], None
            return
        flat = [
            (unit, opening)
            for unit, pair in enumerate(self.pairs)
            for opening in (*pair.openings.refusing, *pair.openings.complying)
        ]
        for begin in range(0, len(flat), WIDEST):
            part = flat[begin : begin + WIDEST]
            yield (
                [unit for unit, _ in part],
                [(*self.pairs[unit].corrupted, *opening) for unit, opening in part],
                [opening for _, opening in part],
            )

    def margins(self, target: Target, layers: range, place: Any) -> Any:
        """Return (units,) margins of one cell."""
        chances: list[list[float]] = [[] for _ in self.pairs]
        with torch.inference_mode():
            for units, rows, openings in self.rows():
                with self.hooked(units, rows, openings, target, layers, place) as batch:
                    if openings is None:
                        cache = standing_cache(self.model, None)
                        return margins_of(node_logits(self.model, batch, cache), self.asked)
                    count = max(map(len, openings)) + 1
                    logits = self.model(
                        batch.ids,
                        attention_mask=batch.mask,
                        position_ids=batch.positions,
                        use_cache=False,
                        **last_positions(self.model, batch.ids.shape[1], count),
                    ).logits[:, -count:-1]
                scores = logits.float().log_softmax(-1)
                for row, (unit, opening) in enumerate(zip(units, openings, strict=True)):
                    size = len(opening)
                    own = scores[row, range(count - 1 - size, count - 1), list(opening)]
                    chances[unit].append(float(own.sum()))
        found = []
        for each, own in zip(self.openings, chances, strict=True):
            values = torch.tensor(own)
            cut = len(each.refusing)
            found.append(values[:cut].logsumexp(0) - values[cut:].logsumexp(0))
        return torch.stack(found)

    @contextmanager
    def hooked(
        self,
        units: list[int],
        rows: list[tuple[int, ...]],
        openings: Any,
        target: Target,
        layers: range,
        place: Any,
    ) -> Iterator[Any]:
        """Lay out a batch of whole rows, corrupted, with clean values put in where they go."""
        runs, number = self.runs, self.runs.targets.index(target)
        if openings is None:
            batch: Any = Branched(self.model, rows, [self.trees[unit] for unit in units], 0)
            ends = [batch.end + 1] * len(rows)
        else:
            batch = Batch(self.model, rows, 0, None)
            ends = [batch.ids.shape[1] - len(opening) for opening in openings]

        def corrupt(_: Any, __: Any, output: Any) -> Any:
            output = output.clone()
            for row, unit in enumerate(units):
                pair, draw = runs.draws()[unit]
                start = ends[row] - len(pair.clean) + pair.start
                stop = start + pair.end - pair.start
                output[row, start:stop] += noise(pair, draw, output.shape[-1], runs.scale)
            return output

        def restore(layer: int) -> Callable[..., Any]:
            clean = runs.values[number, layer]

            def hook(_: Any, __: Any, output: Any) -> Any:
                stream = stream_of(output).clone()
                for row, unit in enumerate(units):
                    begin, stop = place.spans[runs.units[unit]]
                    kept = clean[runs.units[unit], clean.shape[1] + begin : clean.shape[1] + stop]
                    stream[row, ends[row] + begin : ends[row] + stop] = kept
                return with_stream(output, stream)

            return hook

        with ExitStack() as stack:
            if runs.draws():
                embedding = self.model.get_submodule(runs.embedding)
                stack.callback(embedding.register_forward_hook(corrupt).remove)
            for layer in layers:
                module = self.model.get_submodule(target.paths[layer])
                stack.callback(module.register_forward_hook(restore(layer)).remove)
            yield batch


def clock_of(chat: ChatModel) -> Callable[[], float]:
    """Return the clock that counts: of the processor, or on the wall where a GPU works."""
    return time.perf_counter if chat.model.device.type == "cuda" else time.process_time


def plain_loops(
    chat: ChatModel,
    runs: Runs,
    places: Sequence[Any],
    cells: Sequence[tuple[int, int, int]],
    found: Any,
) -> dict[str, dict[str, float]]:
    """Return what some cells take a plain loop, and how far its numbers are from demur's map.

    Args:
        cells: target, layer and place of each.
        found: the exact map.
    """
    clock = clock_of(chat)
    plain = {}
    for apart in (True, False):
        loop = PlainLoop(chat, runs, rows_an_opening=apart)
        loop.margins(runs.targets[0], range(1), places[-1])  # warm
        begun = clock()
        margins = [
            loop.margins(runs.targets[t], range(layer, layer + 1), places[p])
            for t, layer, p in cells
        ]
        seconds = (clock() - begun) / len(cells)
        worst = max(
            float(np.nanmax(np.abs(one.cpu().numpy() - found[cell])))
            for one, cell in zip(margins, cells, strict=True)
        )
        name = "a row an opening" if apart else "openings in one pass"
        plain[name] = {"seconds_a_cell": seconds, "largest_difference": worst}
    return plain


def cells_of(shape: tuple[int, int, int], count: int) -> list[tuple[int, int, int]]:
    """Return some cells (target, layer, place), spread over a map of that shape."""
    targets, layers, places = shape
    return [
        (int(target), int(layer), int(place))
        for target, layer, place in zip(
            np.arange(count) % targets,
            np.linspace(0, layers - 1, count).round(),
            np.random.default_rng(0).integers(places, size=count),
            strict=True,
        )
    ]


def agreements(runs: Runs, pairs: int, found: Any, approximate: Any) -> dict[str, Any]:
    """Return how near attribution's effects are to the exact map's, by kind of target."""
    exactly, first_order = (
        by_pair(each, runs.units, pairs).mean(-1) - float(runs.corrupted.mean())
        for each in (found, approximate)
    )
    return {
        kind: vars(agreement(exactly[number], first_order[number]))
        for number, kind in enumerate(DEFAULT)
    }


def sizes(runs: Runs, pairs: Sequence[Any]) -> dict[str, int]:
    """Return how many tokens and openings a pair has."""
    openings = [pair.openings for pair in pairs]
    return {
        "longest": max(len(pair.clean) for pair in pairs),
        "shared": runs.batch.shared,
        "tree": max(len(tree_of(one).tokens) for one in openings),
        "openings": max(len(one.refusing) + len(one.complying) for one in openings),
    }


def timed(clock: Callable[[], float], work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what work comes to, and its seconds."""
    begun = clock()
    found = work()
    return found, clock() - begun


def measure(chat: ChatModel, pairs: Sequence[Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the map, attribution and the plain loops take, and how far they agree."""
    anatomy, clock = anatomy_of(chat.model), clock_of(chat)
    places, targets = places_of(pairs, "groups"), targets_of(anatomy, DEFAULT)
    scale = deviation(chat.model, anatomy.embedding, pairs) * 3
    which = range(len(pairs))

    def exact_map() -> tuple[Runs, Any]:
        runs = Runs(chat.model, anatomy, pairs, targets, scale)
        return runs, exact(runs, places, which, rows=arguments.rows)

    def first_order() -> Any:
        return attributed(Runs(chat.model, anatomy, pairs, targets, scale), places, which)

    def one_reading() -> Any:
        return RefusalMargin(chat.model, [p.clean for p in pairs], [p.openings for p in pairs])()

    (runs, found), ours = timed(clock, exact_map)
    approximate, fast = timed(clock, first_order)
    shape = (len(targets), len(anatomy.layers), len(places))
    cells = cells_of(shape, arguments.cells)
    plain = plain_loops(chat, runs, places, cells, found)
    for one in plain.values():
        one["seconds"] = one["seconds_a_cell"] * math.prod(shape)
        one["ratio"] = one["seconds"] / ours
    _, reading = timed(clock, one_reading)
    return {
        "device": str(chat.model.device),
        "dtype": chat.placement.dtype,
        "threads": torch.get_num_threads(),
        "corruption": arguments.corruption,
        "pairs": len(pairs),
        "units": len(runs.units),
        "cells": math.prod(shape),
        "plain_cells": len(cells),
        "tokens": sizes(runs, pairs),
        "clean": float(runs.clean.mean()),
        "corrupted": float(runs.corrupted.mean()),
        "exact": {"seconds": ours, "times_one_reading": ours / reading},
        "attribution": {
            "seconds": fast,
            "ratio": ours / fast,
            "agreement": agreements(runs, len(pairs), found, approximate),
        },
        "plain": plain,
    }


def main() -> int:
    """Run all three, and print and perhaps keep what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--corruption", choices=("resampled", "noise"), default="resampled")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--cells", type=int, default=6)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    chat = load(arguments.model, arguments.dtype)
    known, journal = builtin_set(), Journal(Path(":memory:"))
    chosen = choose(
        chat,
        evenly(known.of("harmful"), 8 * arguments.pairs),
        known.of("twin"),
        arguments.pairs,
        lambda prompts: answer(chat, prompts, journal, Decoding(tokens=16)),
    )
    pairs = pairs_of(chat, chosen, arguments.corruption, draws=arguments.draws)
    text = json.dumps(measure(chat, pairs, arguments), indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
