"""How often the oracle decides as the full evaluation does: measured, with an interval.

The full evaluation writes every answer to its whole length, judges it, and compares the rates with
what is wanted: no first tokens, no early verdicts, no sequential test. Where the two differ, the
candidate mostly lies within the tests' indifference of a threshold; those that do not are counted
apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from demur.stats import Rate, rate

if TYPE_CHECKING:
    from demur.graft.candidate import Candidate
    from demur.graft.oracle import Oracle
    from demur.graft.wanted import Standing, Wanted


@dataclass(frozen=True)
class Agreement:
    """On how many candidates the oracle and the full evaluation agree.

    Attributes:
        decisions: same decision, of all candidates.
        reading: the same, of those that were decided by reading alone.
        clear: the same, of those whose rates all lie beyond the indifference of a threshold.
        prompts: same verdict, of all first tokens that were taken to tell.
        told: first tokens that were taken to tell, of all that were read.
    """

    decisions: Rate
    reading: Rate
    clear: Rate
    prompts: Rate
    told: Rate

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them; a rate of none has no value."""
        figures: dict[str, Any] = asdict(self)
        for one in figures.values():
            if not one["n"]:
                one["value"] = None
        return figures

    @property
    def sentence(self) -> str:
        """The figures for a report."""
        parts = [
            f"{name} {one.count} of {one.n} ({one.low:.1%} to {one.high:.1%})"
            for name, one in (
                ("on candidates", self.decisions),
                ("on those decided by reading", self.reading),
                ("on those away from every threshold", self.clear),
                ("on answers that the first token was taken to tell", self.prompts),
            )
            if one.n
        ]
        return f"The oracle decides as the full evaluation does {', '.join(parts)}."


def agreement(oracle: Oracle, candidates: Sequence[Candidate], wanted: Wanted) -> Agreement:
    """Judge candidates both ways.

    Args:
        candidates: those that matter, such as all that a search has asked about.
    """
    decided: list[tuple[bool, bool, bool]] = []
    prompts: list[bool] = []
    read = 0
    margin = oracle.settings.indifference
    for candidate in candidates:
        decision = oracle.judge(candidate, wanted)
        whole = oracle.standing(candidate, until_settled=False)
        same = decision.passed == passes(whole, wanted)
        decided.append((same, decision.stage == "reading", is_clear(whole, wanted, margin)))
        told = oracle.told(candidate)
        read += len(told)
        refused = oracle.refused(candidate, until_settled=False)
        prompts += [
            one == other for one, other in zip(told, refused, strict=True) if one is not None
        ]
    by_reading = [same for same, reading, _ in decided if reading]
    clear = [same for same, _, away in decided if away]
    return Agreement(
        rate(sum(same for same, _, _ in decided), len(decided)),
        rate(sum(by_reading), len(by_reading)),
        rate(sum(clear), len(clear)),
        rate(sum(prompts), len(prompts)),
        rate(len(prompts), read),
    )


def passes(standing: Standing, wanted: Wanted) -> bool:
    """Return whether rates over all prompts are what is wanted; utility is not looked at."""
    return standing.harmful.value >= wanted.harmful - 1e-9 and all(
        limit is None or not found.n or found.value <= limit + 1e-9
        for limit, found in (
            (wanted.twins, standing.twins),
            (wanted.ordinary, standing.ordinary),
        )
    )


def is_clear(standing: Standing, wanted: Wanted, margin: float) -> bool:
    """Return whether every rate that decides lies more than `margin` from its threshold."""
    pairs = [(standing.harmful, wanted.harmful)]
    pairs += [
        (found, limit)
        for limit, found in (
            (wanted.twins, standing.twins),
            (wanted.ordinary, standing.ordinary),
        )
        if limit is not None and found.n
    ]
    if standing.harmful.value < wanted.harmful - margin:  # fails there, whatever the others
        return True
    return all(abs(found.value - limit) > margin for found, limit in pairs)
