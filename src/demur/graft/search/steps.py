"""How a search is written: as a state that names the next set to test, and knows what follows.

A `Step` is a value, so that its futures can be looked at before the answers are there: that is how
`Search` fills a batch with the sets that will probably be needed next, whatever the method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Kept = tuple[int, ...]
"""Modules of a set that has passed, in the order of the trace: likely needed first."""


class Step(Protocol):
    """Where a method stands."""

    @property
    def candidate(self) -> frozenset[int] | None:
        """The set to test next; None when the method is over."""
        ...

    @property
    def kept(self) -> Kept:
        """The smallest set that the method has seen pass."""
        ...

    @property
    def chance(self) -> float:
        """A guess of how probably the candidate passes; only the filling of batches uses it."""
        ...

    def after(self, passed: bool) -> Step:
        """Return the step that follows an answer."""
        ...


Method = Callable[[Kept], Step]
"""Begins with a set that passes; its end is reached when the step has no candidate."""


@dataclass(frozen=True)
class Chain:
    """One method, and another that begins with what the first has found; see `chained`."""

    first: Step
    second: Method

    @property
    def candidate(self) -> frozenset[int] | None:
        """See `Step`."""
        return self.first.candidate

    @property
    def kept(self) -> Kept:
        """See `Step`."""
        return self.first.kept

    @property
    def chance(self) -> float:
        """See `Step`."""
        return self.first.chance

    def after(self, passed: bool) -> Step:
        """See `Step`."""
        return chained(self.first.after(passed), self.second)


def chained(first: Step, second: Method) -> Step:
    """Return `first`, followed by `second` from what it has found."""
    return second(first.kept) if first.candidate is None else Chain(first, second)


def without(kept: Kept, part: Kept) -> Kept:
    """Return the modules of `kept` that are not in `part`, in order."""
    gone = frozenset(part)
    return tuple(module for module in kept if module not in gone)
