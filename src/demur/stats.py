"""Rates with their intervals, and paired comparisons: no number leaves demur without one.

* `rate`: Wilson score interval (Wilson 1927), right for small n and for rates near 0 and 1.
* `paired`: a before-and-after difference on the same prompts, with Newcombe's (1998) interval
  for paired proportions, his method 10, and McNemar's exact test.
* `mean`: a mean with a bootstrap interval, for quantities that are not rates.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """`count` of `n` with its 95 % interval; all three in [0, 1] but for the counts."""

    count: int
    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """After minus before on the same prompts: the estimate, its 95 % interval, McNemar's p."""

    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Mean:
    """A mean over n units with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    n: int


def rate(count: int, n: int) -> Rate:
    """Return `count / n` with the Wilson score interval; for n = 0 the interval is [0, 1]."""
    if n == 0:
        return Rate(0, 0, float("nan"), 0.0, 1.0)
    p = count / n
    denominator = 1 + Z95**2 / n
    centre = (p + Z95**2 / (2 * n)) / denominator
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2)) / denominator
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == n else min(1.0, centre + half)
    return Rate(count, n, p, low, high)


def mcnemar(only_before: int, only_after: int) -> float:
    """Return McNemar's exact two-sided p-value from the two discordant counts."""
    n = only_before + only_after
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(only_before, only_after) + 1)) / (1 << n)
    return min(1.0, 2 * tail)


def paired(before: Sequence[bool], after: Sequence[bool]) -> Difference:
    """Compare two verdicts on the same prompts.

    Args:
        before, after: one truth value a prompt, in the same order.

    Returns:
        The difference of the two rates (after minus before) with Newcombe's interval.

    Raises:
        ValueError: the two have different lengths, or are empty.
    """
    if len(before) != len(after) or not before:
        raise ValueError("paired() needs two sequences of the same length, not empty")
    n = len(before)
    both = sum(b and a for b, a in zip(before, after, strict=True))
    only_before = sum(b and not a for b, a in zip(before, after, strict=True))
    only_after = sum(a and not b for b, a in zip(before, after, strict=True))
    neither = n - both - only_before - only_after
    first = rate(both + only_after, n)
    second = rate(both + only_before, n)
    value = first.value - second.value
    product = (both + only_after) * (only_before + neither)
    product *= (both + only_before) * (only_after + neither)
    determinant: float = both * neither - only_after * only_before
    if determinant > 0:  # Newcombe's continuity correction of phi
        determinant = max(determinant - n / 2, 0.0)
    phi = determinant / math.sqrt(product) if product else 0.0
    down_first, up_first = first.value - first.low, first.high - first.value
    down_second, up_second = second.value - second.low, second.high - second.value
    below = down_first**2 - 2 * phi * down_first * up_second + up_second**2
    above = up_first**2 - 2 * phi * up_first * down_second + down_second**2
    low, high = value - math.sqrt(max(0.0, below)), value + math.sqrt(max(0.0, above))
    return Difference(value, max(-1.0, low), min(1.0, high), mcnemar(only_before, only_after))


def mean(values: Sequence[float], resamples: int = 2000, seed: int = 0) -> Mean:
    """Return the mean of `values` with a percentile bootstrap interval.

    Raises:
        ValueError: `values` is empty.
    """
    if not values:
        raise ValueError("mean() needs at least one value")
    n = len(values)
    generator = random.Random(seed)
    means = sorted(sum(generator.choices(values, k=n)) / n for _ in range(resamples))
    low, high = means[int(0.025 * resamples)], means[min(resamples - 1, int(0.975 * resamples))]
    return Mean(sum(values) / n, low, high, n)
