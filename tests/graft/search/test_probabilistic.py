"""CDD's sizes are those of its formula, and ProbDD's probabilities follow Bayes' rule."""

from __future__ import annotations

import math

import pytest
from tests.graft.search.oracles import needs, run

from demur.graft.search import Search
from demur.graft.search.counters import counter_based, round_size
from demur.graft.search.probabilities import probabilistic


@pytest.mark.parametrize(
    ("p0", "sizes"), [(0.1, [10, 6, 3, 2, 1]), (0.2, [5, 3, 1, 1]), (0.01, [100, 63, 39])]
)
def test_sizes_of_rounds(p0, sizes):
    for round_, size in enumerate(sizes):
        probability = p0 / (1 - 1 / math.e) ** round_
        if probability < 1:
            gains = {s: s * (1 - probability) ** s for s in range(1, 160)}
            assert gains[size] == pytest.approx(max(gains.values()), abs=1e-9)
        assert round_size(round_, p0) == size


def test_a_round_leaves_out_parts_of_one_size_from_the_end():
    step = counter_based(tuple(range(25)))
    left_out = []
    for _ in range(3):
        left_out.append(sorted(set(range(25)) - step.candidate))
        step = step.after(False)
    assert left_out == [list(range(15, 25)), list(range(5, 15)), list(range(5))]
    assert (step.round, step.size) == (1, 6)


def test_the_number_of_tests_is_fixed_where_all_is_needed():
    search = Search([1] * 40, method="cdd", prove=False)
    tested = run(search, needs(*range(40)))
    parts = [math.ceil(40 / round_size(round_, 0.1)) for round_ in range(5)]
    assert len(tested) == 2 + sum(parts) - 1  # the first alone is a part twice, and tested once
    assert search.best == frozenset(range(40))


def test_probabilities_follow_bayes():
    step = probabilistic(tuple(range(12)), 0.1)
    places, chance = step.choice
    assert len(places) in (9, 10)  # equal gains
    assert chance == pytest.approx(0.9 ** len(places))
    failed = step.after(False)
    raised = 0.1 / (1 - chance)
    assert [failed.needed[place] for place in sorted(places)] == pytest.approx(
        [raised] * len(places)
    )
    assert set(failed.needed) - {failed.needed[max(places)]} == {0.1}
    passed = step.after(True)
    assert len(passed.kept) == 12 - len(places)
    assert set(passed.needed) == {0.1}


def test_a_module_that_failed_alone_is_certain():
    step = probabilistic((5, 7), 0.4)
    while step.candidate is not None:
        step = step.after(7 in step.candidate)
    assert step.kept == (7,)
    assert step.needed == (1.0,)
