"""The front: what can be had of a donor, from a fraction of a percent of the weights to all of it.

    sweep = Sweep(nested(order, deltas), deltas, limits=Limits(divergence=0.1))
    while asked := sweep.ask():
        sweep.tell([measure_point(oracle, candidate) for candidate in asked])
    choice = choose(pareto(sweep.points), Budget(share=0.01))

Refusal, over-refusal, divergence and share pull apart; a candidate is on the front where no other
is as good in all four and better in one. A sweep walks over nested sets of modules (from a trace's
or a search's order), ranks and scales: each set and rank has a scale from which on harmful requests
are refused and another from which on benign ones are, and steps of the scale are made only where
they can still tell something.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from demur.errors import ConfigError
from demur.graft.candidate import Candidate
from demur.graft.cost import Cost, metered
from demur.graft.wanted import NO_COST, Standing
from demur.run.journal import content_key
from demur.stats import Rate

if TYPE_CHECKING:
    from demur.graft.deltas import Deltas
    from demur.graft.oracle import Oracle

STEP = 1.5  # between two scales of a line, at most
LITTLE = 1.1  # a larger scale that is no larger than this is not worth a look
NEAR = 0.98  # of the scale that is foretold to reach the limit of divergence
SMALLEST, LARGEST = 0.25, 8.0
SHARES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # of the ordered modules that have something to give
RANKS = (1, 2, 4, None)


@dataclass(frozen=True)
class Point:
    """One candidate, measured.

    Attributes:
        standing: refusal rates on the search prompts.
        divergence: mean KL a token on ordinary answers, in nats; None where not measured.
        parameters: numbers that the graft brings.
        share: the same as a share of the recipient's.
        cost: what measuring took.
    """

    candidate: Candidate
    standing: Standing
    divergence: float | None
    parameters: int
    share: float
    cost: Cost = NO_COST

    @property
    def refusal(self) -> float:
        """Share of harmful requests refused."""
        return self.standing.harmful.value

    @property
    def over_refusal(self) -> float:
        """Share of benign requests refused, as `Standing` counts it."""
        return self.standing.over_refusal

    def to_json(self) -> dict[str, Any]:
        """Return the point as JSON can hold it; a rate of none has no value."""
        value = {**asdict(self), "candidate": self.candidate.to_json()}
        for one in value["standing"].values():
            if not one["n"]:
                one["value"] = None
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the point that `to_json` described."""
        rates = {
            kind: Rate(**{**one, "value": float("nan") if one["value"] is None else one["value"]})
            for kind, one in value["standing"].items()
        }
        return cls(
            **{
                **value,
                "candidate": Candidate.from_json(value["candidate"]),
                "standing": Standing(**rates),
                "cost": Cost(**value["cost"]),
            }
        )


def measure_point(oracle: Oracle, candidate: Candidate, *, diverge: bool = True) -> Point:
    """Measure a candidate on all search prompts, or find it in the journal.

    Args:
        diverge: whether divergence is measured, if there are ordinary prompts.

    Raises:
        ConfigError, ModelError: as `Oracle.judge`.
    """
    key = content_key("point", oracle.setting, candidate.key, diverge)
    known = oracle.journal.fact(key)
    if known is not None:
        return replace(Point.from_json(known), cost=NO_COST)
    with metered(oracle.chat.model) as meter:
        standing = oracle.quick_standing(candidate, meter)
        measured = diverge and bool(oracle.places["ordinary"])
        point = Point(
            candidate,
            standing,
            oracle.utility.divergence(candidate) if measured else None,
            candidate.parameters(oracle.deltas),
            candidate.share(oracle.deltas),
        )
        point = replace(point, cost=meter.cost)
    oracle.journal.keep_fact(key, point.to_json())
    return point


def pareto(points: Iterable[Point]) -> tuple[Point, ...]:
    """Return the points that no other one beats, the smallest share first.

    One beats another if it refuses as much, over-refuses, diverges and changes no more, and is
    better in one of these. Of equals the first is kept.
    """
    kept: list[Point] = []
    for point in points:
        if any(_no_worse(other, point) for other in kept):
            continue
        kept = [other for other in kept if not _no_worse(point, other)]
        kept.append(point)
    return tuple(sorted(kept, key=lambda point: (point.share, -point.refusal)))


