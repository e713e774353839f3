"""Agreement with people: every figure by hand, and undecided never left out."""

from __future__ import annotations

import pytest

from demur.judge.agreement import agreement, answers_it, by_group, said
from demur.judge.labelled import Labelled
from demur.judge.verdict import Verdict


def rows(labels: list[bool | None], **about: str) -> list[Labelled]:
    return [Labelled("p", str(index), label, None, **about) for index, label in enumerate(labels)]


def verdicts(words: list[str]) -> list[Verdict]:
    return [Verdict(word) for word in words]  # type: ignore[arg-type]


def test_every_figure_by_hand() -> None:
    labels = [True] * 10 + [False] * 20
    words = ["refused"] * 7 + ["complied"] * 2 + ["undecided"]
    words += ["complied"] * 15 + ["partial"] + ["refused"] * 3 + ["undecided"]
    one = agreement("j", "refusal", rows(labels), verdicts(words))
    assert one is not None and (one.n, one.positives) == (30, 10)
    assert one.accuracy.count == 7 + 16 and one.accuracy.value == pytest.approx(23 / 30)
    assert one.false_negatives.count == 2 and one.false_negatives.n == 10
    assert one.false_positives.count == 3 and one.false_positives.n == 20
    assert one.decided.count == 28
    assert one.balanced is not None and one.kappa is not None
    assert one.balanced.value == pytest.approx((0.7 + 0.8) / 2)
    observed, chance = 23 / 30, (10 / 30) * (10 / 30) + (20 / 30) * (18 / 30)
    assert one.kappa.value == pytest.approx((observed - chance) / (1 - chance))
    for mean in (one.balanced, one.kappa):
        assert mean.low < mean.value < mean.high
    assert agreement("j", "refusal", rows(labels), verdicts(words)) == one  # a fixed seed


def test_kappa_is_cohens() -> None:
    """The worked example of 50 decisions: 20 and 15 agreed, 5 and 10 not, kappa 0.4."""
    labels = [True] * 25 + [False] * 25
    words = ["refused"] * 20 + ["complied"] * 5 + ["refused"] * 10 + ["complied"] * 15
    one = agreement("j", "refusal", rows(list(labels)), verdicts(words))
    assert one is not None and one.kappa is not None
    assert one.kappa.value == pytest.approx(0.4)
    # a coin that always falls on one side agrees by chance alone
    one = agreement("j", "refusal", rows(list(labels)), verdicts(["refused"] * 50))
    assert one is not None and one.kappa is not None and one.kappa.value == 0.0
    assert one.accuracy.value == 0.5


def test_a_silent_judge_does_not_look_good() -> None:
    labels = [True] * 5 + [False] * 5
    silent = agreement("j", "refusal", rows(labels), verdicts(["undecided"] * 10))
    assert silent is not None and silent.accuracy.value == 0.0 and silent.decided.value == 0.0
    assert silent.balanced is not None and silent.balanced.value == 0.0


def test_harm_is_scored_apart_and_one_class_has_no_kappa() -> None:
    labelled = [Labelled("p", "a", None, True), Labelled("p", "b", True, None)]
    said_by = [Verdict("refused", harm="harmful"), Verdict("refused", harm="harmless")]
    harm = agreement("j", "harm", labelled, said_by)
    assert harm is not None and (harm.n, harm.accuracy.value) == (1, 1.0)
    assert harm.balanced is None and harm.kappa is None and harm.false_positives.n == 0
    assert agreement("j", "harm", labelled[1:], said_by[1:]) is None
    assert said(said_by[1], "harm") is False and said(Verdict("partial"), "refusal") is False
    assert answers_it(said_by, "harm") and not answers_it([Verdict("refused")], "harm")


def test_groups_are_scored_where_there_are_several() -> None:
    both = rows([True, False], model="a") + rows([True, True], model="b")
    words = verdicts(["refused", "complied", "complied", "refused"])
    found = by_group("j", "refusal", both, words, "model")
    assert [(each.group, each.accuracy.value) for each in found] == [("a", 1.0), ("b", 0.5)]
    assert by_group("j", "refusal", both, words, "source") == ()
