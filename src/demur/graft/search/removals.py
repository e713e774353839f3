"""One by one: leave out each module in turn, the least likely needed first.

As a method of its own this is the greedy baseline. After any other it is the pass that proves
1-minimality: it goes round until every module of the set has been left out of that very set, and
each of those smaller sets was tested and did not pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from demur.graft.search.steps import Kept


@dataclass(frozen=True)
class Removals:
    """A `Step`: one module is left out.

    Attributes:
        kept: passes.
        place: which of them is left out next, counted from the end.
        tried: how many in a row could not be left out.
        chance: how often a module could be left out of late.
    """

    kept: Kept
    place: int = 0
    tried: int = 0
    chance: float = 0.3

    @cached_property
    def candidate(self) -> frozenset[int] | None:
        """See `Step`."""
        if self.tried >= len(self.kept):
            return None
        left_out = len(self.kept) - 1 - self.place
        return frozenset(self.kept[:left_out] + self.kept[left_out + 1 :])

    def after(self, passed: bool) -> Removals:
        """See `Step`."""
        chance = 0.8 * self.chance + 0.2 * passed
        if not passed:
            return Removals(self.kept, (self.place + 1) % len(self.kept), self.tried + 1, chance)
        left_out = len(self.kept) - 1 - self.place
        kept = self.kept[:left_out] + self.kept[left_out + 1 :]
        return Removals(kept, self.place % max(len(kept), 1), 0, chance)
