"""The shortest prefix of the trace's order that passes, by bisection.

Where the trace is right about what is needed, this alone finds it in log2(n) tests. Every length
that is taken has been tested; where effects are not monotone, another, shorter one may pass too.
"""

from __future__ import annotations

from dataclasses import dataclass

from demur.graft.search.steps import Kept


@dataclass(frozen=True)
class Prefix:
    """A `Step`: a length halfway between one that fails and one that passes.

    Attributes:
        order: all modules that are in question, likely needed first.
        fails: the longest prefix that is known to fail; 0 is the empty one.
        passes: the shortest that is known to pass.
    """

    order: Kept
    fails: int
    passes: int
    chance: float = 0.5

    @property
    def kept(self) -> Kept:
        """See `Step`."""
        return self.order[: self.passes]

    @property
    def candidate(self) -> frozenset[int] | None:
        """See `Step`."""
        if self.passes - self.fails < 2:
            return None
        return frozenset(self.order[: (self.fails + self.passes) // 2])

    def after(self, passed: bool) -> Prefix:
        """See `Step`."""
        middle = (self.fails + self.passes) // 2
        if passed:
            return Prefix(self.order, self.fails, middle)
        return Prefix(self.order, middle, self.passes)


def shortest_prefix(kept: Kept) -> Prefix:
    """Begin with a set that passes, in the order of the trace."""
    return Prefix(kept, 0, len(kept))
