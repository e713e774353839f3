"""Binary splitting: find the needed modules one after the other, from the end of the trace.

Where effects are monotone, looking for the needed modules is group testing: a part can be left out
or holds a needed module, which bisection then finds. As in Hwang's generalized binary splitting
(JASA 67, 1972), a part is as large as is left out every other time, here by the share of needed
modules met so far (Krichevsky and Trofimov's estimate). A few needed modules among many then take
about log2(n / k) tests each; many take no more than one test a module; and what a good trace puts
last goes in a few large parts. As in the dichotomic search for minimal unsatisfiable cores (Hemery,
Lecoutre, Sais and Boussemart, ECAI 2006), what is found to be needed is in all sets that follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from demur.graft.search.steps import Kept


@dataclass(frozen=True)
class Splitting:
    """A `Step`: the needed modules and so many of the others, from the start of the order.

    Attributes:
        needed: modules that were found to be needed.
        others: what is not settled yet, likely needed first; with the needed ones, it passes.
        fails: so many of the others, with the needed ones, fail; -1 where no number is known to.
        settled: modules that were left out or found to be needed.
    """

    needed: Kept
    others: Kept
    fails: int
    settled: int
    chance: float = 0.5

    @property
    def kept(self) -> Kept:
        """See `Step`."""
        return self.others + self.needed

    @property
    def size(self) -> int:
        """How many modules are left out at once."""
        if self.fails >= 0:
            return (len(self.others) - self.fails) // 2
        share = (len(self.needed) + 0.5) / (self.settled + 1)
        size = round(math.log(0.5) / math.log1p(-share)) if share < 1 else 1
        return min(max(size, 1), (len(self.others) + 1) // 2)

    @cached_property
    def candidate(self) -> frozenset[int] | None:
        """See `Step`."""
        if not self.others:
            return None
        return frozenset(self.others[: len(self.others) - self.size] + self.needed)

    def after(self, passed: bool) -> Splitting:
        """See `Step`."""
        left = len(self.others) - self.size
        if passed:
            fails, others = self.fails, self.others[:left]
        else:
            fails, others = left, self.others
        settled = self.settled + len(self.others) - len(others)
        if fails < 0 or len(others) - fails > 1:
            return Splitting(self.needed, others, fails, settled)
        return Splitting((others[-1], *self.needed), others[:-1], -1, settled + 1)


def binary_splitting(kept: Kept) -> Splitting:
    """Begin with a set that passes, in the order of the trace; the empty one is known to fail."""
    if len(kept) < 2:
        return Splitting(kept, (), -1, 0)
    return Splitting((), kept, 0, 0)
