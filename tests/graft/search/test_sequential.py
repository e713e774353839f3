"""Sequential tests: errors that are kept, an end that is certain, and agreement with the whole."""

from __future__ import annotations

import math
import random

import pytest

from demur.graft.search.sequential import PairedTest, SequentialTest


def simulated(make, rate: float, runs: int, seed: int) -> tuple[float, float]:
    """Return the share of `above` and the mean number of trials over many runs."""
    generator = random.Random(seed)
    above = trials = 0
    for _ in range(runs):
        test = make()
        while test.decision == "undecided":
            test.add(int(generator.random() < rate), 1)
        above += test.decision == "above"
        trials += test.trials
    return above / runs, trials / runs


@pytest.mark.parametrize(("p0", "p1"), [(0.4, 0.6), (0.85, 0.95), (0.02, 0.1)])
@pytest.mark.parametrize("rate_at", ["p0", "p1", "between"])
def test_simulated_errors_and_trials_are_those_computed(p0, p1, rate_at):
    rate = {"p0": p0, "p1": p1, "between": (p0 + p1) / 2}[rate_at]
    runs = 1500
    exact = SequentialTest(p0, p1, n_max=120).behaviour(rate)
    above, trials = simulated(lambda: SequentialTest(p0, p1, n_max=120), rate, runs, seed=7)
    spread = math.sqrt(exact.above * (1 - exact.above) / runs)
    assert above == pytest.approx(exact.above, abs=4 * spread + 1e-3)
    assert trials == pytest.approx(exact.trials, rel=0.08)


@pytest.mark.parametrize(("p0", "p1"), [(0.4, 0.6), (0.85, 0.95), (0.1, 0.3)])
@pytest.mark.parametrize("error", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("batch", [1, 8])
def test_errors_are_at_most_those_allowed_where_the_end_is_far(p0, p1, error, batch):
    test = SequentialTest(p0, p1, error, error, n_max=600)
    assert test.behaviour(p0, batch).above <= error
    assert 1 - test.behaviour(p1, batch).above <= error


@pytest.mark.parametrize("error", [0.01, 0.05])
def test_fewer_trials_than_a_test_of_fixed_size(error):
    test = SequentialTest(0.4, 0.6, error, error, n_max=600)
    z = {0.01: 2.326, 0.05: 1.645}[error]
    fixed = (2 * z) ** 2 * 0.25 / 0.2**2
    assert max(test.behaviour(0.4).trials, test.behaviour(0.6).trials) < 0.75 * fixed


@pytest.mark.parametrize("threshold", [0.0, 0.03, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("batch", [1, 5, 16])
def test_decides_within_n_max_whatever_comes(threshold, batch):
    generator = random.Random(3)
    for rate in (0.0, 0.3, threshold, 1.0):
        for n_max in (1, 7, 40):
            test = SequentialTest.around(threshold, 0.05, n_max=n_max)
            while test.decision == "undecided":
                trials = min(batch, n_max - test.trials)
                test.add(sum(generator.random() < rate for _ in range(trials)), trials)
            assert test.trials <= n_max


def test_at_the_end_the_count_decides():
    for count in range(21):
        test = SequentialTest.around(0.6, 0.01, 1e-6, 1e-6, n_max=20)
        decision = test.add(count, 20)
        assert decision == ("above" if count / 20 >= 0.6 else "below")


def test_stops_when_the_rest_cannot_matter():
    test = SequentialTest.around(0.5, 0.01, 1e-9, 1e-9, n_max=10)
    assert test.add(4, 4) == "undecided"
    assert test.add(1, 1) == "above"
    test = SequentialTest.around(0.5, 0.01, 1e-9, 1e-9, n_max=10)
    assert test.add(0, 5) == "undecided"
    assert test.add(0, 1) == "below"


@pytest.mark.parametrize("count", [80, 110, 115, 120, 128])
@pytest.mark.parametrize("batch", [1, 16])
def test_agreement_with_the_whole_is_the_computed_one(count, batch):
    def fresh() -> SequentialTest:
        return SequentialTest.around(0.9, 0.06, n_max=128)

    generator, runs, agreed = random.Random(5), 600, 0
    for _ in range(runs):
        answers = [place < count for place in range(128)]
        generator.shuffle(answers)
        test = fresh()
        while test.decision == "undecided":
            part = answers[test.trials : test.trials + batch]
            test.add(sum(part), len(part))
        agreed += (test.decision == "above") == (count / 128 >= 0.9)
    exact = fresh().agreement(count, batch)
    spread = math.sqrt(exact * (1 - exact) / runs)
    assert agreed / runs == pytest.approx(exact, abs=4 * spread + 2e-3)


def test_decision_is_final():
    test = SequentialTest(0.2, 0.8, n_max=50)
    assert test.add(10, 10) == "above"
    assert test.add(0, 20) == "above"
    assert (test.successes, test.trials) == (10, 30)


def test_paired_counts_only_the_differences():
    test = PairedTest(100)
    assert test.add(0, 0, 40) == "undecided"
    assert test.add(4, 0) == "undecided"
    assert test.add(1, 0) == "above"


@pytest.mark.parametrize(("wins", "losses", "decision"), [(6, 5, "above"), (5, 5, "below")])
def test_paired_ends_with_the_majority(wins, losses, decision):
    test = PairedTest(wins + losses + 3, odds=1.01)
    assert test.add(wins, losses, 3) == decision


def test_paired_errors_are_kept():
    generator, wrong, runs = random.Random(11), 0, 1500
    for _ in range(runs):
        test = PairedTest(400)
        while test.decision == "undecided":
            won = generator.random() < 1 / 3
            tied = generator.random() < 0.7
            test.add(int(won and not tied), int(not won and not tied), int(tied))
        wrong += test.decision == "above"
    assert 0 < wrong / runs <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize(
    ("p0", "p1", "alpha", "n_max", "cut"),
    [
        (0.5, 0.5, 0.05, 9, None),
        (0.0, 0.5, 0.05, 9, None),
        (0.5, 0.6, 0.0, 9, None),
        (0.5, 0.6, 0.05, 0, None),
        (0.5, 0.6, 0.05, 9, 11),
    ],
)
def test_senseless_tests_are_refused(p0, p1, alpha, n_max, cut):
    with pytest.raises(ValueError, match=r"needs|must"):
        SequentialTest(p0, p1, alpha, n_max=n_max, cut=cut)


def test_senseless_counts_are_refused():
    test = SequentialTest(0.4, 0.6, n_max=9)
    for successes, trials in ((2, 1), (-1, 0), (0, 10)):
        with pytest.raises(ValueError, match="successes"):
            test.add(successes, trials)
    paired = PairedTest(5)
    for counts in ((-1, 0, 0), (3, 3, 0)):
        with pytest.raises(ValueError, match="prompts"):
            paired.add(*counts)
    with pytest.raises(ValueError, match="odds"):
        PairedTest(5, odds=1)