def _no_worse(one: Point, other: Point) -> bool:
    return all(a <= b for a, b in zip(_costs(one), _costs(other), strict=True))


def _costs(point: Point) -> tuple[float, float, float, float]:
    return -point.refusal, point.over_refusal, point.divergence or 0.0, point.share


@dataclass(frozen=True)
class Budget:
    """What a graft may cost; None where it does not matter.

    Attributes:
        share: of the recipient's parameters.
        over_refusal: share of benign search prompts refused.
        divergence: mean KL a token on ordinary answers, in nats.
    """

    share: float | None = None
    over_refusal: float | None = None
    divergence: float | None = None

    def allows(self, point: Point) -> bool:
        """Return whether a point keeps to the budget."""
        return not self.beyond(point)

    def beyond(self, point: Point) -> tuple[str, ...]:
        """Return which limits a point is beyond."""
        pairs = {
            "share": (point.share, self.share),
            "over_refusal": (point.over_refusal, self.over_refusal),
            "divergence": (point.divergence or 0.0, self.divergence),
        }
        return tuple(
            name
            for name, (value, limit) in pairs.items()
            if limit is not None and value > limit + 1e-12
        )


@dataclass(frozen=True)
class Choice:
    """The point that was picked, and one sentence that says why."""

    point: Point
    sentence: str


def choose(front: Sequence[Point], budget: Budget, *, most: bool = False) -> Choice:
    """Pick what is best within a budget: the most refusal less over-refusal, the smaller of equals.

    Args:
        most: whether over-refusal has been paid for by the budget, so that refusal alone counts.

    Raises:
        ConfigError: there is no point within the budget.
    """
    within = [point for point in front if budget.allows(point)]
    if not within:
        nearest = min(front, key=lambda point: (len(budget.beyond(point)), *_costs(point)))
        names = " and ".join(name.replace("_", "-") for name in budget.beyond(nearest))
        raise ConfigError(
            f"None of the {len(front)} grafts on the front keeps to the budget; the nearest "
            f"({_figures(nearest)}) is beyond its {names}.",
            "Allow more, or give a donor that over-refuses less.",
        )
    best = max(within, key=lambda point: worth(point, most))
    others = len(front) - len(within)
    merit = "the most" if most else "the most for what it over-refuses"
    why = (
        f"It refuses {merit} among the {len(within)} grafts"
        + (f" within the budget ({others} are beyond it)" if others else " on the front")
        if len(within) > 1
        else "It is the only graft" + (" within the budget" if others else " on the front")
    )
    return Choice(best, f"{why}: {best.candidate.label}, {_figures(best)}.")


def worth(point: Point, most: bool) -> tuple[float, float, float]:
    """Return what `choose` compares: refusal, less over-refusal but where that is paid for."""
    value = point.refusal - point.over_refusal
    return (point.refusal if most else value, value, -point.share)


def _figures(point: Point) -> str:
    diverges = "" if point.divergence is None else f", KL {point.divergence:.3f}"
    return (
        f"{point.refusal:.0%} of harmful and {point.over_refusal:.0%} of benign search prompts "
        f"refused, {point.share:.2%} of the parameters{diverges}"
    )


@dataclass(frozen=True)
class Limits:
    """How far a line's scales are followed; None where it does not matter.

    Attributes:
        over_refusal: beyond it a larger scale is not looked at.
        refusal: below it a smaller scale is not looked at.
        divergence: what a point may diverge. Scales are chosen to come close to it; where one is
            beyond it, a smaller one is looked at.
        spared: over-refusal up to which a smaller scale is not looked at.
    """

    over_refusal: float = 0.5
    refusal: float = 0.0
    divergence: float | None = None
    spared: float = 0.0

    def diverges(self, point: Point) -> bool:
        """Return whether a point is beyond the limit of divergence."""
        return self.divergence is not None and (point.divergence or 0.0) > self.divergence

    def reach(self, point: Point) -> float:
        """Return the factor on a point's scale that leads just below the limit, or so."""
        if self.divergence is None or not point.divergence:
            return STEP
        return NEAR * math.sqrt(self.divergence / point.divergence)


