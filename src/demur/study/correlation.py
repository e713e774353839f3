"""Rank correlation over a handful of models, with what so few can and cannot show.

Spearman's rho is Pearson's of mid-ranks. Its p-value is that of the permutation test, two-sided:
exact, over all n! orders, for up to nine models; with more, over 100,000 random orders, the
observed one among them. The interval is a percentile bootstrap over models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT = 9
ORDERS = 100_000
RESAMPLES = 2000
LEVEL = 0.05
_SLACK = 1e-9
_Z_POWER = 1.959963984540054 + 0.8416212335729143  # two-sided 5 %, power 80 %


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho over n models.

    Attributes:
        rho: NaN where fewer than three models have both figures, or one figure is the same for all.
        low, high: 95 % bootstrap interval over models; NaN with rho.
        p_value: of the permutation test; NaN with rho.
        n: models.
        exact: whether all orders were counted.
        significant_from: the smallest |rho| that this n can call significant at 5 % (no ties); NaN
            where none can.
        detectable: the |rho| that would be found in four of five studies of this n (Fisher's z with
            the variance 1.06 / (n - 3) of Fieller, Hartley and Pearson 1957); NaN where none would.
    """

    rho: float
    low: float
    high: float
    p_value: float
    n: int
    exact: bool
    significant_from: float
    detectable: float


def ranks(values: Sequence[float]) -> list[float]:
    """Return mid-ranks from 1: equal values share the mean of their places."""
    order = sorted(values)
    first = {value: order.index(value) for value in set(values)}
    return [first[value] + (order.count(value) + 1) / 2 for value in values]


def spearman(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return Spearman's rho; NaN where either side is the same throughout, or n is below two."""
    if len(xs) < 2 or len(set(xs)) < 2 or len(set(ys)) < 2:
        return math.nan
    first, second = _centred(ranks(xs)), _centred(ranks(ys))
    return float(first @ second)


def permutation_p(xs: Sequence[float], ys: Sequence[float], seed: int = 0) -> float:
    """Return the two-sided p-value: the share of orders whose |rho| is at least the observed."""
    import numpy

    observed = abs(spearman(xs, ys))
    if math.isnan(observed):
        return math.nan
    first, second = _centred(ranks(xs)), _centred(ranks(ys))
    n = len(xs)
    if n <= EXACT:
        found = numpy.abs(second[_orders(n)] @ first)
        return float((found >= observed - _SLACK).mean())
    generator = numpy.random.default_rng(seed)
    drawn = generator.permuted(numpy.tile(second, (ORDERS - 1, 1)), axis=1)
    more = int((numpy.abs(drawn @ first) >= observed - _SLACK).sum())
    return (more + 1) / ORDERS


def correlate(xs: Sequence[float], ys: Sequence[float], seed: int = 0) -> Correlation:
    """Return the correlation of two figures over models; models with a NaN are left out."""
    pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if not math.isnan(x + y)]
    n = len(pairs)
    least, power = significant_from(n), detectable(n)
    first, second = [x for x, _ in pairs], [y for _, y in pairs]
    rho = spearman(first, second) if n >= 3 else math.nan
    if math.isnan(rho):
        unknown = math.nan
        return Correlation(unknown, unknown, unknown, unknown, n, n <= EXACT, least, power)
    low, high = _bootstrap(pairs, seed)
    p_value = permutation_p(first, second, seed)
    return Correlation(rho, low, high, p_value, n, n <= EXACT, least, power)


@lru_cache
def significant_from(n: int) -> float:
    """Return the smallest |rho| of n untied models with a permutation p of 0.05 at most."""
    import numpy

    if n < 4:
        return math.nan
    line = _centred([float(rank) for rank in range(n)])
    if n <= EXACT:
        found = numpy.abs(line[_orders(n)] @ line)
    else:
        generator = numpy.random.default_rng(0)
        found = numpy.abs(generator.permuted(numpy.tile(line, (ORDERS, 1)), axis=1) @ line)
    found.sort()
    values = numpy.unique(found.round(9))
    shares = 1 - numpy.searchsorted(found, values - _SLACK) / len(found)
    good = values[shares <= LEVEL]
    return float(good[0]) if len(good) else math.nan


def detectable(n: int) -> float:
    """Return the |rho| that n models find in four studies of five; NaN for fewer than four."""
    return math.tanh(_Z_POWER * math.sqrt(1.06 / (n - 3))) if n > 3 else math.nan


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's (1979) adjusted p-values; NaN stays, and is not counted as a test."""
    told = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted = list(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(told):
        highest = max(highest, min(1.0, (len(told) - rank) * p))
        adjusted[place] = highest
    return adjusted


def _bootstrap(pairs: Sequence[tuple[float, float]], seed: int) -> tuple[float, float]:
    """Return the interval; resamples in which one figure is the same throughout have no rho."""
    import numpy

    n = len(pairs)
    drawn = numpy.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    found = [
        spearman([pairs[i][0] for i in row], [pairs[i][1] for i in row]) for row in drawn.tolist()
    ]
    told = [rho for rho in found if not math.isnan(rho)]
    low, high = numpy.quantile(told, (0.025, 0.975))
    return float(low), float(high)


@lru_cache(maxsize=2)
def _orders(n: int) -> NDArray[Any]:
    from itertools import permutations

    import numpy

    return numpy.array(list(permutations(range(n))), dtype=numpy.int8)


def _centred(values: Sequence[float]) -> NDArray[Any]:
    """Return values less their mean, of length one, so that a product of two is a correlation."""
    import numpy

    centred = numpy.asarray(values, dtype=float) - sum(values) / len(values)
    result: NDArray[Any] = centred / numpy.linalg.norm(centred)
    return result
