"""ddmin (Zeller and Hildebrandt, IEEE TSE 28, 2002, figure 5), test for test as picire does it.

The set is split in two; if a part alone passes, go on with it; if what is left without a part
passes, go on with that, in the same parts; otherwise split twice as finely, down to single modules.
Like picire, it goes on with the part after the one that was left out, and does not test again what
is known. Where effects are monotone the result is 1-minimal, in at most n^2 + 3n tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from demur.graft.search.steps import Kept


def split_evenly(parts: tuple[Kept, ...]) -> tuple[Kept, ...]:
    """Return twice as many parts, or single modules, as equal in number as Zeller makes them."""
    kept = tuple(chain.from_iterable(parts))
    count = min(len(kept), 2 * len(parts))
    finer, start = [], 0
    for place in range(count):
        stop = start + (len(kept) - start) // (count - place)
        finer.append(kept[start:stop])
        start = stop
    return tuple(finer)


@dataclass(frozen=True)
class Ddmin:
    """A `Step`: a part, or all but a part.

    Attributes:
        parts: what passes, in at least two parts, or a single module in one.
        offset: part whose complement comes first; a fraction where that part was split.
        place: how many tests of these parts have failed: n parts, then n complements.
    """

    parts: tuple[Kept, ...]
    offset: float = 0
    place: int = 0

    @property
    def kept(self) -> Kept:
        """See `Step`."""
        return tuple(chain.from_iterable(self.parts))

    @property
    def chance(self) -> float:
        """See `Step`."""
        return 0.05 if 2 < len(self.parts) > self.place else 0.3

    @property
    def part(self) -> int:
        """Which part is tested, or left out."""
        count = len(self.parts)
        return self.place if self.place < count else int((self.place + self.offset) % count)

    @cached_property
    def candidate(self) -> frozenset[int] | None:
        """See `Step`."""
        if len(self.parts) < 2 or self.place == 2 * len(self.parts):
            return None
        part = self.part
        if self.place < len(self.parts):
            return frozenset(self.parts[part])
        others = self.parts[:part] + self.parts[part + 1 :]
        return frozenset(chain.from_iterable(others))

    def after(self, passed: bool) -> Ddmin:
        """See `Step`."""
        count, part = len(self.parts), self.part
        if passed and self.place < count:
            return _in_parts((self.parts[part],), 0)
        if passed:
            return _in_parts(self.parts[:part] + self.parts[part + 1 :], part)
        if self.place + 1 < 2 * count or all(len(part) == 1 for part in self.parts):
            return Ddmin(self.parts, self.offset, self.place + 1)
        finer = split_evenly(self.parts)
        return Ddmin(finer, self.offset * len(finer) / count)


def _in_parts(parts: tuple[Kept, ...], offset: float) -> Ddmin:
    whole = len(parts) == 1 and len(parts[0]) > 1
    return Ddmin(split_evenly(parts) if whole else parts, offset)


def ddmin(kept: Kept) -> Ddmin:
    """Begin with a set that passes, in the order of the trace."""
    return _in_parts((kept,), 0)
