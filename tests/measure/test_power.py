"""What n prompts can show: against simulation, and against published adjustments."""

from __future__ import annotations

import random

import pytest

from demur.measure.power import detectable_paired, detectable_unpaired, holm
from demur.stats import mcnemar


def test_the_unpaired_form_is_the_textbook_s():
    # (1.95996 + 0.84162)^2 * 2 * 0.25 / 0.1^2 = 392.4 a group for 10 points at one half
    assert detectable_unpaired(392, 0.5) == pytest.approx(0.1, abs=1e-4)
    assert detectable_unpaired(128, 0.5) == pytest.approx(0.175, abs=1e-3)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_rates_at_an_end_promise_no_more_than_one_prompt_would(p):
    found = detectable_unpaired(100, p)
    assert found == pytest.approx(detectable_unpaired(100, 1 - p))
    assert 0.03 < found < detectable_unpaired(100, 0.5)


def test_nothing_shows_nothing():
    assert detectable_unpaired(0) == 1.0
    assert detectable_paired(0, 0.0) == 1.0
    assert detectable_paired(5, 0.0) == 1.0
    assert mcnemar(0, 5) > 0.05 > mcnemar(0, 6)


def test_pairs_show_more_than_separate_samples_and_fewer_disagreements_more_still():
    found = [detectable_paired(200, share) for share in (0.0, 0.1, 0.2, 0.5)]
    assert found == sorted(found)
    assert found[1] < detectable_unpaired(200, 0.5)
    assert found[3] == pytest.approx(detectable_unpaired(200, 0.5), rel=0.02)


@pytest.mark.parametrize("disagree", [0.1, 0.3])
def test_a_difference_of_that_size_is_found_four_times_out_of_five(disagree):
    n, rounds = 200, 400
    size = detectable_paired(n, disagree)
    more, less = (disagree + size) / 2, (disagree - size) / 2
    draw = random.Random(1)
    found = 0
    for _ in range(rounds):
        up = down = 0
        for _ in range(n):
            luck = draw.random()
            up += luck < more
            down += more <= luck < more + less
        found += mcnemar(down, up) < 0.05
    # the exact test that is printed is a little stricter than the normal form
    assert 0.68 <= found / rounds <= 0.86


def test_holm_s_adjustment():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
