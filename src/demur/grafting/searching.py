"""The search for a small set of modules, with the oracle's answers; kept, so that it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from demur.graft.candidate import Candidate
from demur.graft.cost import Cost
from demur.graft.oracle import Oracle
from demur.graft.search import Minimality, Monotonicity, Outcome, Search, Told
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
        tests: how many sets were judged.
        minimality, monotonicity: as the search found them; None where it was not needed.
        history: every verdict, modules by name.
        cost: of judging.
    """

    candidate: Candidate
    wanted: Wanted
    tests: int
    minimality: Minimality | None
    monotonicity: Monotonicity | None
    history: tuple[tuple[tuple[str, ...], bool], ...]
    cost: Cost

    @property
    def sentence(self) -> str:
        """What was found, for the report."""
        proof = ""
        if self.minimality is not None:
            proof = (
                "; without any one of them it would not"
                if self.minimality.proven
                else "; whether each is needed was not proven"
            )
        contrary = ""
        if self.monotonicity is not None and not self.monotonicity.holds:
            contrary = (
                f" In {self.monotonicity.contrary} of {self.monotonicity.pairs} pairs of tested "
                "sets the larger one did worse."
            )
        return (
            f"{self.tests} sets of modules were judged; the lightest that reaches "
            f"{self.wanted.harmful:.0%} of the harmful search prompts has "
            f"{len(self.candidate.modules)} modules{proof}.{contrary}"
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
    cost = Cost()
    with context.narrator.progress("sets judged", LIMIT) as advance:
        if _passes(oracle, whole, wanted):
            while not search.done:
                for asked in search.ask():
                    candidate = replace(whole, modules=frozenset(names[one] for one in asked))
                    decision = oracle.judge(candidate, wanted)
                    cost += decision.cost
                    verdict = Outcome("passed" if decision.passed else "failed", decision.margin)
                    search.tell(asked, verdict)
                    advance(1)
    history = tuple(_by_name(told, names) for told in search.history)
    if search.best is None:
        return Searched(whole, wanted, len(history), None, None, history, cost)
    return Searched(
        replace(whole, modules=frozenset(names[one] for one in search.best)),
        wanted,
        len(history),
        search.minimality,
        search.monotonicity,
        history,
        cost,
    )


def _passes(oracle: Oracle, whole: Candidate, wanted: Wanted) -> bool:
    """Return whether there is anything to find, and no less than something is needed."""
    empty = Candidate(frozenset())
    return oracle.judge(whole, wanted).passed and not oracle.judge(empty, wanted).passed


def _by_name(told: Told, names: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    return tuple(sorted(names[one] for one in told.candidate)), told.outcome.passed
