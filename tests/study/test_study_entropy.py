"""Entropies against values worked out by hand, and rarefaction against every subsample."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import pytest

from demur.study.entropy import (
    alike,
    chao_shen,
    entropy,
    miller_madow,
    rarefied_entropy,
    rarefied_richness,
    uniformity,
)


def test_plug_in_entropy_is_in_bits() -> None:
    assert entropy([4]) == 0
    assert entropy([1, 1]) == pytest.approx(1)
    assert entropy([2, 1, 1]) == pytest.approx(1.5)
    assert entropy([5, 5, 5, 5, 0]) == pytest.approx(2)


def test_miller_madow_adds_half_the_unseen_degrees_of_freedom() -> None:
    # three patterns among four refusals: (3 - 1) / (2 * 4) nats
    assert miller_madow([2, 1, 1]) == pytest.approx(1.5 + 0.25 / math.log(2))
    assert miller_madow([7]) == 0


def test_chao_shen_by_hand() -> None:
    # n = 4, one pattern seen once: coverage 3/4; shares 9/16 and 3/16
    first, second = 9 / 16, 3 / 16
    wanted = -sum(p * math.log2(p) / (1 - (1 - p) ** 4) for p in (first, second))
    assert chao_shen([3, 1]) == pytest.approx(wanted)
    assert chao_shen([9]) == 0
    assert math.isfinite(chao_shen([1, 1, 1]))


def test_alike_counts_pairs() -> None:
    assert alike([3, 1]) == pytest.approx(3 / 6)
    assert alike([4]) == 1
    assert alike([1, 1, 1]) == 0
    assert math.isnan(alike([1]))


@pytest.mark.parametrize(("counts", "size"), [([3, 2, 1], 3), ([4, 1, 1, 1], 4), ([2, 2], 4)])
def test_rarefaction_is_the_mean_over_all_subsamples(counts: list[int], size: int) -> None:
    refusals = [pattern for pattern, count in enumerate(counts) for _ in range(count)]
    drawn = [Counter(each).values() for each in combinations(refusals, size)]
    entropies = [entropy(list(each)) for each in drawn]
    assert rarefied_entropy(counts, size) == pytest.approx(sum(entropies) / len(drawn))
    richness = sum(map(len, drawn)) / len(drawn)
    assert rarefied_richness(counts, size) == pytest.approx(richness)


def test_rarefaction_needs_enough_refusals() -> None:
    with pytest.raises(ValueError):
        rarefied_entropy([2, 1], 4)
    with pytest.raises(ValueError):
        uniformity([2, 1], 1)


def test_uniformity_is_one_for_one_pattern_and_zero_for_none_alike() -> None:
    same, different = uniformity([20], 10), uniformity([1] * 20, 10)
    assert same.uniformity.value == 1 and same.evenness is None
    assert different.uniformity.value == pytest.approx(0)
    assert different.evenness == pytest.approx(1)
    assert same.alike.value == 1 and different.alike.value == 0


def test_uniformity_does_not_depend_on_how_many_refusals_there_are() -> None:
    """The same mix, ten times as many: the plug-in entropy of few is lower, the rarefied is not."""
    few, many = [6, 3, 2, 1], [60, 30, 20, 10]
    draws = [rarefied_entropy(many, 12), entropy(few)]
    assert draws[0] < entropy(many)
    first, second = uniformity(few, 8).uniformity, uniformity(many, 8).uniformity
    assert abs(first.value - second.value) < 0.06
    assert second.high - second.low < first.high - first.low


def test_intervals_hold_their_estimate_and_are_the_same_each_time() -> None:
    found = uniformity([12, 5, 2, 1, 1, 1], 10, seed=3)
    assert found == uniformity([12, 5, 2, 1, 1, 1], 10, seed=3)
    estimates = (found.miller_madow, found.chao_shen, found.rarefied, found.uniformity, found.alike)
    for each in estimates:
        assert each.low <= each.value <= each.high
    assert found.entropy < found.miller_madow.value


def test_the_interval_covers_about_as_often_as_it_says() -> None:
    """Samples of forty from a known mix: the rarefied entropy of the whole is mostly inside."""
    import numpy

    shares = numpy.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    truth = uniformity((shares * 20000).astype(int).tolist(), 15).uniformity.value
    generator = numpy.random.default_rng(1)
    samples = generator.multinomial(40, shares, size=120)
    inside = 0
    for place, counts in enumerate(samples):
        found = uniformity(counts.tolist(), 15, seed=place).uniformity
        inside += found.low <= truth <= found.high
    assert inside >= 0.87 * len(samples)
