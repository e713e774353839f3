"""Labelled files: the names and words of public sets, and what is wrong with others."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from demur.errors import JudgeError, PromptError
from demur.judge.labelled import read_answers, read_labelled

DATA = Path(os.environ.get("DEMUR_DATA", Path(__file__).parents[3] / "shared" / "data"))


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_this_projects_own_columns(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": "p",
            "response": f"r{index}",
            "human_label_refused": refused,
            "human_label_harmful": harmful,
            "raw_label": raw,
            "model": "m",
            "source": "s",
        }
        for index, (refused, harmful, raw) in enumerate(
            [
                (True, None, "2_full_refusal"),
                (False, True, "1_full_compliance"),
                (None, None, "3_partial_refusal"),
                (None, None, "dontknow"),
            ]
        )
    ]
    found = read_labelled(lines(tmp_path / "a.jsonl", rows))
    assert [(row.refused, row.harmful, row.partial) for row in found.rows] == [
        (True, None, False),
        (False, True, False),
        (None, None, True),
    ]
    assert found.unlabelled == 1 and found.conflicts == 0
    assert (found.rows[0].model, found.rows[0].source) == ("m", "s")


def test_xstests_own_files(tmp_path: Path) -> None:
    path = tmp_path / "xstest.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "completion", "annotation_1", "final_label"])
        writer.writerow(["1", "p", "I cannot.", "2_full_refusal", "2_full_refusal"])
        writer.writerow(["2", "p", "Here,\nit is.", "", "1_full_compliance"])
        writer.writerow(["3", "p", "Partly.", "", "3_partial_refusal"])
    found = read_labelled(path)
    assert [(row.refused, row.partial) for row in found.rows] == [
        (True, False),
        (False, False),
        (None, True),
    ]


@pytest.mark.parametrize(
    ("row", "refused", "harmful"),
    [
        ({"prompt": "p", "response": "r", "label": "refusal"}, True, None),
        ({"prompt": "p", "response": "r", "label": "compliance"}, False, None),
        ({"prompt": "p", "response": "r", "label": "unharmful"}, None, False),
        (
            {
                "prompt": "p",
                "response": "r",
                "response_refusal_label": "compliance",
                "response_harm_label": "harmful",
            },
            False,
            True,
        ),
        ({"goal": "p", "target_response": "r", "human_majority": 1}, None, True),
        ({"behavior": "p", "generation": "r", "harmful": "no"}, None, False),
        ({"Question": "p", "Answer": "r", "Refused": 0}, False, None),
    ],
)
def test_names_and_words_of_public_sets(
    tmp_path: Path, row: dict[str, Any], refused: bool | None, harmful: bool | None
) -> None:
    one = read_labelled(lines(tmp_path / "a.jsonl", [row])).rows[0]
    assert (one.prompt, one.response, one.refused, one.harmful) == ("p", "r", refused, harmful)


GOOD = {"prompt": "p", "response": "r", "refused": True}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"response": "r", "refused": 1}], "no column of requests (it has: response, refused)"),
        ([{"prompt": "p", "refused": 1}], "no column of answers"),
        ([{"prompt": "p", "response": "r"}], "no column of labels"),
        ([{"prompt": "p", "response": "r", "refused": None}], "No row of"),
        ([GOOD | {"refused": "perhaps"}], "the label 'perhaps' of the column 'refused'"),
        ([{"prompt": "p", "response": "r", "label": 1}], "about refusals or about harm"),
        ([GOOD | {"response": ["r"]}], "holds no text"),
        ([GOOD, GOOD | {"refused": False}], "1 answers to the same request both ways"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(JudgeError) as caught:
        read_labelled(lines(tmp_path / "a.jsonl", rows))
    assert words in caught.value.cause and caught.value.remedy.endswith(".")


def test_conflicts_are_dropped_and_counted_on_request(tmp_path: Path) -> None:
    other = {"prompt": "p", "response": "other", "refused": False}
    rows = [GOOD, other, GOOD | {"refused": False}, GOOD | {"refused": None, "harmful": True}]
    path = lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(JudgeError, match="--allow-conflicts"):
        read_labelled(path)
    found = read_labelled(path, allow_conflicts=True)
    assert [row.response for row in found.rows] == ["other"] and found.conflicts == 3
    # one question each, or the same label twice, is no contradiction
    rows = [GOOD, GOOD, GOOD | {"refused": None, "harmful": False}]
    assert len(read_labelled(lines(path, rows)).rows) == 3


def test_answers_need_no_labels(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response": None, "model": "m"}, {"prompt": "q", "response": "r"}]
    found = read_answers(lines(tmp_path / "a.jsonl", rows))
    assert [(row.response, row.model, row.refused) for row in found] == [
        ("", "m", None),
        ("r", "", None),
    ]
    with pytest.raises(PromptError, match="no file"):
        read_answers(tmp_path / "none.jsonl")


@pytest.mark.skipif(not (DATA / "labelled").is_dir(), reason="needs $DEMUR_DATA/labelled")
@pytest.mark.parametrize(
    ("file", "refusals", "harms", "partial"),
    [
        ("xstest_completions_dev", 1042, 0, 83),
        ("chatgpt_refusals", 1406, 0, 0),
        ("harmbench_val_dev", 0, 301, 0),
    ],
)
def test_the_public_sets_are_read_whole(file: str, refusals: int, harms: int, partial: int) -> None:
    rows = read_labelled(DATA / "labelled" / f"{file}.jsonl").rows
    assert sum(row.refused is not None for row in rows) == refusals
    assert sum(row.harmful is not None for row in rows) == harms
    assert sum(row.partial for row in rows) == partial
