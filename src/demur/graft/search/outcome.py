"""What an oracle says of a set of modules, and what a search says at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from demur.errors import DemurError

Verdict = Literal["passed", "failed", "undecided"]


class NothingToFind(DemurError):
    """All modules together do not pass: no smaller set can be expected to."""


class AlreadyPasses(NothingToFind):
    """No module at all is enough: the recipient passes as it is."""


@dataclass(frozen=True)
class Outcome:
    """What became of one test.

    Attributes:
        verdict: `undecided` where the oracle cannot tell; a search never takes that for passed.
        score: the measure behind it, if there is one; kept, and not used.
    """

    verdict: Verdict
    score: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the set passed."""
        return self.verdict == "passed"


@dataclass(frozen=True)
class Told:
    """One entry of a search's history: a set, and what was said of it."""

    candidate: frozenset[int]
    outcome: Outcome


@dataclass(frozen=True)
class Minimality:
    """How far it is proven that no single module can be left out of a set.

    Attributes:
        failed: modules without which the set was tested and failed.
        passed: modules without which it passed, so that it is not minimal.
        undecided: modules without which the oracle could not tell.
        untried: modules that were never left out of this very set.
    """

    failed: tuple[int, ...]
    passed: tuple[int, ...]
    undecided: tuple[int, ...]
    untried: tuple[int, ...]

    @property
    def proven(self) -> bool:
        """Whether the set is 1-minimal by tests that were really made."""
        return not (self.passed or self.undecided or self.untried)


@dataclass(frozen=True)
class Monotonicity:
    """How often more modules did worse: a set passed, and one that contains it failed.

    Attributes:
        pairs: pairs of tested sets of which one contains the other and passed itself.
        contrary: those of them of which the larger one failed.
        example: the smaller and the larger set of one of those, the first that was met.
    """

    pairs: int
    contrary: int
    example: tuple[frozenset[int], frozenset[int]] | None

    @property
    def holds(self) -> bool:
        """Whether nothing that was tested speaks against monotone effects."""
        return not self.contrary
