"""Synthetic oracles, and a loop that asks and tells."""

from __future__ import annotations

import random
from collections.abc import Callable

from demur.graft.search import Outcome, Search

Oracle = Callable[[frozenset[int]], bool]
METHODS = (
    "ddmin",
    "wddmin",
    "cdd",
    "probdd",
    "prefix",
    "greedy",
    "splitting",
    "prefix+ddmin",
    "prefix+cdd",
)


def needs(*modules: int) -> Oracle:
    """Passes with all of these modules."""
    return frozenset(modules).issubset


def either(*groups: tuple[int, ...]) -> Oracle:
    """Passes with all modules of any of these groups: monotone, with several minimal sets."""
    return lambda candidate: any(candidate.issuperset(group) for group in groups)


def adds_up(effects: list[float], threshold: float) -> Oracle:
    """Passes where the effects of the modules come to a threshold."""
    return lambda candidate: sum(effects[one] for one in sorted(candidate)) >= threshold


def arbitrary(seed: int, share: float) -> Oracle:
    """Passes for every set with the same probability: nothing is monotone."""

    def passes(candidate: frozenset[int]) -> bool:
        return random.Random(f"{seed} {sorted(candidate)}").random() < share

    return passes


def bounded(oracle: Oracle, n: int) -> Oracle:
    """Make the whole pass and the empty set fail."""
    return lambda candidate: bool(candidate) and (len(candidate) == n or oracle(candidate))


def run(search: Search, oracle: Oracle) -> list[frozenset[int]]:
    """Search to the end; return the sets in the order in which they were tested."""
    tested = []
    while not search.done:
        for candidate in search.ask():
            tested.append(candidate)
            search.tell(candidate, Outcome("passed" if oracle(candidate) else "failed"))
    return tested
