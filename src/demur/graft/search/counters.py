"""CDD: delta debugging by counters (Zhang et al., arXiv 2408.04735).

ProbDD gives each module a probability of being needed, and leaves out as many at once as promise
most. The paper shows that the probabilities are counters in disguise: all modules that are still
there have been tried equally often, so that the sizes can be fixed beforehand. Round r leaves out

    s_r = argmax over s of s (1 - p_r)^s,  p_r = p_0 / (1 - 1/e)^r

at a time, each part once, down to a round of single modules. A module that could not be left out
early may be so later: the result need not be 1-minimal, and `Removals` follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from demur.graft.search.steps import Kept

P0 = 0.1  # as in the papers on ProbDD and CDD


def round_size(round_: int, p0: float) -> int:
    """Return how many modules are left out at a time in a round; of two that are equal, more.

    Args:
        round_: counted from 0.
        p0: share of the modules that are expected to be needed, in (0, 1).
    """
    probability = p0 / (1 - 1 / math.e) ** round_
    if probability >= 1:
        return 1
    near = max(1, math.floor(-1 / math.log1p(-probability)))
    return max((near + 1, near), key=lambda size: round(_gain(size, probability), 9))


def _gain(size: int, probability: float) -> float:
    return float(size * (1 - probability) ** size)


@dataclass(frozen=True)
class Counters:
    """A `Step`: a part of one round's size is left out, from the end of the order to its start.

    Attributes:
        kept: passes.
        waiting: how many of them, from the start, this round has not yet come to.
        round: counted from 0.
        p0: share of the modules that are expected to be needed.
    """

    kept: Kept
    waiting: int
    round: int
    p0: float
    over: bool = False

    @property
    def size(self) -> int:
        """How many modules are left out at a time."""
        return min(round_size(self.round, self.p0), len(self.kept))

    @property
    def chance(self) -> float:
        """See `Step`."""
        probability = min(self.p0 / (1 - 1 / math.e) ** self.round, 0.9)
        return float((1 - probability) ** self.size)

    @cached_property
    def candidate(self) -> frozenset[int] | None:
        """See `Step`."""
        if self.over:
            return None
        return frozenset(self.kept[: max(self.waiting - self.size, 0)] + self.kept[self.waiting :])

    def after(self, passed: bool) -> Counters:
        """See `Step`."""
        waiting = max(self.waiting - self.size, 0)
        kept = self.kept[:waiting] + self.kept[self.waiting :] if passed else self.kept
        if waiting:
            return Counters(kept, waiting, self.round, self.p0)
        over = self.size == 1 or len(kept) < 2
        return Counters(kept, len(kept), self.round + 1, self.p0, over)


def counter_based(kept: Kept, p0: float = P0) -> Counters:
    """Begin with a set that passes, in the order of the trace."""
    round_ = 0
    while round_size(round_, p0) >= len(kept) > 1:  # leaving all out at once is the empty set
        round_ += 1
    return Counters(kept, len(kept), round_, p0, over=len(kept) < 2)
