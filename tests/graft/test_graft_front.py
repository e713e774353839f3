"""The front: what no other graft beats, the sweep that looks for it, and the budgeted pick."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.relatives import HARMFUL, ORDINARY, TWINS, Relatives, make_refusing

from demur.checkpoint import open_checkpoint
from demur.errors import ConfigError
from demur.graft.candidate import Candidate
from demur.graft.deltas import Deltas, find_deltas
from demur.graft.front import (
    Budget,
    Limits,
    Point,
    Sweep,
    choose,
    measure_point,
    nested,
    pareto,
)
from demur.graft.oracle import Oracle, Settings
from demur.graft.wanted import Standing
from demur.judge import OpeningJudge
from demur.models.anatomy import anatomy_of
from demur.prompts.types import Prompt
from demur.run.journal import Journal
from demur.stats import rate


def point(
    refused: int, twins: int, share: float, divergence: float | None = 0.0, scale: float = 1.0
) -> Point:
    standing = Standing(rate(refused, 100), rate(twins, 100), rate(0, 0))
    candidate = Candidate(frozenset({f"layers.{refused}.gate"}), scale)
    return Point(candidate, standing, divergence, int(share * 1000), share)


def test_the_front_is_what_no_other_beats() -> None:
    best, small, timid = point(95, 20, 0.1), point(80, 20, 0.01), point(70, 5, 0.1)
    dominated, equal = point(79, 21, 0.02), point(95, 20, 0.1, scale=2.0)
    diverging = point(95, 20, 0.05, divergence=3.0)

    front = pareto([dominated, best, equal, small, timid, diverging])

    assert front == (small, diverging, best, timid)
    assert pareto([]) == ()


def test_the_choice_keeps_to_the_budget_and_says_why() -> None:
    front = pareto([point(95, 40, 0.1, 0.2), point(90, 10, 0.05, 0.1), point(60, 5, 0.005, 0.01)])

    assert choose(front, Budget()).point.refusal == 0.9
    small = choose(front, Budget(share=0.01))
    assert small.point.refusal == 0.6 and "only graft within the budget" in small.sentence
    assert "60% of harmful and 5% of benign" in small.sentence
    assert choose(front, Budget(over_refusal=0.2, divergence=0.15)).point.share == 0.05
    paid = choose(front, Budget(over_refusal=0.4), most=True)
    assert paid.point.refusal == 0.95 and "refuses the most among the 3 grafts" in paid.sentence
    with pytest.raises(ConfigError, match="beyond its share"):
        choose(front, Budget(share=0.001))


def test_of_equals_the_smaller_is_chosen() -> None:
    same = [point(90, 10, 0.05, 0.0), point(90, 10, 0.02, 0.5)]

    assert choose(pareto(same), Budget()).point.share == 0.02


def sweep(
    shares: Sequence[float] = (1.0,), ranks: Sequence[int | None] = (None,), **limits: float
) -> Sweep:
    names = [f"layers.{layer}.gate" for layer in range(10)]
    deltas: Any = SimpleNamespace(changed=tuple(names), low_rank=8)
    starts = nested(names, deltas, shares=shares, ranks=ranks)
    return Sweep(starts, deltas, limits=Limits(**limits))


def run(
    asking: Sweep, refusal: Any, over: Any, diverging: Any = lambda candidate: None
) -> list[list[Candidate]]:
    """Answer a sweep by functions of the strength: modules times scale times root of the rank."""
    rounds = []
    while asked := asking.ask():
        rounds.append(asked)
        points = []
        for candidate in asked:
            strength = len(candidate.modules) * candidate.scale * (candidate.rank or 8) ** 0.5
            standing = Standing(
                rate(min(100, round(refusal(strength))), 100),
                rate(min(100, round(over(strength))), 100),
                rate(0, 0),
            )
            points.append(Point(candidate, standing, diverging(candidate), 1, strength))
        asking.tell(reversed(points))
    return rounds


def test_a_sweep_follows_each_line_until_nothing_more_can_be_told() -> None:
    asking = sweep(shares=(0.2, 1.0), ranks=(1, 4, None), over_refusal=0.3)

    rounds = run(asking, lambda s: 4 * s, lambda s: 2 * s)

    assert len(rounds[0]) == 6 and {one.scale for one in rounds[0]} == {1.0}
    assert all(len({one.modules for one in asked}) <= 2 for asked in rounds)
    scales: dict[Any, list[float]] = {}
    for one in asking.points:
        scales.setdefault((len(one.candidate.modules), one.candidate.rank), []).append(
            one.candidate.scale
        )
    assert max(scales[2, 1]) == pytest.approx(7.5938)  # weak: followed to the largest scale
    assert scales[10, None] == [1.0, 0.6667, 0.4445, 0.2963]  # beyond over-refusal from the start
    for line in asking.lines:
        highest = [point for point in line.points if point.over_refusal <= 0.3]
        assert len(line.points) - len(highest) <= 4
    asked = [one.key for batch in rounds for one in batch]
    assert len(asked) == len(set(asked))
    front = pareto(asking.points)
    assert max(one.refusal for one in front) == 1.0


@pytest.mark.parametrize("power", [1.7, 2.0])
@pytest.mark.parametrize("unit", [0.004, 0.02, 0.05, 0.2, 0.9])
def test_scales_come_close_to_the_limit_of_divergence_in_a_few_steps(
    power: float, unit: float
) -> None:
    asking = sweep(divergence=0.1, spared=1.0)

    run(asking, lambda s: 50, lambda s: 0, lambda one: unit * one.scale**power)

    within = [one for one in asking.points if one.divergence <= 0.1]
    assert 0.07 < max(one.divergence for one in within) <= 0.1
    # Where the limit is far, steps of the usual size go there first.
    assert len(asking.points) <= 4 + 2 * (unit < 0.01)
    beyond = [one for one in asking.points if one.divergence > 0.1]
    assert len(beyond) <= 3


def test_a_sweep_goes_on_from_what_was_good_elsewhere() -> None:
    names = [f"layers.{layer}.gate" for layer in range(10)]
    deltas: Any = SimpleNamespace(changed=tuple(names), low_rank=8)
    starts = [Candidate(frozenset(names), 3.0, 2), Candidate(frozenset(names), 2.0, 2)]
    asking = Sweep(starts, deltas, limits=Limits(divergence=0.1))

    run(asking, lambda s: 50, lambda s: 0, lambda one: 0.011 * one.scale**2)

    assert [point.candidate.scale for point in asking.points] == [3.0]


def test_ranks_that_no_change_reaches_and_lines_beyond_the_budget_are_left_out() -> None:
    assert {line.rank for line in sweep(ranks=(1, 4, 8, 16, None)).lines} == {1, 4, None}


@pytest.fixture(scope="module")
def relatives(tmp_path_factory: pytest.TempPathFactory) -> Relatives:
    return make_refusing(tmp_path_factory.mktemp("refusing"))


def found(relatives: Relatives, store: Path) -> tuple[Any, Deltas]:
    chat = relatives.chat()
    anatomy = anatomy_of(chat.model, open_checkpoint(relatives.recipient))
    return chat, find_deltas(
        anatomy, relatives.recipient, relatives.donor, relatives.base, store=store
    )


def test_points_are_measured_and_kept(
    relatives: Relatives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, deltas = found(relatives, tmp_path / "deltas")
    prompts = {
        "harmful": [Prompt(text, "harmful") for text in HARMFUL],
        "twins": [Prompt(text, "twin") for text in TWINS],
        "ordinary": [Prompt(text, "ordinary") for text in ORDINARY],
    }
    settings = Settings(tokens=12, divergence_prompts=4)
    journal = Journal(tmp_path / "journal.sqlite")
    budget = Candidate(frozenset(deltas.changed), 1.0, 1).share(deltas)
    with Oracle(chat, deltas, prompts, OpeningJudge(), journal, settings=settings) as oracle:
        starts = nested(deltas.changed, deltas, shares=(0.5, 1.0), ranks=(1, None))
        asking = Sweep(starts, deltas, budget=budget)
        assert [(len(line.modules), line.rank) for line in asking.lines] == [
            (6, 1),
            (6, None),
            (12, 1),
        ]
        whole = measure_point(oracle, oracle.whole)
        untouched = measure_point(oracle, Candidate(frozenset()))
        first = [measure_point(oracle, candidate) for candidate in asking.ask()]
        asking.tell(first)
    assert whole.refusal > 0.9 and whole.over_refusal < 0.2 and whole.cost.passes > 0
    assert (
        untouched.refusal < 0.1
        and untouched.share == 0
        and untouched.divergence == (pytest.approx(0, abs=1e-5))
    )
    assert whole.divergence is not None and whole.divergence > 0.01
    assert all(one.share <= budget for one in asking.points)
    assert choose(pareto([whole, untouched, *first]), Budget()).point == whole

    monkeypatch.setattr(chat.model, "forward", None)
    with Oracle(chat, deltas, prompts, OpeningJudge(), journal, settings=settings) as again:
        kept = measure_point(again, again.whole)
    journal.close()
    assert kept.cost.passes == 0 and kept.standing == whole.standing
    assert Point.from_json(whole.to_json()) == whole


def test_the_highest_rank_that_fits_takes_the_place_of_a_whole_change(
    relatives: Relatives, tmp_path: Path
) -> None:
    _, deltas = found(relatives, tmp_path)
    everything = frozenset(deltas.changed)
    whole = Candidate(everything).share(deltas)
    for most in (whole, 0.9 * whole, 0.5 * whole, 1e-9):
        sets = nested(deltas.changed, deltas, shares=(1.0,), ranks=(None,), most=most)
        assert all(one.modules == everything and one.share(deltas) <= most for one in sets)
        ranks = [one.rank for one in sets]
        if most == whole:
            assert ranks == [None]
        elif most < 1e-6:
            assert ranks == []
        else:
            (rank,) = ranks
            assert rank is not None and Candidate(everything, 1.0, rank + 1).share(deltas) > most


def test_a_sweep_over_modules_without_changes_is_refused(
    relatives: Relatives, tmp_path: Path
) -> None:
    _, deltas = found(relatives, tmp_path)

    with pytest.raises(ConfigError, match="nothing to give"):
        nested(["layers.0.up", "layers.1.q"], deltas)
