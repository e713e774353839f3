"""The search for a small set of modules that passes, by ask and tell, and sequential tests."""

from demur.graft.search.outcome import (
    AlreadyPasses,
    Minimality,
    Monotonicity,
    NothingToFind,
    Outcome,
    Told,
    Verdict,
)
from demur.graft.search.search import Search
from demur.graft.search.sequential import Behaviour, Decision, PairedTest, SequentialTest

__all__ = [
    "AlreadyPasses",
    "Behaviour",
    "Decision",
    "Minimality",
    "Monotonicity",
    "NothingToFind",
    "Outcome",
    "PairedTest",
    "Search",
    "SequentialTest",
    "Told",
    "Verdict",
]
