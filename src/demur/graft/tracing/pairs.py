"""What is traced: requests that a model refuses, each with what corrupts it.

* `noise`: Gaussian noise on the embeddings of the request's tokens, of three standard deviations
  of those embeddings (ROME, section 2.1), a few draws of it.
* `resampled`: another prompt takes the place of the corrupted one, here the benign twin: symmetric
  token replacement (Zhang and Nanda 2024, arXiv 2309.16042), which stays among the inputs that the
  model knows. Twins of different length are aligned at the end: the last token of one meets the
  last of the other, and tokens of the longer that meet none are left as they are. Pairs of the same
  length are taken first (`closest`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from demur.graft.openings import Openings
from demur.graft.tracing.names import Positions
from demur.graft.tracing.places import Place, Template, groups, tokens
from demur.run.journal import content_key

DEVIATIONS = 3.0  # ROME, section 2.1


@dataclass(frozen=True)
class Pair:
    """One request that is traced, as token ids, the answer opened.

    Attributes:
        clean: the harmful request.
        corrupted: its twin; the same request where noise corrupts.
        openings: how answers to it may begin.
        start, end: the request's tokens in `clean`.
        shared: tokens of the request that have a counterpart, counted from its end.
        seeds: of the draws of noise; empty where the twin corrupts.
    """

    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    openings: Openings
    start: int
    end: int
    shared: int
    seeds: tuple[int, ...] = ()

    @property
    def draws(self) -> int:
        """How many corrupted runs there are."""
        return len(self.seeds) or 1

    @property
    def key(self) -> str:
        """A hash of all that decides what tracing it gives."""
        return content_key(
            self.clean,
            self.corrupted,
            self.openings.refusing,
            self.openings.complying,
            (self.start, self.end, self.shared),
            self.seeds,
        )


def make_pair(
    template: Template,
    clean: Sequence[int],
    corrupted: Sequence[int] | None,
    openings: Openings,
    *,
    draws: int = 0,
    seed: int = 0,
) -> Pair:
    """Return a pair of a request and its twin, or of a request and noise where there is none.

    Args:
        draws: of noise.
        seed: of the draws; each has one of its own from this, the request and its number.
    """
    start, end = template.request(clean)
    if corrupted is None:
        seeds = tuple(int(content_key(list(clean), seed, draw)[:12], 16) for draw in range(draws))
        return Pair(tuple(clean), tuple(clean), openings, start, end, end - start, seeds)
    other_start, other_end = template.request(corrupted)
    shared = min(end - start, other_end - other_start)
    return Pair(tuple(clean), tuple(corrupted), openings, start, end, shared)


def closest(lengths: Sequence[tuple[int, int]], count: int) -> list[int]:
    """Return which pairs of prompts are nearest in length, in their order, `count` at most."""
    by_gap = sorted(range(len(lengths)), key=lambda i: (abs(lengths[i][0] - lengths[i][1]), i))
    return sorted(by_gap[:count])


def places_of(pairs: Sequence[Pair], positions: Positions) -> tuple[Place, ...]:
    """Return the places of some pairs, by groups of tokens or token by token."""
    requests = [pair.shared for pair in pairs]
    tails = [len(pair.clean) - pair.end for pair in pairs]
    return (groups if positions == "groups" else tokens)(requests, tails)


def deviation(model: Any, embedding: str, pairs: Sequence[Pair]) -> float:
    """Return the standard deviation of the embeddings of all requests' tokens, over all numbers."""
    import torch

    ids = [token for pair in pairs for token in pair.clean[pair.start : pair.end]]
    with torch.inference_mode():
        found = model.get_submodule(embedding)(torch.tensor([ids], device=model.device))
    return float(found.float().std())


def noise(pair: Pair, draw: int, width: int, scale: float) -> Any:
    """Return (tokens of the request, width) float32 noise, the same on every device."""
    import torch

    generator = torch.Generator().manual_seed(pair.seeds[draw])
    return scale * torch.randn((pair.end - pair.start, width), generator=generator)
