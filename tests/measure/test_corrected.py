"""The judge's known error taken out of a rate: the estimate, its interval, and its limits."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path

import pytest

from demur.judge import Verdict
from demur.judge.names import judge_names, open_judge
from demur.measure.corrected import corrected
from demur.measure.known_error import Counted, KnownError, confusion, known_error, measure_judge
from demur.stats import rate

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("DEMUR_DATA", REPOSITORY / "../shared/data"))
CHEAP = ("opening", "phrases")
XSTEST = DATA / "labelled" / "xstest_completions_dev.jsonl"


def an_error(found: int, n_refused: int, left: int, n_other: int) -> KnownError:
    return KnownError(
        "test", "refused", Counted(found, n_refused), Counted(left, n_other), "made up", "nobody"
    )


def test_a_perfect_judge_changes_nothing_and_adds_next_to_nothing():
    observed = rate(30, 100)
    found = corrected(observed, an_error(100_000, 100_000, 100_000, 100_000))
    assert found.value == pytest.approx(0.3)
    assert found.low == pytest.approx(observed.low, abs=0.005)
    assert found.high == pytest.approx(observed.high, abs=0.005)
    assert found.note == ""


def test_the_estimate_is_that_of_rogan_and_gladen():
    # of 1000 with 40 % refusing, se 0.9 and sp 0.95: 0.4 * 0.9 + 0.6 * 0.05 = 39 % are said to
    found = corrected(rate(390, 1000), an_error(900, 1000, 950, 1000))
    assert found.value == pytest.approx(0.4)
    assert found.low < 0.4 < found.high
    assert found.high - found.low > 0.06  # wider than the raw rate's, which is 0.060


def test_fewer_labels_make_a_wider_interval():
    observed = rate(390, 1000)
    wide = corrected(observed, an_error(90, 100, 95, 100))
    narrow = corrected(observed, an_error(900, 1000, 950, 1000))
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)


def test_the_interval_is_that_of_lang_and_reiczigel():
    # 23 of 150 positive, se 96 of 100, sp 89 of 100: computed by hand from the paper's formulas
    found = corrected(rate(23, 150), an_error(96, 100, 89, 100))
    assert found.value == pytest.approx(0.0510, abs=5e-5)
    assert found.low == 0.0
    assert found.high == pytest.approx(0.1452, abs=5e-4)


@pytest.mark.parametrize("true", [0.02, 0.3, 0.9])
def test_the_interval_covers_the_truth_as_often_as_it_says(true):
    draw = random.Random(7)
    se, sp, n, labels, rounds = 0.88, 0.97, 200, 500, 400

    def count(p: float, of: int) -> int:
        return sum(draw.random() < p for _ in range(of))

    said = true * se + (1 - true) * (1 - sp)
    covered = 0
    for _ in range(rounds):
        error = an_error(count(se, labels), labels, count(sp, labels), labels)
        found = corrected(rate(count(said, n), n), error)
        covered += found.low <= true <= found.high
    assert 0.925 <= covered / rounds <= 1.0


def test_an_estimate_outside_is_moved_to_the_end_and_said():
    below = corrected(rate(0, 100), an_error(90, 100, 90, 100))
    assert (below.value, below.low) == (0.0, 0.0)
    assert "below 0 (-0.125)" in below.note
    assert below.high >= rate(0, 100).high
    above = corrected(rate(100, 100), an_error(90, 100, 90, 100))
    assert (above.value, above.high) == (1.0, 1.0)
    assert "above 1" in above.note
    assert above.low == rate(100, 100).low


@pytest.mark.parametrize("sides", [(60, 100, 60, 100), (10, 100, 10, 100), (50, 100, 50, 100)])
def test_a_judge_that_guesses_is_not_corrected_for(sides):
    found = corrected(rate(50, 100), an_error(*sides))
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0.0, 1.0)
    assert "too weak" in found.note


def test_nothing_measured_is_nothing_corrected():
    found = corrected(rate(0, 0), an_error(90, 100, 90, 100))
    assert math.isnan(found.value) and found.note == "nothing was measured"


def test_undecided_counts_as_not_refused_and_null_labels_are_left_out():
    verdicts = [
        Verdict("refused"), Verdict("undecided"), Verdict("partial"), Verdict("complied"),
        Verdict("refused"),
    ]  # fmt: skip
    positive, negative = confusion(verdicts, [True, True, False, False, None])
    assert (positive, negative) == (Counted(1, 2), Counted(2, 2))


def test_a_judge_whose_error_was_not_measured_has_none():
    assert known_error("no-such-judge") is None
    assert known_error("opening-3", "harmful") is None


def test_the_table_has_rates_that_can_be_and_says_where_they_are_from():
    known = known_error("opening-3")
    assert known is not None
    assert 0.5 < known.sensitivity < 1 and 0.5 < known.specificity < 1
    assert "XSTest" in known.data and "arXiv" in known.citation


@pytest.mark.skipif(not XSTEST.exists(), reason="no labelled XSTest completions in DEMUR_DATA")
@pytest.mark.parametrize("spec", [s for s in judge_names() if s.partition(":")[0] in CHEAP])
def test_a_judge_errs_as_the_table_says(spec):
    judge = open_judge(spec)
    found = measure_judge(judge, XSTEST)
    known = known_error(judge.name)
    assert known is not None
    assert found["positive"] == {"right": known.positive.right, "n": known.positive.n}
    assert found["negative"] == {"right": known.negative.right, "n": known.negative.n}
