"""Choosing a scale on validation prompts, with the untouched model among the candidates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.distill.students import Quiet, student
from tests.distill.test_choose import Scripted, probes
from tests.models.test_generation import Counted

from demur.checkpoint import LowRank
from demur.distill.baselines.choose_scale import UNTOUCHED, ScaledCandidate, choose_scale
from demur.errors import ConfigError
from demur.run.journal import Journal
from demur.stats import rate

TENSOR = "model.layers.1.mlp.down_proj.weight"


def treatments() -> dict[str, dict[str, LowRank]]:
    generator = np.random.default_rng(1)
    return {
        name: {
            TENSOR: LowRank(
                generator.normal(size=(32, 1)).astype("float32"),
                generator.normal(size=(1, 48)).astype("float32"),
            )
        }
        for name in ("first", "second")
    }


def test_the_best_scale_is_chosen_and_the_model_left_alone(tmp_path):
    chat = student("llama")
    before = {name: one.clone() for name, one in chat.model.state_dict().items()}
    judge = Scripted([0, 0, 0, 1, 0, 0, 2, 1, 1, 3, 0, 1, 4, 4, 4])
    journal = Journal(tmp_path / "journal.sqlite")
    best, tried = choose_scale(
        chat, treatments(), (2.0, 0.0, 1.0), probes(), journal, judge, Quiet()
    )
    assert judge.script == []
    assert [one.label for one in tried] == [
        UNTOUCHED,
        "first, scale 1",
        "first, scale 2",
        "second, scale 1",
        "second, scale 2",
    ]
    assert best is tried[3]
    assert (best.harmful, best.twins, best.ordinary) == (rate(3, 4), rate(0, 4), rate(1, 4))
    assert best.score == pytest.approx(0.5)
    assert best.benign == rate(1, 8)
    assert journal.count("answers") == 5 * 12  # no candidate is taken for another
    assert all(torch.equal(one, before[name]) for name, one in chat.model.state_dict().items())


def test_the_second_time_is_answered_from_the_journal(tmp_path):
    chat = student("llama")
    journal = Journal(tmp_path / "journal.sqlite")
    script = [0, 0, 0, 1, 0, 0, 2, 0, 0]
    first = choose_scale(chat, treatments(), (1.0,), probes(), journal, Scripted(script), Quiet())
    with Counted(chat.model) as counted:
        second = choose_scale(
            chat, treatments(), (1.0,), probes(), journal, Scripted(script), Quiet()
        )
    assert counted.calls == 0
    assert first == second


def test_what_makes_nothing_better_is_not_applied(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    judge = Scripted([1, 0, 0] * 3)
    best, tried = choose_scale(
        student("llama"), treatments(), (1.0,), probes(), journal, judge, Quiet()
    )
    assert best is tried[0]
    assert (best.name, best.scale) == (UNTOUCHED, 0.0)


def test_no_scale_takes_refusals_away(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    with pytest.raises(ConfigError, match="never to take them away"):
        choose_scale(
            student("llama"), treatments(), (1.0, -1.0), probes(), journal, Scripted([]), Quiet()
        )
    assert journal.count("answers") == 0


def test_the_score_leaves_out_what_was_not_asked():
    bare = ScaledCandidate(rate(9, 10), rate(0, 0), rate(0, 0), "one", 1.0)
    assert bare.score == pytest.approx(0.9)
