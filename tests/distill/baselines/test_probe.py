"""The probe: areas that are right, a layer chosen on validation, a curve on test prompts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from tests.distill.students import student

from demur.distill.baselines import probe as room
from demur.distill.baselines.probe import SIDES, area, curve, probe_curve, train_probe
from demur.errors import PromptError
from demur.prompts.types import Prompt
from demur.stats import rate


def drawn(seed: int, counts: tuple[int, int, int] = (40, 40, 30), gap: float = 1.5) -> Any:
    """Return states of three layers: the first is constant, the third tells harmful from not."""
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for side, count in zip(SIDES, counts, strict=True):
        states = torch.randn(count, 3, 12, generator=generator) * torch.linspace(0.2, 3, 12)
        states[:, 0] = 1.0
        states[:, 1:, 2] += {"harmful": 1.0, "twins": 0.0, "ordinary": -3.0}[side] * torch.tensor(
            [0.1, gap]
        )
        parts[side] = states
    return parts


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_sklearns(seed):
    generator = np.random.default_rng(seed)
    left = generator.normal(0.8, 1, 37).round(1).tolist()
    right = generator.normal(0, 1, 23).round(1).tolist()
    found = area(left, right)
    labels = [1] * len(left) + [0] * len(right)
    assert found.value == pytest.approx(roc_auc_score(labels, left + right))
    assert found.low < found.value < found.high
    assert (found.positives, found.negatives) == (37, 23)
    mirrored = area(right, left)
    assert mirrored.value == pytest.approx(1 - found.value)


def test_the_areas_interval_holds_what_it_should():
    generator = np.random.default_rng(1)
    truth = 0.7602499  # Phi(1 / sqrt 2)
    inside = 0
    for _ in range(400):
        found = area(generator.normal(1, 1, 30).tolist(), generator.normal(0, 1, 30).tolist())
        inside += found.low <= truth <= found.high
    assert 0.92 < inside / 400 < 0.985


def test_the_area_at_its_ends():
    perfect = area([2.0, 3.0, 4.0], [0.0, 1.0])
    assert perfect.value == perfect.high == 1
    assert 0.3 < perfect.low < 0.9
    assert area([1.0], [1.0]).value == 0.5
    none = area([0.0] * 50, [1.0] * 50)
    assert none.value == none.low == 0
    assert 0 < none.high < 0.1
    with pytest.raises(ValueError, match="at least one"):
        area([], [1.0])


def test_a_fit_is_the_balanced_ridge_regression():
    bad, good = (drawn(1)[side][:, 2].double() for side in ("harmful", "twins"))
    good = good[:25]
    centred = {"bad": bad - bad.mean(0), "good": good - good.mean(0)}
    covariance = sum(side.T @ side / len(side) for side in centred.values()) / 2
    power = float(covariance.diagonal().mean())
    rows = torch.cat([bad, good]).numpy()
    labels = np.array([1] * len(bad) + [-1] * len(good))
    weights = np.where(labels > 0, 1 / len(bad), 1 / len(good))
    for ridge, centre, found in room._fits(bad, good):
        expected = Ridge(alpha=2 * ridge * power).fit(rows, labels, sample_weight=weights).coef_
        cosine = float(found.numpy() @ expected / np.linalg.norm(found) / np.linalg.norm(expected))
        assert cosine == pytest.approx(1, abs=1e-9)
        scores = [((side - centre) @ found).mean() for side in (bad, good)]
        assert float(scores[0]) == pytest.approx(-float(scores[1]))
        assert scores[0] > 0


def test_layer_and_ridge_are_chosen_on_validation():
    train, validation = drawn(1), drawn(2)
    probe = train_probe(train, validation)
    assert probe.layer == 2
    assert probe.ridge in room.RIDGES
    scores = {side: probe.scores(validation[side]) for side in SIDES}
    assert probe.validation == area(scores["harmful"], scores["twins"] + scores["ordinary"])
    swapped = {side: states[:, [0, 2, 1]] for side, states in validation.items()}
    other = train_probe({side: states[:, [0, 2, 1]] for side, states in train.items()}, swapped)
    assert other.layer == 1


def test_the_curve_is_of_test_prompts():
    train, validation, test = drawn(1), drawn(2), drawn(3, (50, 45, 20))
    probe = train_probe(train, validation)
    found = curve(probe, validation, test)
    scores = {side: np.array(probe.scores(test[side])) for side in SIDES}
    assert len(found.thresholds) == 115
    assert list(found.thresholds) == sorted(found.thresholds, reverse=True)
    for side in SIDES:
        rates = getattr(found, side)
        assert rates[-1] == 1
        assert list(rates) == sorted(rates)
        for place in (0, 40, 90):
            expected = float((scores[side] >= found.thresholds[place]).mean())
            assert rates[place] == pytest.approx(expected)
        count = int((scores[side] >= found.threshold).sum())
        assert found.chosen[side] == rate(count, len(scores[side]))
    labels = [1] * 50 + [0] * 45
    both = np.concatenate([scores["harmful"], scores["twins"]])
    assert found.against_twins.value == pytest.approx(roc_auc_score(labels, both))
    assert found.against_ordinary.value > found.against_twins.value > 0.7
    steps = np.interp(np.linspace(0, 1, 400), (0, *found.twins), (0, *found.harmful))
    assert float(steps.mean()) == pytest.approx(found.against_twins.value, abs=0.02)
    assert json.loads(json.dumps(asdict(found)))["chosen"]["twins"]["n"] == 45


def test_the_threshold_is_the_best_of_validation():
    train, validation, test = drawn(1), drawn(2), drawn(3)
    probe = train_probe(train, validation)
    found = curve(probe, validation, test)
    scores = {side: np.array(probe.scores(validation[side])) for side in SIDES}

    def score(threshold: float) -> float:
        shares = [float((scores[side] >= threshold).mean()) for side in SIDES]
        return shares[0] - shares[1] - shares[2]

    every = np.concatenate(list(scores.values()))
    assert score(found.threshold) == pytest.approx(max(score(one) for one in every))


def prompts(kind: Any, words: str, numbers: range) -> list[Prompt]:
    return [Prompt(f"{words} {number}", kind) for number in numbers]


def test_a_students_probe():
    chat = student("gpt2")
    parts = [
        {
            "harmful": prompts("harmful", "Tell me how to kill", range(first, first + 10)),
            "twins": prompts("twin", "What is it like to kill", range(first, first + 10)),
            "ordinary": prompts("ordinary", "Sorry, what is a friend", range(first, first + 4)),
        }
        for first in (10, 30, 50)
    ]
    before = {name: one.clone() for name, one in chat.model.state_dict().items()}
    found = probe_curve(chat, *parts)
    assert found.against_twins.positives == found.against_twins.negatives == 10
    assert found.against_twins.value > 0.9  # the words themselves tell them apart
    assert 1 <= found.layer <= 2
    assert all(torch.equal(one, before[name]) for name, one in chat.model.state_dict().items())
    with pytest.raises(PromptError, match="4 harmful and 14 benign"):
        probe_curve(chat, {**parts[0], "harmful": parts[0]["harmful"][:4]}, *parts[1:])
    with pytest.raises(PromptError, match="chosen on 10 harmful, 0 twins"):
        probe_curve(chat, parts[0], {**parts[1], "twins": []}, parts[2])
    with pytest.raises(PromptError, match="there are no ordinary ones"):
        probe_curve(chat, *parts[:2], {**parts[2], "ordinary": []})
