"""Rank correlation against enumeration, and what few sources can show."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
from scipy import stats

from demur.study.correlation import (
    correlate,
    detectable,
    holm,
    permutation_p,
    ranks,
    significant_from,
    spearman,
)

XS, YS = [0.1, 0.4, 0.3, 0.9, 0.8], [2.0, 1.0, 3.0, 5.0, 5.0]


def test_ranks_of_ties_are_shared() -> None:
    assert ranks([3.0, 1.0, 3.0, 2.0]) == [3.5, 1.0, 3.5, 2.0]


def test_rho_is_that_of_scipy() -> None:
    assert spearman(XS, YS) == pytest.approx(stats.spearmanr(XS, YS).statistic)
    assert math.isnan(spearman([1.0, 1.0], [1.0, 2.0]))


def test_p_is_the_share_of_all_orders() -> None:
    observed = abs(spearman(XS, YS))
    found = [abs(spearman(XS, order)) >= observed - 1e-9 for order in permutations(YS)]
    assert permutation_p(XS, YS) == pytest.approx(sum(found) / math.factorial(5))


def test_many_models_are_shuffled_at_random_and_agree_with_the_t_approximation() -> None:
    xs = [float(value) for value in range(24)]
    ys = [value + (7 * value) % 24 for value in xs]
    assert permutation_p(xs, ys) == pytest.approx(stats.spearmanr(xs, ys).pvalue, abs=0.01)
    assert permutation_p(xs, xs) == pytest.approx(1 / 100_000)


def test_unknown_figures_are_left_out_and_too_few_have_none() -> None:
    found = correlate([*XS, math.nan], [*YS, 1.0])
    assert (found.n, found.rho) == (5, spearman(XS, YS)) and found.exact
    assert found.low <= found.rho <= found.high
    assert math.isnan(correlate([1.0, 2.0], [1.0, 2.0]).p_value)
    assert math.isnan(correlate([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).rho)


def test_what_so_few_can_show() -> None:
    # the exact two-sided 5 % table of Spearman's rho (Zar)
    assert [round(significant_from(n), 3) for n in (5, 6, 7, 8)] == [1.0, 0.886, 0.786, 0.738]
    assert math.isnan(significant_from(4))
    assert detectable(9) == pytest.approx(math.tanh(2.8016 * math.sqrt(1.06 / 6)), abs=1e-4)
    assert math.isnan(detectable(3))


def test_holm_counts_only_tests_that_were_made() -> None:
    adjusted = holm([0.01, math.nan, 0.04, 0.03])
    assert adjusted[0] == pytest.approx(0.03)
    assert adjusted[3] == pytest.approx(0.06) and adjusted[2] == pytest.approx(0.06)
    assert math.isnan(adjusted[1])
