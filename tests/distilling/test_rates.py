"""Training at several learning rates: each begins anew, and validation chooses among all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.distill.students import Quiet, Struck
from tests.small_run import SMALL, prepare

from demur.distill import choose
from demur.distill import train as training
from demur.distill.choose import ADAPTER
from demur.distill.train import train as train_as_it_is
from demur.distill.whole import WEIGHTS
from demur.distilling import treatment
from demur.distilling.config import DistillConfig
from demur.distilling.distill import distill
from demur.errors import ConfigError, TrainingError

pytestmark = pytest.mark.usefixtures("lenient")

KINDS: dict[str, dict[str, Any]] = {
    "low-rank": {},
    "full": {"full": True, "first_layer": 0.0},
    "rloo": {"objective": "rloo"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rates")
    prepare(folder)
    return folder


def run(place: Path, name: str, **choices: Any) -> dict[str, Any]:
    """Distil, and return the result."""
    outcome = distill(
        str(place / "tiny"),
        run=place / name,
        narrator=Quiet(),
        pairs=str(place / "pairs.jsonl"),
        ordinary=str(place / "ordinary.jsonl"),
        **{**SMALL, **choices},
    )
    result: dict[str, Any] = json.loads((outcome.run / "result.json").read_text(encoding="utf-8"))
    return result


def trained(place: Path, run: str, *folder: str) -> dict[str, Any]:
    """Return the weights at the last checkpoint of a training."""
    (found,) = place.joinpath(run, "training", *folder).glob("checkpoint-*")
    files = (found / ADAPTER, found / WEIGHTS)
    return load_file(next(path for path in files if path.exists()))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two sets of weights are equal to the bit."""
    return one.keys() == other.keys() and all(
        np.array_equal(value, other[name]) for name, value in one.items()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_rate_trains_the_student_as_it_would_alone(place: Path, kind: str) -> None:
    choices = KINDS[kind]
    result = run(place, kind, learning_rates=(1e-2, 4e-2), **choices)
    labels = [candidate["label"] for candidate in result["tried"]]
    assert len(labels) == 3  # two rates, and the better one at another strength
    assert [label.split(",")[0] for label in labels[:2]] == [
        "learning rate 0.01",
        "learning rate 0.04",
    ]
    assert result["chosen"]["label"] in labels
    assert "--learning-rates 0.01 0.04" in result["command"]
    report = (place / kind / "report.html").read_text(encoding="utf-8")
    assert "learning rates, stopping points and strengths" in report
    alone = {"full_learning_rate" if kind == "full" else "learning_rate": 4e-2}
    run(place, f"{kind}-alone", **alone, **choices)
    second = trained(place, kind, "rate-0.04")
    assert same(second, trained(place, f"{kind}-alone"))
    assert not same(second, trained(place, kind, "rate-0.01"))


def test_a_run_that_was_broken_off_between_two_rates_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(*given: Any) -> None:
        raise Struck

    rates = {"learning_rates": (1e-2, 4e-2)}
    with monkeypatch.context() as patch:
        patch.setattr(choose, "put_back", strike)
        with pytest.raises(Struck):
            run(place, "broken", **rates)
    assert trained(place, "broken", "rate-0.01")
    run(place, "broken", **rates)
    run(place, "whole", **rates)
    for rate in ("rate-0.01", "rate-0.04"):
        assert same(trained(place, "broken", rate), trained(place, "whole", rate))


@pytest.mark.parametrize("kind", ["low-rank", "full"])
def test_a_rate_that_is_too_high_ends_the_trying_and_not_the_run(
    place: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []

    def train(chat: Any, lessons: Any, recipe: Any, *given: Any) -> Any:
        tried.append(recipe.learning_rate)
        found = train_as_it_is(chat, lessons, recipe, *given)
        if recipe.learning_rate > 2e-2:
            raise TrainingError("The training loss became nan at step 1.", "Lower it.")
        return found

    monkeypatch.setattr(training, "train", train)
    rates = {"learning_rates": (6e-2, 4e-2, 1e-2)}
    result = run(place, f"{kind}-high", **rates, **KINDS[kind])
    assert tried == [1e-2, 4e-2, 1e-2]
    labels = [candidate["label"] for candidate in result["tried"]]
    assert len(labels) == 2 and all("learning rate 0.01," in label for label in labels)
    assert same(trained(place, f"{kind}-high", "rate-0.01"), trained(place, kind, "rate-0.01"))
    log = (place / f"{kind}-high" / "run.log").read_text(encoding="utf-8")
    assert "became nan at step 1. No higher rate is tried." in log
    with pytest.raises(TrainingError, match="became nan"):
        run(place, f"{kind}-all-high", learning_rates=(4e-2, 6e-2), **KINDS[kind])


def test_rates_that_are_not_given_leave_a_run_what_it_was() -> None:
    plain = DistillConfig("tiny").identity()
    assert "learning_rates" not in plain
    config = DistillConfig("tiny", learning_rates=(2e-3, 1e-3, 2e-3))
    assert config.learning_rates == (1e-3, 2e-3)
    assert config.identity() == {**plain, "learning_rates": [1e-3, 2e-3]}


def test_rates_that_make_no_sense_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--learning-rates is .* must be above 0, at most 1"):
        DistillConfig("tiny", learning_rates=(1e-3, 0.0))
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("DEMUR_DIVIDED", "1")):
        monkeypatch.setenv(name, value)
    treatment.distilling(DistillConfig("tiny", learning_rates=(1e-3,)))
    with pytest.raises(ConfigError, match="and not for several learning rates"):
        treatment.distilling(DistillConfig("tiny", learning_rates=(1e-3, 2e-3)))
