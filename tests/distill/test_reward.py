"""A learned reward: how it scores, what it learns, how it is kept, and that it can pay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.distill.students import Quiet, Striking, Struck, student
from tests.distill.test_policy import batch_of, wrapped
from tests.distill.test_train import one_thread  # noqa: F401

from demur.checkpoint import LowRank
from demur.distill import train as training
from demur.distill.collate import Collator, shared_prefix
from demur.distill.lessons import Lesson
from demur.distill.objectives import BradleyTerry, LearnedReward, PolicyGradient, RewardModel
from demur.distill.objectives.reward import load_reward, save_reward, score_texts
from demur.distill.recipe import Recipe
from demur.distill.reward_training import learn_reward, learnt_from
from demur.errors import CheckpointError, TrainingError

RECIPE = Recipe(first_layer=0.0, batch=8, micro_batch=4, checkpoints=2, seed=1, informed=16)
TEXTS = [((5, 6, 7, 20), (30, 31)), ((5, 6, 8, 21, 22), (40,)), ((5, 6, 7), (1, 2, 3, 4))]


def preferences(count: int = 400) -> list[Lesson]:
    """Return pairs: after token 20 the answer 50 is the better, after token 21 the answer 60."""
    made = []
    for number in range(count):
        bad = number % 3 == 0
        prompt = (5, 6, 7, 100 + number % 90, 100 + 7 * number % 83, 20 if bad else 21)
        answers = ((50, 51, 2), (60, 61, 62, 2))
        chosen, rejected = answers if bad else answers[::-1]
        kind: Any = "refuse" if bad else "answer"
        made.append(Lesson(kind, prompt, chosen, request=str(number), rejected=rejected))
    return made


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, RewardModel, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("reward")
    chat = student()
    ids = torch.tensor([[5, 6, 7, 20, 30, 31]])
    before = chat.model(ids).logits
    found = learn_reward(chat, preferences(), RECIPE, folder, Quiet())
    assert torch.equal(chat.model(ids).logits, before)  # the student is put back
    assert not any("lora" in name for name, _ in chat.model.named_parameters())
    return chat, found, folder


def same(one: RewardModel, other: RewardModel) -> bool:
    """Return whether two reward models are equal to the bit."""
    figures = [replace(at, changes={}, readout=None) for at in (one, other)]
    return (
        figures[0] == figures[1]
        and torch.equal(one.readout, other.readout)
        and one.changes.keys() == other.changes.keys()
        and all(
            np.array_equal(change.up, other.changes[name].up)
            and np.array_equal(change.down, other.changes[name].down)
            for name, change in one.changes.items()
        )
    )


@pytest.mark.parametrize("name", ["llama", "gpt2", "mpt", "mistral-window"])
def test_scores_are_those_of_single_rows(name: str) -> None:
    model = student(name).model
    readout = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    found = score_texts(model, TEXTS, {}, readout)
    for (prompt, answer), score in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            ids = torch.tensor([[*prompt, *answer]])
            states = model(ids, output_hidden_states=True).hidden_states[-1][0, len(prompt) :]
        states = states / states.square().mean(-1, keepdim=True).sqrt()
        assert score.item() == pytest.approx((states @ readout).mean().item(), abs=1e-3)


def test_the_untouched_student_scores_whatever_is_trained_on_it() -> None:
    chat = student()
    readout = torch.ones(32)
    before = score_texts(chat.model, TEXTS, {}, readout)
    peft = wrapped(chat, 0.3)
    wanted = [one.requires_grad for one in peft.parameters()]
    assert torch.allclose(score_texts(chat.model, TEXTS, {}, readout), before, atol=1e-5)
    assert [one.requires_grad for one in peft.parameters()] == wanted
    name = "model.layers.1.mlp.down_proj"
    rows, columns = chat.model.get_submodule(name).base_layer.weight.shape
    rng = np.random.default_rng(0)
    change = LowRank(
        rng.normal(size=(rows, 1)).astype("f"), rng.normal(size=(1, columns)).astype("f")
    )
    changed = score_texts(chat.model, TEXTS, {name: change}, readout)
    assert not torch.allclose(changed, before, atol=1e-2)


def test_the_loss_by_hand() -> None:
    chat = student()
    pairs = [
        replace(one, answer=(*one.answer, 0), rejected=(*one.rejected, 0)) for one in preferences(6)
    ]
    readout = torch.randn(32, generator=torch.Generator().manual_seed(3))
    batch = Collator(pairs, shared_prefix(chat.model, pairs), pairs=True)(
        [{"lesson": place} for place in range(6)]
    )
    found = BradleyTerry(readout, harmful_weight=2.0, benign_weight=0.5).loss(chat.model, batch)
    expected = 0.0
    for one in preferences(6):
        both = [(one.prompt, one.answer), (one.prompt, one.rejected)]
        chosen, rejected = score_texts(chat.model, both, {}, readout)
        weight = 2.0 if one.kind == "refuse" else 0.5
        expected += weight * float(torch.log1p((rejected - chosen).exp())) / 6
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_what_is_good_on_one_request_and_bad_on_another_is_learnt(learned: Any) -> None:
    chat, model, _ = learned
    assert model.trained + model.held_out.n == 400
    assert model.harmful.n + model.benign.n == model.held_out.n > 60
    assert model.harmful.low > 0.6 and model.benign.low > 0.6
    held = [(one.prompt, one.answer) for one in preferences()]
    scores = score_texts(chat.model, held, model.changes, model.readout)
    assert abs(float(scores.std()) / model.scale - 1) < 0.5


def test_pairs_are_needed(learned: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="There are 21 pairs of answers"):
        learn_reward(learned[0], preferences(21), RECIPE, tmp_path, Quiet())


def test_a_training_that_was_broken_off_comes_to_the_same(learned: Any, tmp_path: Path) -> None:
    _, model, _ = learned
    with pytest.raises(Struck):
        learn_reward(student(), preferences(), RECIPE, tmp_path, Striking())
    assert same(learn_reward(student(), preferences(), RECIPE, tmp_path, Quiet()), model)


def test_a_training_that_had_ended_is_not_done_again(learned: Any, monkeypatch: Any) -> None:
    chat, model, folder = learned
    monkeypatch.setattr(training, "trainer_of", None)  # would fail if it were called
    assert same(learn_reward(chat, preferences(), RECIPE, folder, Quiet()), model)


def test_what_a_reward_was_learnt_from_is_told_apart(learned: Any) -> None:
    chat, model, _ = learned
    assert model.learnt_from == learnt_from(chat, preferences(), RECIPE)
    others = [
        learnt_from(chat, preferences(399), RECIPE),
        learnt_from(chat, preferences(), replace(RECIPE, seed=2)),
        learnt_from(replace(chat, weights="other"), preferences(), RECIPE),
    ]
    assert len({model.learnt_from, *others}) == 4
    # How the student is trained by it has no part in it.
    assert model.learnt_from == learnt_from(chat, preferences(), replace(RECIPE, samples=8))


def test_a_reward_model_on_disk(learned: Any, tmp_path: Path) -> None:
    chat, model, _ = learned
    path = tmp_path / "reward.safetensors"
    save_reward(model, path)
    assert same(load_reward(path, chat), model)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    with pytest.raises(CheckpointError, match="reads another student"):
        load_reward(path, replace(chat, weights="other"))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="is not a reward model"):
        load_reward(path, chat)
    with pytest.raises(CheckpointError, match="is not a reward model"):
        load_reward(tmp_path / "absent", chat)


def test_a_learned_reward_pays(learned: Any) -> None:
    chat, model, _ = learned
    lessons = preferences(40)
    reward = LearnedReward(chat, model)
    good = reward(lessons, [one.answer for one in lessons])
    bad = reward(lessons, [one.rejected for one in lessons])
    assert sum(good) / 40 > 0.4 and sum(bad) / 40 < -0.4
    fresh = student()
    peft = wrapped(fresh, 0.05)
    at = PolicyGradient(lessons, LearnedReward(fresh, model), fresh.stops, tokens=5)
    loss = at.loss(peft, batch_of(peft, lessons, [0, 1, 2]))
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert any(bool(one.grad.any()) for one in peft.parameters() if one.grad is not None)
