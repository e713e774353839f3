"""Searches end with a set that really passed, prove it minimal, and go on after a kill."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.graft.search.oracles import METHODS, adds_up, arbitrary, bounded, either, needs, run

from demur.graft.search import AlreadyPasses, NothingToFind, Outcome, Search, SequentialTest, Told

PASSED, FAILED = Outcome("passed"), Outcome("failed")


@st.composite
def problems(draw):
    """Draw weights, an order, a method, a batch, and an oracle of some kind with its kind."""
    n = draw(st.integers(1, 24))
    weights = draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))
    order = draw(st.permutations(range(n)))
    kind = draw(st.sampled_from(["needs", "either", "adds up", "arbitrary"]))
    group = st.lists(st.integers(0, n - 1), min_size=1, max_size=5).map(tuple)
    if kind == "needs":
        oracle = needs(*draw(group))
    elif kind == "either":
        oracle = either(*draw(st.lists(group, min_size=1, max_size=4)))
    elif kind == "adds up":
        effects = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
        oracle = adds_up([float(effect) for effect in effects], max(1.0, sum(effects) / 3))
    else:
        oracle = arbitrary(draw(st.integers(0, 999)), draw(st.sampled_from([0.1, 0.5, 0.9])))
    method, batch = draw(st.sampled_from(METHODS)), draw(st.integers(1, 6))
    return weights, order, method, batch, kind, bounded(oracle, n)


@given(problems())
@settings(max_examples=250, deadline=None)
def test_the_result_passed_is_minimal_and_nothing_was_asked_twice(problem):
    weights, order, method, batch, kind, oracle = problem
    search = Search(weights, order, method=method, batch=batch)
    tested = run(search, oracle)
    assert len(tested) == len(set(tested))
    assert oracle(search.best)
    assert search.minimality.proven
    for module in search.best:
        assert search.best - {module} in tested
        assert not oracle(search.best - {module})
    passed = [candidate for candidate in tested if oracle(candidate)]
    assert search.weight(search.best) == min(map(search.weight, passed))
    if kind != "arbitrary":
        assert search.monotonicity.holds
    if kind == "needs":
        smallest = frozenset(one for one in order if not oracle(frozenset(order) - {one}))
        assert search.best == smallest


@given(problems(), st.data())
@settings(max_examples=120, deadline=None)
def test_replay_of_any_prefix_goes_on_identically(problem, data):
    weights, order, method, batch, _, oracle = problem
    first = Search(weights, order, method=method, batch=batch)
    asked_at = {}  # what was asked after how many answers
    while not first.done:
        asked = asked_at[len(first.history)] = first.ask()
        for candidate in asked:
            first.tell(candidate, PASSED if oracle(candidate) else FAILED)
    cut = data.draw(st.sampled_from(sorted(asked_at)))
    second = Search(weights, order, method=method, batch=batch)
    second.replay(first.history[:cut])
    assert second.ask() == asked_at[cut]
    run(second, oracle)
    assert second.history == first.history
    assert second.best == first.best


@pytest.mark.parametrize("method", METHODS)
def test_replay_is_exact_where_sets_tested_ahead_were_lighter(method):
    for seed in range(25):
        generator = random.Random(seed)
        n = generator.randint(8, 24)
        weights = [generator.randint(1, 9) for _ in range(n)]
        oracle = bounded(arbitrary(seed, generator.choice([0.1, 0.3, 0.6])), n)
        batch = generator.randint(2, 8)
        first = Search(weights, method=method, batch=batch)
        asked_at = {}
        while not first.done:
            asked = asked_at[len(first.history)] = first.ask()
            for candidate in asked:
                first.tell(candidate, PASSED if oracle(candidate) else FAILED)
        for cut, asked in asked_at.items():
            second = Search(weights, method=method, batch=batch)
            second.replay(first.history[:cut])
            assert second.ask() == asked


@given(problems(), st.data())
@settings(max_examples=60, deadline=None)
def test_killed_within_a_batch_it_still_ends_with_a_proven_set(problem, data):
    weights, order, method, batch, _, oracle = problem
    first = Search(weights, order, method=method, batch=batch)
    run(first, oracle)
    second = Search(weights, order, method=method, batch=batch)
    second.replay(first.history[: data.draw(st.integers(0, len(first.history)))])
    tested = run(second, oracle)
    assert len(second.history) == len(set(second.known)) >= len(tested)
    assert oracle(second.best)
    assert second.minimality.proven


@given(problems(), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_questions_depend_on_nothing_but_the_answers(problem, place):
    weights, order, method, batch, _, oracle = problem
    first = Search(weights, order, method=method, batch=batch)
    second = Search(weights, order, method=method, batch=batch)
    for _ in range(place):
        if first.done:
            break
        asked = first.ask()
        assert asked == second.ask() == second.ask()
        assert 1 <= len(asked) <= batch
        for candidate in asked:
            outcome = PASSED if oracle(candidate) else FAILED
            first.tell(candidate, outcome)
            second.tell(candidate, outcome)
    assert first.done == second.done


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_finds_what_one_at_a_time_finds_in_fewer_rounds(method):
    oracle = needs(3, 17, 40)

    def rounds(batch: int) -> tuple[int, frozenset[int]]:
        search, count = Search([1] * 60, method=method, batch=batch), 0
        while not search.done:
            count += 1
            for candidate in search.ask():
                search.tell(candidate, PASSED if oracle(candidate) else FAILED)
        return count, search.best

    alone, found = rounds(1)
    together, also = rounds(8)
    assert found == also == {3, 17, 40}
    assert together <= alone / 2.2


def test_the_first_questions_are_all_and_none():
    search = Search([1, 1, 1], batch=2)
    assert search.ask() == (frozenset({0, 1, 2}), frozenset())


@pytest.mark.parametrize("verdict", ["failed", "undecided"])
def test_nothing_to_find_where_all_together_do_not_pass(verdict):
    search = Search([1, 2])
    search.tell({0, 1}, Outcome(verdict, -0.25))
    with pytest.raises(NothingToFind, match=f"{verdict}, score -0.25") as caught:
        search.ask()
    assert "donor" in caught.value.remedy
    assert search.best is None
    with pytest.raises(ValueError, match="nothing has passed"):
        _ = search.minimality


def test_nothing_to_do_where_none_passes():
    search = Search([1, 2])
    search.tell({0, 1}, PASSED)
    search.tell((), PASSED)
    with pytest.raises(AlreadyPasses, match="as it is"):
        _ = search.done


def test_undecided_is_never_a_pass_and_leaves_the_proof_open():
    search = Search([1] * 6)
    while not search.done:
        for candidate in search.ask():
            known = {True: PASSED, False: FAILED}[{1, 2} <= candidate]
            search.tell(candidate, Outcome("undecided") if candidate == {1} else known)
    assert search.best == {1, 2}
    assert not search.minimality.proven
    assert search.minimality.undecided == (2,)
    assert search.minimality.failed == (1,)


def test_contrary_effects_are_counted_and_the_lightest_that_passed_is_kept():
    search = Search([5, 1, 1, 1], [3, 1, 2, 0], method="greedy")

    def oracle(candidate: frozenset[int]) -> bool:
        return 0 in candidate or candidate == {2}  # module 1 or 3 beside it spoils it

    search.tell({2}, PASSED)
    run(search, oracle)
    assert search.best == {2}
    assert search.minimality.proven
    found = search.monotonicity
    assert not found.holds
    assert found.contrary == sum(
        not told.outcome.passed and told.candidate > {2} for told in search.history
    )
    small, large = found.example
    assert small < large
    assert oracle(small)
    assert not oracle(large)


def test_a_limit_ends_the_search_with_the_best_so_far():
    search = Search([1] * 50, method="ddmin", batch=4, limit=10)
    run(search, needs(7, 30))
    assert len(search.history) == 10
    assert search.ask() == ()
    assert needs(7, 30)(search.best)
    assert len(search.best) < 50
    assert not search.minimality.proven
    assert search.minimality.untried


def test_without_proof_the_method_has_the_last_word():
    search = Search([1] * 20, method="prefix", prove=False)
    tested = run(search, needs(4, 9))
    assert search.best == frozenset(range(10))
    assert len(tested) <= 2 + 5
    assert not search.minimality.proven


def test_repeated_answers_find_what_a_noisy_oracle_hides():
    generator, wanted = random.Random(0), {3, 11}
    found, answers = [], []
    for _ in range(10):
        search = Search(
            [1] * 16,
            method="cdd",
            batch=3,
            repeat=lambda: SequentialTest(0.35, 0.65, 0.002, 0.002, n_max=200),
        )
        while not search.done:
            for candidate in search.ask():
                passed = (wanted <= candidate) == (generator.random() < 0.8)
                search.tell(candidate, PASSED if passed else FAILED)
        found.append(search.best == wanted)
        answers.append(len(search.history) / len(search.known))
        again = Search([1] * 16, method="cdd", batch=3, repeat=search._repeat)
        again.replay(search.history)
        assert again.done
        assert again.best == search.best
    assert sum(found) >= 9
    assert 5 < sum(answers) / 10 < 30


def test_senseless_searches_and_answers_are_refused():
    for weights, order in (([], None), ([1, 0], None), ([1, 1], [0, 0]), ([1, 1], [0])):
        with pytest.raises(ValueError, match=r"search needs|order must"):
            Search(weights, order)
    for choice in ({"batch": 0}, {"limit": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            Search([1], **choice)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Search([1], p0=1.0)
    with pytest.raises(ValueError, match="no such method: magic; there are ddmin"):
        Search([1], method="prefix+magic")
    search = Search([1, 1])
    with pytest.raises(ValueError, match="does not know"):
        search.tell({2}, PASSED)
    search.replay([Told(frozenset({0}), FAILED)])
    with pytest.raises(ValueError, match="already decided"):
        search.tell({0}, FAILED)