@dataclass
class Line:
    """One set of modules at one rank, the scale that is looked at first, and what was found."""

    modules: frozenset[str]
    rank: int | None
    begin: float = 1.0
    points: list[Point] = field(default_factory=list)

    def next(self, limits: Limits) -> Candidate | None:
        """Return the next scale worth a look, or None."""
        if not self.points:
            return Candidate(self.modules, self.begin, self.rank)
        ordered = sorted(self.points, key=lambda point: point.candidate.scale)
        first, last = ordered[0], ordered[-1]
        done = last.over_refusal > limits.over_refusal or last.refusal >= 1 - 1e-9
        higher = last.candidate.scale * min(STEP, limits.reach(last))
        if not done and LITTLE * last.candidate.scale < higher <= LARGEST:
            return Candidate(self.modules, round(higher, 4), self.rank)
        lower = None
        if limits.diverges(first):
            lower = first.candidate.scale * min(limits.reach(first), 1 / LITTLE)
        elif first.over_refusal > limits.spared:
            lower = first.candidate.scale / STEP
        if lower is not None and lower >= SMALLEST and first.refusal > limits.refusal:
            return Candidate(self.modules, round(lower, 4), self.rank)
        return None


def nested(
    order: Sequence[str],
    deltas: Deltas,
    *,
    shares: Sequence[float] = SHARES,
    ranks: Sequence[int | None] = RANKS,
    most: float | None = None,
) -> list[Candidate]:
    """Return the candidates that a sweep begins with where nothing is known but an order.

    Args:
        order: names of modules, the most important first.
        shares: how much of the order each set takes from its beginning, each in (0, 1].
        ranks: of the changes; those that no module's change reaches are left out.
        most: share of the recipient's parameters; of a set whose whole change is beyond it, the
            highest rank that is not takes its place.

    Raises:
        ConfigError: the donor has nothing to give in any of the modules.
    """
    changed = set(deltas.changed)
    useful = [name for name in dict.fromkeys(order) if name in changed]
    if not useful:
        raise ConfigError(
            f"The donor has nothing to give in the {len(order)} modules to sweep over.",
            "Name others.",
        )
    highest = deltas.low_rank
    candidates: list[Candidate] = []
    for size in sorted({max(1, round(share * len(useful))) for share in shares}):
        modules = frozenset(useful[:size])
        for rank in ranks:
            if rank is None and most is not None:
                candidates += _largest(modules, deltas, most)
            elif rank is None or highest is None or rank < highest:
                candidates.append(Candidate(modules, 1.0, rank))
    return list(dict.fromkeys(candidates))


def _largest(modules: frozenset[str], deltas: Deltas, most: float) -> list[Candidate]:
    """Return the change of a set, whole or at the highest rank that fits; none if none does."""
    whole = Candidate(modules)
    if whole.share(deltas) <= most:
        return [whole]
    rank = int(most / Candidate(modules, rank=1).share(deltas))
    fitting = (Candidate(modules, rank=one) for one in range(rank, 0, -1))
    return [one for one in fitting if one.share(deltas) <= most][:1]


class Sweep:
    """Asks for candidates in batches that can be measured in any order; told their points."""

    def __init__(
        self,
        starts: Sequence[Candidate],
        deltas: Deltas,
        *,
        limits: Limits | None = None,
        budget: float | None = None,
    ) -> None:
        """Prepare a sweep.

        Args:
            starts: of kind `delta`: what `nested` gives, or what was good for a relative. Of each
                set and rank the scales are followed from the first start's on.
            limits: how far they are followed.
            budget: share of the recipient's parameters beyond which nothing is asked for.
        """
        lines: dict[tuple[frozenset[str], int | None], Line] = {}
        for one in starts:
            if budget is None or one.share(deltas) <= budget + 1e-12:
                lines.setdefault((one.modules, one.rank), Line(one.modules, one.rank, one.scale))
        self.lines = tuple(lines.values())
        self.limits = limits or Limits()

    @property
    def points(self) -> tuple[Point, ...]:
        """All points told so far."""
        return tuple(point for line in self.lines for point in line.points)

    def ask(self) -> list[Candidate]:
        """Return the next candidate of each line that goes on; none when the sweep is over."""
        asked = [line.next(self.limits) for line in self.lines]
        return [candidate for candidate in asked if candidate is not None]

    def tell(self, points: Iterable[Point]) -> None:
        """Take the measured points of candidates that were asked for."""
        lines = {(line.modules, line.rank): line for line in self.lines}
        for point in points:
            line = lines[point.candidate.modules, point.candidate.rank]
            line.points.append(point)
