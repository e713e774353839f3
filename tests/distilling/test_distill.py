"""Whole runs of `demur distill` on a tiny model: each objective, deep lessons, guides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.distill.students import Quiet
from tests.small_run import SMALL, prepare

from demur.benching.config import BenchConfig
from demur.distilling.config import DistillConfig
from demur.distilling.distill import distill
from demur.errors import ConfigError

pytestmark = pytest.mark.usefixtures("lenient")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distill")
    prepare(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("dpo", {"objective": "dpo"}),
        ("rloo", {"objective": "rloo"}),
        ("deep", {"objective": "sft", "deep": True}),
        ("shown", {"objective": "logits", "guide": "shown"}),
        ("full", {"full": True, "first_layer": 0.0}),
        ("reward", {"objective": "rloo", "reward": "learned", "train_pairs": 24}),
    ],
)
def test_a_run_of_each_kind(place: Path, name: str, choices: dict[str, Any]) -> None:
    outcome = distill(
        str(place / "tiny"),
        run=place / name,
        narrator=Quiet(),
        pairs=str(place / "pairs.jsonl"),
        ordinary=str(place / "ordinary.jsonl"),
        **{**SMALL, **choices},
    )
    result = json.loads((outcome.run / "result.json").read_text(encoding="utf-8"))
    assert result["command"].startswith("demur distill ")
    for key, value in choices.items():
        flag = f"--{key.replace('_', '-')}"
        assert (flag in result["command"]) == (value not in ("sft", 0.0) or key == "first_layer")
        assert result["configuration"][key] == value
    assert outcome.patch.stat().st_size > 0
    assert (outcome.model / "config.json").exists()
    assert outcome.scorecard.utility.divergence.value > 0
    report = outcome.report.read_text(encoding="utf-8")
    assert ("All weights of the layers" in report) == (name == "full")
    assert ("model of preferences that was learned from" in report) == (name == "reward")
    assert (outcome.run / "reward-0.safetensors").exists() == (name == "reward")
    assert result["patch"]["rank"] == (None if name == "full" else 8)


def test_a_budget_is_kept_to_or_what_is_over_it_is_said(place: Path) -> None:
    outcome = distill(
        str(place / "tiny"),
        run=place / "budget",
        narrator=Quiet(),
        pairs=str(place / "pairs.jsonl"),
        ordinary=str(place / "ordinary.jsonl"),
        max_divergence=0.0,
        **SMALL,
    )
    result = json.loads((outcome.run / "result.json").read_text(encoding="utf-8"))
    budget = result["budget"]
    assert (budget["most_divergence"], budget["most_over_refusal"]) == (0.0, None)
    assert budget["within"] == 0
    assert not budget["kept"]
    assert budget["options"] == len(result["tried"]) == 6  # at smaller strengths too
    assert budget["divergence"] > 0
    assert "is the least over it" in budget["sentence"]
    report = outcome.report.read_text(encoding="utf-8")
    assert report.count("keeps to the budget") == 2  # among what was done, and what fell short
    assert "--max-divergence 0.0" in result["command"]
    assert result["chosen"]["strength"] == 0.25


def test_a_budget_that_is_not_given_leaves_a_run_what_it_was() -> None:
    plain = DistillConfig("tiny").identity()
    assert not {"max_over_refusal", "max_divergence"} & set(plain)
    given = DistillConfig("tiny", max_over_refusal=0.05).identity()
    assert given == {**plain, "max_over_refusal": 0.05}


@pytest.mark.parametrize(
    ("choices", "cause"),
    [
        ({"objective": "magic"}, "--objective is magic, but must be one of sft, dpo"),
        ({"guide": "magic"}, "--guide is magic"),
        ({"beta": -0.1}, "--beta is -0.1, but must be above 0"),
        ({"on_policy": 1.5}, "--on-policy is 1.5, but must be from 0 to 1"),
        ({"max_over_refusal": 1.5}, "--max-over-refusal is 1.5, but must be from 0 to 1"),
        ({"max_divergence": -0.1}, "--max-divergence is -0.1, but must be at least 0"),
        ({"samples": 2}, "--samples is 2, but must be at least 3"),
        ({"reward": "magic"}, "--reward is magic, but must be verdicts or learned"),
        ({"full_learning_rate": 0.0}, "--full-learning-rate is 0.0, but must be above 0"),
    ],
)
def test_choices_that_make_no_sense(choices: dict[str, Any], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        DistillConfig("tiny", **choices)


def test_choices_that_were_added_later_leave_earlier_runs_as_they_were() -> None:
    plain = DistillConfig("tiny").identity()
    assert "full" not in plain and "reward" not in plain and plain["learning_rate"] == 1.4e-3
    assert DistillConfig("tiny", full=True).identity() == {**plain, "full": True}
    bench = BenchConfig("tiny", reward="learned").identity()
    assert bench["reward"] == "learned" and "full" not in bench and "rows" not in bench
