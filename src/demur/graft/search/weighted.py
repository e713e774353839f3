"""Weighted ddmin: parts of equal weight, not of equal number (WDD, ICSE 2025, arXiv 2411.19410).

A module's weight is its number of parameters. A gate of an MLP weighs many times a norm: split by
number, one half can weigh nearly everything. Each part is split where its halves weigh most nearly
the same, in the order of the trace. Single modules that could neither stand alone nor be left out
are set aside; the one-by-one pass that WDD ends with is `Removals`, which follows.

As in picire's ddmin, and unlike WDD, the round goes on with the next part when one was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from demur.graft.search.steps import Kept, without


def split_by_weight(part: Kept, weights: Sequence[float]) -> tuple[Kept, Kept]:
    """Return the two parts of a part of at least two modules that weigh most nearly the same."""
    sums = list(accumulate(weights[module] for module in part))
    stop = min(range(1, len(part)), key=lambda stop: abs(2 * sums[stop - 1] - sums[-1]))
    return part[:stop], part[stop:]


@dataclass(frozen=True)
class WeightedDdmin:
    """A `Step`: a part, or all but a part.

    Attributes:
        kept: passes.
        parts: of it; what was set aside is in none.
        weights: of every module, by its id.
        place: which test of these parts is next: first the parts, then the complements.
        last: complements that are still to be tested before the round is over.
    """

    kept: Kept
    parts: tuple[Kept, ...]
    weights: Sequence[float] = field(repr=False, compare=False)
    place: int = 0
    last: int = 0

    @property
    def chance(self) -> float:
        """See `Step`."""
        return 0.05 if 2 < len(self.parts) > self.place else 0.3

    @cached_property
    def candidate(self) -> frozenset[int] | None:
        """See `Step`."""
        if not self.parts:
            return None
        if self.place < len(self.parts):
            return frozenset(self.parts[self.place])
        return frozenset(without(self.kept, self.parts[self.place - len(self.parts)]))

    def after(self, passed: bool) -> WeightedDdmin:
        """See `Step`."""
        count = len(self.parts)
        if self.place < count:
            if passed:
                return weighted_ddmin(self.parts[self.place], self.weights)
            return WeightedDdmin(self.kept, self.parts, self.weights, self.place + 1, count)
        part = self.place - count
        if passed:
            kept = without(self.kept, self.parts[part])
            parts = self.parts[:part] + self.parts[part + 1 :]
            return self._next_complement(kept, parts, part, len(parts))
        return self._next_complement(self.kept, self.parts, part + 1, self.last - 1)

    def _next_complement(
        self, kept: Kept, parts: tuple[Kept, ...], part: int, last: int
    ) -> WeightedDdmin:
        if last and len(parts) > 1:
            place = len(parts) + part % len(parts)
            return WeightedDdmin(kept, parts, self.weights, place, last)
        finer = (split_by_weight(part, self.weights) for part in parts if len(part) > 1)
        return WeightedDdmin(kept, tuple(half for pair in finer for half in pair), self.weights)


def weighted_ddmin(kept: Kept, weights: Sequence[float]) -> WeightedDdmin:
    """Begin with a set that passes, in the order of the trace."""
    parts = split_by_weight(kept, weights) if len(kept) > 1 else ()
    return WeightedDdmin(kept, parts, weights)
