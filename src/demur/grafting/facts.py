"""What a report shows of a graft: the grafts that were measured, and the modules taken."""

from __future__ import annotations

from demur.graft.candidate import Candidate
from demur.graft.deltas import Deltas
from demur.graft.front import Point, pareto
from demur.graft.oracle import Oracle
from demur.graft.wanted import Standing
from demur.grafting.modes import Found
from demur.report.content import GraftFacts, GraftModule, GraftPoint


def facts_of(oracle: Oracle, found: Found, chosen: Point) -> GraftFacts:
    """Return what the report shows.

    Args:
        chosen: what validation chose, measured on search prompts.
    """
    front = {point.candidate.key for point in pareto((*found.points, chosen))}
    rows = [_held_against("untouched", oracle.before, 0.0)]
    rows.append(_held_against("donor", oracle.donor, oracle.whole.share(oracle.deltas)))
    rows += [
        _row(point, False, point.candidate.key in front)
        for point in found.points
        if point.candidate.key != chosen.candidate.key
    ]
    rows.append(_row(chosen, True, chosen.candidate.key in front))
    return GraftFacts(tuple(rows), _modules(oracle.deltas, found, chosen.candidate))


def _held_against(role: str, standing: Standing, share: float) -> GraftPoint:
    rates = (standing.harmful, standing.twins, standing.ordinary, standing.over_refusal)
    if role == "donor":
        return GraftPoint("all that the donor changed", "donor", *rates, share, False)
    return GraftPoint("the recipient as it is", "untouched", *rates, share, False)


def _row(point: Point, chosen: bool, front: bool) -> GraftPoint:
    standing = point.standing
    return GraftPoint(
        point.candidate.label,
        "chosen" if chosen else "tried",
        *(standing.harmful, standing.twins, standing.ordinary, standing.over_refusal),
        point.share,
        front,
    )


def _modules(deltas: Deltas, found: Found, chosen: Candidate) -> tuple[GraftModule, ...]:
    effects, kept = dict(found.order), set(chosen.changed(deltas))
    return tuple(
        GraftModule(
            delta.module.layer, delta.module.kind, delta.changed, name in kept, effects.get(name)
        )
        for name, delta in deltas.items()
    )
