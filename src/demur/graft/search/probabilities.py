"""ProbDD: delta debugging by probabilities (Wang et al., ESEC/FSE 2021).

Each module has a probability of being needed. Those least likely to be needed are left out
together, as many as promise most: argmax over s of s * product of (1 - p). Where that fails, their
probabilities rise, by Bayes' rule, to p / (1 - product of (1 - p)); a module that failed alone is
needed for certain. Of equal probabilities, what the trace puts last is left out first. The result
need not be 1-minimal, and `Removals` follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from demur.graft.search.counters import P0
from demur.graft.search.steps import Kept


@dataclass(frozen=True)
class Probabilities:
    """A `Step`: the part that promises most is left out.

    Attributes:
        kept: passes.
        needed: probability of each of them.
    """

    kept: Kept
    needed: tuple[float, ...]

    @cached_property
    def choice(self) -> tuple[frozenset[int], float]:
        """Which places to leave out, and the probability that none of them is needed."""
        places = sorted(range(len(self.kept)), key=lambda place: (self.needed[place], -place))
        best, size, free, chance = 0.0, 0, 1.0, 1.0
        for count, place in enumerate(places, 1):
            free *= 1 - self.needed[place]
            if count * free < best * (1 - 1e-9) or free <= 0:
                break
            best, size, chance = count * free, count, free
        return frozenset(places[:size]), chance

    @property
    def chance(self) -> float:
        """See `Step`."""
        return self.choice[1]

    @cached_property
    def candidate(self) -> frozenset[int] | None:
        """See `Step`."""
        places = self.choice[0]
        if not places:
            return None
        return frozenset(module for place, module in enumerate(self.kept) if place not in places)

    def after(self, passed: bool) -> Probabilities:
        """See `Step`."""
        places, chance = self.choice
        if passed:
            stay = [place for place in range(len(self.kept)) if place not in places]
            kept = tuple(self.kept[place] for place in stay)
            return Probabilities(kept, tuple(self.needed[place] for place in stay))
        raised = list(self.needed)
        for place in places:
            certain = len(places) == 1
            raised[place] = 1.0 if certain else min(raised[place] / (1 - chance), 1.0)
        return Probabilities(self.kept, tuple(raised))


def probabilistic(kept: Kept, p0: float = P0) -> Probabilities:
    """Begin with a set that passes, in the order of the trace."""
    return Probabilities(kept, (p0,) * len(kept))
