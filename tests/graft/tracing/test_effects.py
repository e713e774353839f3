"""Means, ratios of means and their intervals, and what is said of approximations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.graft.tracing.plain import HEAD, TAIL, TEMPLATE, pairs
from tests.models.architectures import tiny
from tests.models.test_generation import chat_model

from demur.graft.tracing.effects import agreement, by_pair, cells_of, mean_of, ratio_of
from demur.graft.tracing.pairs import closest, noise, places_of
from demur.graft.tracing.places import GROUPS, groups, template_of, tokens


def test_means_and_their_intervals():
    values = np.random.default_rng(0).normal(2.0, 1.0, 100)
    found = mean_of([*values, float("nan")])
    assert found.n == 100 and found.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 10
    assert found.low == pytest.approx(found.value - half, abs=0.05)
    assert found.high == pytest.approx(found.value + half, abs=0.05)
    assert math.isnan(mean_of([float("nan")]).value)


def test_ratios_of_means_are_drawn_together():
    below = np.array([1.0, 2.0, 3.0, 10.0])
    found = ratio_of(0.25 * below, below)
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    with_hole = ratio_of([0.25, float("nan"), 0.75, 2.5], below)
    assert with_hole.n == 3 and with_hole.value == pytest.approx(0.25)


def test_draws_of_one_pair_are_averaged_first():
    found = by_pair([[1.0, 3.0, 5.0], [2.0, 2.0, float("nan")]], [0, 0, 1], 2)
    np.testing.assert_allclose(found[0], [2.0, 5.0])
    assert found[1, 0] == 2.0 and math.isnan(found[1, 1])


def test_cells():
    clean, corrupted = np.array([4.0, 6.0]), np.array([0.0, 2.0])
    restored = np.array([[[[2.0, 2.0]], [[4.0, 6.0]]]])
    first, second = cells_of(restored, clean, corrupted, ["mlp"], ["here"])
    assert (first.kind, first.layer, first.place) == ("mlp", 0, "here")
    assert first.effect.value == 1.0 and first.share.value == 0.25
    assert second.layer == 1 and second.share.value == second.share.low == 1.0


def test_agreement():
    exact = np.arange(40.0)
    same = agreement(exact, 2 * exact)
    assert (same.correlation, same.rank_correlation, same.top) == pytest.approx((1, 1, 1))
    assert same.k == 4 and same.error == pytest.approx(exact.mean()) and same.largest == 39
    turned = agreement([*exact, float("nan")], [*-exact, 0.0])
    assert turned.cells == 40 and turned.rank_correlation == pytest.approx(-1)
    assert turned.top == 0


def test_places_of_a_request():
    first, middle, last, tail, final = groups([5], [3])
    assert [each.name for each in (first, middle, last, tail, final)] == list(GROUPS)
    spans = [each.spans[0] for each in (first, middle, last, tail, final)]
    assert spans == [(-8, -7), (-7, -4), (-4, -3), (-3, -1), (-1, 0)]
    short = groups([1], [3])  # one token is the first; there is no other
    assert [each.name for each in short] == [GROUPS[0], *GROUPS[3:]]
    assert [each.spans[0] for each in short] == [(-4, -3), (-3, -1), (-1, 0)]
    no_tail = {each.name: each.spans[0] for each in groups([4], [0])}
    assert no_tail == {GROUPS[0]: (-4, -3), GROUPS[1]: (-3, -1), GROUPS[2]: (-1, 0)}


def test_places_by_tokens():
    places = tokens([2, 4], [1, 1])
    assert [each.name for each in places] == [f"token {i}" for i in range(-5, 0)]
    assert places[0].spans == ((0, 0), (-5, -4))
    assert places[-1].spans == ((-1, 0), (-1, 0))


def test_where_the_request_stands_in_a_template():
    assert TEMPLATE.request([*HEAD, 50, 51, *TAIL]) == (4, 6)
    chat = chat_model(tiny("llama"))
    template = template_of(chat)
    request = chat.encode("Tell me how to bake bread")
    start, end = template.request(request)
    assert chat.tokenizer.decode(request[start:end]) == "Tell me how to bake bread"


def test_pairs_of_like_length_come_first():
    assert closest([(5, 9), (4, 4), (3, 2), (7, 7)], 3) == [1, 2, 3]


def test_noise_is_drawn_anew_for_each_request_and_draw_and_is_the_same_again():
    first, second = pairs(2, draws=2)
    assert np.array_equal(noise(first, 0, 8, 1.0), noise(first, 0, 8, 1.0))
    assert not np.array_equal(noise(first, 0, 8, 1.0), noise(first, 1, 8, 1.0))
    assert noise(second, 0, 8, 1.0).shape == (second.end - second.start, 8)
    assert len({*first.seeds, *second.seeds}) == 4
    assert first.key != second.key
    assert places_of([first], "groups")[0].spans == ((-6, -5),)
