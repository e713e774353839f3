"""The search for a small set of modules, with the oracle's answers; kept, so that it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from demur.graft.candidate import Candidate
from demur.graft.cost import Cost
from demur.graft.oracle import Oracle
from demur.graft.search import Minimality, Monotonicity, NothingToFind, Outcome, Search, Told
from demur.graft.wanted import Wanted
from demur.grafting.config import GraftConfig
from demur.treating.stages import Context

LIMIT = 400  # tests of one search


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    Attributes:
        candidate: the smallest set that passed, at the scale and rank that were given.
        wanted: what a set had to reach.
        minimality, monotonicity: as the search found them; None where there was nothing to find.
        nothing: why there was nothing to find, and `candidate` is all; else empty.
        history: every verdict, modules by name.
        cost: of judging.
    """

    candidate: Candidate
    wanted: Wanted
    minimality: Minimality | None
    monotonicity: Monotonicity | None
    nothing: str
    history: tuple[tuple[tuple[str, ...], bool], ...]
    cost: Cost

    @property
    def tests(self) -> int:
        """How many sets were judged."""
        return len(self.history)

    @property
    def sentence(self) -> str:
        """What was found, for the report."""
        if self.minimality is None or self.monotonicity is None:
            return f"No smaller set was found. {self.nothing}"
        proof = (
            "without any one of them it would not"
            if self.minimality.proven
            else "whether each is needed was not proven"
        )
        contrary = ""
        if not self.monotonicity.holds:
            contrary = (
                f" In {self.monotonicity.contrary} of {self.monotonicity.pairs} pairs of tested "
                "sets the larger one did worse."
            )
        return (
            f"{self.tests} sets of modules were judged; the lightest that reaches "
            f"{self.wanted.harmful:.0%} of the harmful search prompts has "
            f"{len(self.candidate.modules)} modules; {proof}.{contrary}"
        )


def search_modules(
    config: GraftConfig,
    context: Context,
    oracle: Oracle,
    order: Sequence[tuple[str, float]],
    whole: Candidate,
    wanted: Wanted,
) -> Searched:
    """Find a small part of `whole` that has what is wanted.

    Args:
        order: modules, likely needed first, with their effects.
        whole: the candidate of which some modules are to be left out.
    """
    effects = {name: effect for name, effect in order if name in whole.modules}
    weigh = {
        name: float(replace(whole, modules=frozenset({name})).parameters(oracle.deltas))
        for name in effects
    }
    # By effect a parameter, since it is weight that is to be saved (docs/results/search.md).
    names = sorted(effects, key=lambda name: -effects[name] / weigh[name])
    search = Search([weigh[name] for name in names], method=config.search, limit=LIMIT)
    cost, nothing = Cost(), ""
    with context.narrator.progress("sets judged", None) as advance:
        try:
            while not search.done:
                for asked in search.ask():
                    candidate = replace(whole, modules=frozenset(names[one] for one in asked))
                    decision = oracle.judge(candidate, wanted)
                    cost += decision.cost
                    verdict = Outcome("passed" if decision.passed else "failed", decision.margin)
                    search.tell(asked, verdict)
                    advance(1)
        except NothingToFind as error:
            nothing = error.cause
    history = tuple(_by_name(told, names) for told in search.history)
    if nothing or search.best is None:
        return Searched(whole, wanted, None, None, nothing, history, cost)
    smallest = replace(whole, modules=frozenset(names[one] for one in search.best))
    return Searched(smallest, wanted, search.minimality, search.monotonicity, "", history, cost)


def _by_name(told: Told, names: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    return tuple(sorted(names[one] for one in told.candidate)), told.outcome.passed
