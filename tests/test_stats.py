"""Intervals and tests against published worked examples and direct counting."""

from __future__ import annotations

import math

import pytest

from demur.stats import mcnemar, mean, paired, rate


def sides(both: int, only_after: int, only_before: int, neither: int):
    """Return (before, after) from the four cells of a paired table."""
    cells = ((both, 1, 1), (only_after, 0, 1), (only_before, 1, 0), (neither, 0, 0))
    before = [bool(b) for count, b, _ in cells for _ in range(count)]
    after = [bool(a) for count, _, a in cells for _ in range(count)]
    return before, after


# Newcombe, Two-sided confidence intervals for the single proportion, Stat Med 17 (1998), table I,
# method 3.
@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_as_published(count, n, low, high):
    found = rate(count, n)
    assert (found.count, found.n, found.value) == (count, n, count / n)
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def test_wilson_interval_at_the_edges():
    none, every = rate(0, 20), rate(20, 20)
    assert none.low == 0.0
    assert every.high == 1.0
    assert every.low == pytest.approx(1 - none.high)
    empty = rate(0, 0)
    assert math.isnan(empty.value)
    assert (empty.low, empty.high) == (0.0, 1.0)


# Tables as both, only the first, only the second, neither. Bentur et al. 2009 and Cavo et al. 2012
# as worked out in Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017),
# chapter 8; the thallium test of Altman et al., Statistics with Confidence (2000), p. 52; the last
# from Newcombe, Improved confidence intervals for paired data, Stat Med 17 (1998), method 10.
@pytest.mark.parametrize(
    ("table", "low", "high", "places"),
    [
        ((1, 1, 7, 12), -0.507, -0.026, 3),
        ((59, 6, 16, 80), -0.1186, -0.0046, 4),
        ((14, 5, 0, 22), 0.011, 0.226, 3),
        ((36, 12, 2, 0), 0.0569, 0.3404, 4),
    ],
)
def test_newcombe_paired_interval_as_published(table, low, high, places):
    found = paired(*sides(*table))
    assert found.value == pytest.approx((table[1] - table[2]) / sum(table))
    assert round(found.low, places) == low
    assert round(found.high, places) == high
    assert found.p_value == mcnemar(table[2], table[1])


def test_paired_is_antisymmetric():
    before, after = sides(30, 9, 4, 17)
    forth, back = paired(before, after), paired(after, before)
    assert back.value == pytest.approx(-forth.value)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low))
    assert back.p_value == forth.p_value


@pytest.mark.parametrize(
    "table", [(0, 0, 0, 20), (20, 0, 0, 0), (10, 0, 0, 10), (500, 0, 0, 500), (1, 0, 0, 0)]
)
def test_no_change_gives_an_interval_around_zero(table):
    found = paired(*sides(*table))
    assert found.value == 0.0
    assert -1 <= found.low < 0 < found.high <= 1
    assert found.p_value == 1.0


def test_total_change_stays_within_one():
    found = paired([False] * 20, [True] * 20)
    assert found.value == 1.0
    assert found.high == 1.0
    assert found.low == pytest.approx(0.7721, abs=5e-5)
    assert found.p_value == pytest.approx(2 / 2**20)


@pytest.mark.parametrize(("before", "after"), [([], []), ([True], [True, False])])
def test_paired_needs_pairs(before, after):
    with pytest.raises(ValueError, match="same length"):
        paired(before, after)


def test_mcnemar_exact_by_counting():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(7, 1) == pytest.approx(2 * (1 + 8) / 256)  # Bentur et al.: 0.0703
    assert mcnemar(1, 7) == mcnemar(7, 1)
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 / 64)
    assert 0 <= mcnemar(900, 400) < 1e-40


def test_mean_has_a_bootstrap_interval():
    values = [0.1 * value for value in range(50)]
    found = mean(values)
    assert found == mean(values)
    assert found.n == 50
    assert found.value == pytest.approx(2.45)
    error = 0.1 * math.sqrt((50**2 - 1) / 12 / 50)
    assert found.low == pytest.approx(2.45 - 1.96 * error, abs=0.06)
    assert found.high == pytest.approx(2.45 + 1.96 * error, abs=0.06)
    constant = mean([3.0])
    assert (constant.low, constant.value, constant.high) == (3.0, 3.0, 3.0)
    with pytest.raises(ValueError, match="at least one"):
        mean([])
