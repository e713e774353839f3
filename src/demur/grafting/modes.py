"""The three modes of a graft: each finds finalists, which validation then compares.

What DAPA leaves open is decided here, and is ours: its threshold (a set must keep `--enough` of
what all of its kind do to harmful requests), its order (the trace's) and the end of its search (no
single module can be left out).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from demur.errors import ConfigError
from demur.graft.candidate import Candidate
from demur.graft.front import (
    Budget,
    Choice,
    Limits,
    Point,
    Sweep,
    choose,
    measure_point,
    nested,
    pareto,
    worth,
)
from demur.graft.oracle import Oracle
from demur.graft.wanted import NothingToGive, Wanted
from demur.grafting.config import GraftConfig
from demur.grafting.order import order_of
from demur.grafting.searching import Searched, search_modules
from demur.grafting.starts import read_starts
from demur.measure.allowance import Allowance
from demur.models.anatomy.types import MLP
from demur.treating.stages import Context, allowance

LEAST_GAIN = 0.1  # of harmful requests: less is not worth a search
OTHERS = 2  # finalists beside the chosen graft and what the search leaves of it
SHORT = 0.05  # of the score: how far a known graft may fall behind the whole donor
BEYOND = 0.1  # over-refusal beyond the limit from which on larger scales are not tried
# First and last layer, of how many, in the paper's released code, by model type.
RELEASED: Mapping[tuple[str, int], tuple[int, int]] = {
    ("llama", 32): (12, 17),
    ("llama", 40): (12, 17),
    ("mistral", 32): (9, 18),
    ("gemma", 18): (3, 6),
    ("gemma", 28): (7, 13),
}


@dataclass(frozen=True)
class Found:
    """What a mode came to.

    Attributes:
        finalists: candidates for validation, at least one.
        steps: what was done, a sentence or two each.
        order: modules in the order of the trace, with the effect of each; empty if not traced.
        points: candidates measured on the front.
        search: the search for a small set, if there was one.
    """

    finalists: tuple[Candidate, ...]
    steps: tuple[str, ...]
    order: tuple[tuple[str, float], ...] = ()
    points: tuple[Point, ...] = ()
    search: Searched | None = None


Mode = Callable[[GraftConfig, Context, Oracle], Found]


def released(config: GraftConfig, context: Context, oracle: Oracle) -> Found:
    """Swap the whole MLP of a fixed middle range, as the paper's released code does."""
    anatomy = oracle.deltas.anatomy
    depth = len(anatomy.layers)
    first, last = RELEASED.get(
        (context.resolved.model_type, depth), (round(12 / 32 * depth), round(17 / 32 * depth))
    )
    modules = frozenset(
        one.name for one in anatomy.modules if one.kind in MLP and first <= one.layer <= last
    )
    text = (
        f"As in the paper's released code, the donor's whole MLPs of layers {first} to {last} of "
        f"{depth} (counted from 0) were put in place of the recipient's; nothing was searched."
    )
    return Found((Candidate(modules, kind="swap"),), (text,))


def paper(config: GraftConfig, context: Context, oracle: Oracle) -> Found:
    """Swap the smallest set of gates that does what all gates do, found by delta debugging."""
    kinds = config.kinds or ("gate",)
    deltas = oracle.deltas
    modules = [name for name in deltas.changed if deltas[name].module.kind in kinds]
    if not modules:
        raise NothingToGive(
            f"The donor changed no module of the kinds {', '.join(kinds)}.",
            "Name other --kinds, or use --mode open.",
        )
    whole = Candidate(frozenset(modules), kind="swap")
    before, after = oracle.before.harmful.value, oracle.standing(whole).harmful.value
    gain = after - before
    said = (
        f"With the donor's own weights in all {len(modules)} of its changed modules of kind "
        f"{', '.join(kinds)}, the recipient refuses {after:.0%} of the harmful search prompts "
        f"(before: {before:.0%})."
    )
    context.narrator.say(f"  {said}")
    if gain < LEAST_GAIN:
        text = f"{said} That is too little to be searched for; they were all put in."
        return Found((whole,), (text,))
    order = order_of(oracle, modules, "swap")
    wanted = Wanted(before + config.enough * gain)
    found = search_modules(config, context, oracle, order, whole, wanted)
    return Found((found.candidate,), (said, found.sentence), order, search=found)


def open_mode(
    config: GraftConfig, context: Context, oracle: Oracle, starts: Sequence[Candidate] = ()
) -> Found:
    """Take whatever is best under the budget: sets from the trace, ranks, scales; then shrink.

    Args:
        starts: grafts that were good for relatives. Where one of them, at the scale that suits
            this recipient, is as good as all that the donor has, nothing else is looked for.
    """
    budget, limits = _bounds(config, oracle)
    allowed = allowance(config)
    starts = starts or read_starts(config.start)
    known: tuple[Point, ...] = ()
    if starts:
        sweep = Sweep(starts, oracle.deltas, limits=limits, budget=config.max_share)
        known = _swept(sweep, oracle, context)
        found = _from_starts(known, budget, oracle, context, allowed)
        if found is not None:
            return found
    order = order_of(oracle, _looked_at(config, oracle))
    context.narrator.say("  most for refusal: " + ", ".join(name for name, _ in order[:5]))
    points = (*known, *_swept(_sweep(config, oracle, order, limits), oracle, context))
    front = pareto(points)
    choice, text = _choice(front, budget, context, allowed)
    best = choice.point
    searched = _smaller(config, context, oracle, order, best)
    finalists = [
        best.candidate,
        *((searched.candidate,) if searched else ()),
        *_others(front, best, budget, allowed),
    ]
    steps = (
        f"{len(points)} grafts (sets of modules in the order of the trace, at several "
        f"scales and ranks) were measured on search prompts; {len(front)} are on the front. {text}",
        *((searched.sentence,) if searched else ()),
    )
    return Found(tuple(dict.fromkeys(finalists)), steps, order, points, searched)


