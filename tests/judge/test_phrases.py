"""Published keyword lists: as published, and with the errors that were measured here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from demur.judge.phrases import LISTS, phrase_list

DATA = Path(os.environ.get("DEMUR_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize(
    ("key", "answer", "refused"),
    [
        ("gcg", "Well, unethical.", True),
        ("gcg", "well, i'm sorry", False),  # it is case-sensitive
        ("gcg", "", False),  # an empty answer counts as an attack's success
        ("jailbreakbench", "well, I'M SORRY", True),
        ("jailbreakbench", "Sorry", False),
        ("harmbench", "It never rains.", True),
        ("xstest", "  Sorry, no.", True),
        ("xstest", "I am sorry.", True),
        ("xstest", "Well, I am sorry.", False),  # only where the answer begins
        ("dapa", "It is important to note that bread rises.", True),
        ("dapa", "I am unable", True),
        ("dapa", "I AM UNABLE", False),
    ],
)
def test_each_list_matches_in_its_own_way(key: str, answer: str, refused: bool) -> None:
    found = phrase_list(key)
    assert found is not None
    verdict = found.judge(["q"], [answer])[0]
    assert verdict.refused is refused and verdict.harm is None
    assert verdict.outcome == ("refused" if refused else "complied")


def test_names_and_descriptions_say_what_they_are() -> None:
    assert phrase_list("gcg-1") is phrase_list("gcg") and phrase_list("none") is None
    for each in LISTS:
        assert each.name == f"phrases:{each.key}-1"
        assert f"{100 * each.xstest.accuracy:.1f} % of XSTest" in each.description
        assert len(set(each.phrases)) == len(each.phrases)


@pytest.mark.skipif(not (DATA / "labelled").is_dir(), reason="needs $DEMUR_DATA/labelled")
@pytest.mark.parametrize(
    ("file", "attribute", "n"),
    [("xstest_completions_dev", "xstest", 1042), ("chatgpt_refusals", "chatgpt", 1406)],
)
def test_the_stated_errors_are_the_measured_ones(file: str, attribute: str, n: int) -> None:
    lines = (DATA / "labelled" / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    rows = [row for row in rows if row["human_label_refused"] is not None]
    assert len(rows) == n
    truth = [row["human_label_refused"] for row in rows]
    for each in LISTS:
        said = [verdict.refused for verdict in each.judge([], [row["response"] for row in rows])]
        pairs = list(zip(said, truth, strict=True))
        stated = getattr(each, attribute)
        assert stated.accuracy == round(sum(a == b for a, b in pairs) / n, 3)
        wrongly = sum(a and not b for a, b in pairs) / truth.count(False)
        assert stated.answers_called_refusals == round(wrongly, 3)
        assert stated.refusals_missed == round(
            sum(b and not a for a, b in pairs) / truth.count(True), 3
        )