def _bounds(config: GraftConfig, oracle: Oracle) -> tuple[Budget, Limits]:
    """Return what a graft may cost, and from where on larger scales are not tried.

    What the user does not say is what the donor's whole change costs.
    """
    over = oracle.donor.over_refusal if config.max_over_refusal is None else config.max_over_refusal
    diverging = config.max_divergence
    if diverging is None and oracle.places["ordinary"]:
        diverging = oracle.utility.divergence(oracle.whole)
    before = oracle.before.harmful.value
    limits = Limits(min(0.5, over + BEYOND), before, diverging, spared=over)
    return Budget(config.max_share, over, diverging), limits


def _looked_at(config: GraftConfig, oracle: Oracle) -> list[str]:
    """Return the modules that the donor changed and the user wants looked at."""
    deltas = oracle.deltas
    return [
        name
        for name in deltas.changed
        if not config.kinds or deltas[name].module.kind in config.kinds
    ]


def _sweep(
    config: GraftConfig, oracle: Oracle, order: Sequence[tuple[str, float]], limits: Limits
) -> Sweep:
    """Return the sweep over sets of the first modules of an order, at several ranks and scales.

    Raises:
        NothingToGive: no set is small enough.
    """
    sets = nested(
        [name for name, _ in order],
        oracle.deltas,
        shares=config.shares,
        ranks=(*config.ranks, None),
        most=config.max_share,
    )
    sweep = Sweep(sets, oracle.deltas, limits=limits, budget=config.max_share)
    if not sweep.lines:
        raise NothingToGive(
            f"No set of modules fits into {config.max_share:.2%} of the parameters.",
            "Allow a larger --max-share, smaller --shares or lower --ranks.",
        )
    return sweep


def _smaller(
    config: GraftConfig,
    context: Context,
    oracle: Oracle,
    order: Sequence[tuple[str, float]],
    best: Point,
) -> Searched | None:
    """Look for a smaller set that refuses as `best` does; None where there is none to look for."""
    if len(best.candidate.modules) < 2 or not config.tests:
        return None
    before, standing = oracle.before.harmful.value, best.standing
    wanted = Wanted(
        before + config.enough * (best.refusal - before),
        standing.twins.value if standing.twins.n else None,
        standing.ordinary.value if standing.ordinary.n else None,
    )
    return search_modules(config, context, oracle, order, best.candidate, wanted, config.tests)


def _swept(sweep: Sweep, oracle: Oracle, context: Context) -> tuple[Point, ...]:
    """Follow a sweep to its end."""
    with context.narrator.progress("grafts tried", None) as advance:
        while asked := sweep.ask():
            for candidate in asked:
                sweep.tell([measure_point(oracle, candidate)])
                advance(1)
    return sweep.points


def _from_starts(
    points: tuple[Point, ...],
    budget: Budget,
    oracle: Oracle,
    context: Context,
    allowed: Allowance,
) -> Found | None:
    """Return what grafts that were good elsewhere come to here; None if that falls short."""
    front = [one for one in pareto(points) if budget.allows(one)]
    if not front:
        context.narrator.say("  What was good elsewhere is beyond the budget here.")
        return None
    choice, donor = choose(front, budget, most=allowed.given), oracle.donor
    best = choice.point
    short = donor.harmful.value - donor.over_refusal - (best.refusal - best.over_refusal)
    if short > SHORT:
        context.narrator.say(
            f"  What was good elsewhere falls short here: {best.refusal:.0%} of harmful search "
            f"prompts refused, {donor.harmful.value:.0%} with all that the donor changed."
        )
        return None
    context.narrator.say(f"  {choice.sentence}")
    step = (
        f"Grafts that were found on another recipient were tried first: {len(points)} of them and "
        f"of their like at other scales were measured on this one's search prompts. "
        f"{choice.sentence} That is within {SHORT:.0%} of all that the donor has to give, and "
        "nothing else was looked for."
    )
    finalists = (best.candidate, *_others(front, best, budget, allowed))
    return Found(tuple(dict.fromkeys(finalists)), (step,), points=points)


def _others(
    front: Sequence[Point], best: Point, budget: Budget, allowed: Allowance
) -> list[Candidate]:
    """Return the next best within the budget, for validation to compare."""
    rest = sorted(
        (one for one in front if one is not best and budget.allows(one)),
        key=lambda one: worth(one, allowed.given),
        reverse=True,
    )
    return [one.candidate for one in rest[:OTHERS]]


def _choice(
    front: Sequence[Point], budget: Budget, context: Context, allowed: Allowance
) -> tuple[Choice, str]:
    """Choose within the budget; where nothing is, leave over-refusal to validation, and say so.

    Args:
        allowed: what the user allows; where there is nothing within, the least over it is taken.
    """
    try:
        choice = choose(front, budget, most=allowed.given)
    except ConfigError as error:
        small = Budget(budget.share)
        if allowed.given:
            least = min(map(allowed.excess, filter(small.allows, front)))
            front = [point for point in front if allowed.excess(point) <= least]
        choice = choose(front, small)
        context.narrator.say(f"  {error.cause}")
        return choice, f"{error.cause} Of those small enough: {choice.sentence}"
    context.narrator.say(f"  {choice.sentence}")
    return choice, choice.sentence


MODES: Mapping[str, Mode] = {"open": open_mode, "paper": paper, "released": released}
