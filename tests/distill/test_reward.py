"""A learned reward: what it reads, what it learns, how it is kept, and that it can pay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.distill.students import student
from tests.distill.test_policy import batch_of, wrapped
from tests.distill.test_train import one_thread  # noqa: F401

from demur.distill import states as room
from demur.distill.lessons import Lesson
from demur.distill.objectives import LearnedReward, PolicyGradient
from demur.distill.objectives.reward import learn_reward, load_reward, save_reward
from demur.distill.states import hidden_states, untouched
from demur.errors import CheckpointError, TrainingError
from demur.run.journal import Journal


def preferences(count: int = 80) -> list[Lesson]:
    """Return pairs: after token 20 the answer 50 is the better, after token 21 the answer 60."""
    made = []
    for number in range(count):
        bad = number % 2 == 0
        prompt = (5, 6, 7, 100 + number, 100 + 7 * number % 90, 20 if bad else 21)
        answers = ((50, 51, 2), (60, 61, 62, 2))
        chosen, rejected = answers if bad else answers[::-1]
        kind: Any = "refuse" if bad else "answer"
        made.append(Lesson(kind, prompt, chosen, request=str(number), rejected=rejected))
    return made


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    torch.set_num_threads(1)
    journal = Journal(tmp_path_factory.mktemp("reward") / "journal.sqlite")
    chat = student()
    return chat, journal, learn_reward(chat, preferences(), journal, lambda count: None)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mpt", "mistral-window"])
def test_states_are_those_of_single_rows(name):
    model = student(name).model
    texts = [((5, 6, 7, 20), (30, 31)), ((5, 6, 8, 21, 22), (40,)), ((5, 6, 7), (1, 2, 3, 4))]
    for layer in (1, 2):
        found = hidden_states(model, texts, layer)
        for (prompt, answer), state in zip(texts, found, strict=True):
            with torch.no_grad():
                ids = torch.tensor([[*prompt, *answer]])
                expected = model(ids, output_hidden_states=True).hidden_states[layer][0, -1]
            assert torch.allclose(state, expected, atol=1e-4)


def test_the_untouched_student_is_read_whatever_is_trained_on_it():
    chat = student()
    texts = [((5, 6, 7, 20), (30, 31))]
    before = hidden_states(chat.model, texts, 2)
    peft = wrapped(chat, 0.3)
    wanted = [one.requires_grad for one in peft.parameters()]
    assert torch.allclose(hidden_states(chat.model, texts, 2), before, atol=1e-6)
    assert [one.requires_grad for one in peft.parameters()] == wanted
    ids = torch.tensor([[5, 6, 7, 20, 30, 31]])
    now = chat.model(ids).logits
    with untouched(chat.model):
        assert not torch.allclose(chat.model(ids).logits, now, atol=1e-3)
    assert torch.equal(chat.model(ids).logits, now)


def test_what_is_good_on_one_request_and_bad_on_another_is_learnt(learned):
    _, _, model = learned
    assert model.trained.n + model.held_out.n == 80
    assert model.harmful.n + model.benign.n == model.held_out.n >= 10
    assert model.held_out.low > 0.6
    assert model.trained.value > 0.95
    assert model.layer == 2


def test_pairs_are_needed(learned):
    chat, journal, _ = learned
    few = [
        replace(one, rejected=()) if place > 20 else one for place, one in enumerate(preferences())
    ]
    with pytest.raises(TrainingError, match="There are 21 pairs of answers"):
        learn_reward(chat, few, journal, lambda count: None)


def test_states_are_kept_and_the_head_is_the_same_again(learned, monkeypatch):
    chat, journal, model = learned
    monkeypatch.setattr(room, "hidden_states", None)  # would fail if it were called
    advanced: list[int] = []
    again = learn_reward(chat, preferences(), journal, advanced.append)
    assert sum(advanced) == 160
    assert all(torch.equal(again.tensors[name], one) for name, one in model.tensors.items())
    linear = learn_reward(chat, preferences(), journal, advanced.append, hidden=0)
    assert linear.tensors["out.weight"].shape == (32,)
    assert "in.weight" not in linear.tensors


def test_a_reward_model_on_disk(learned, tmp_path):
    chat, _, model = learned
    path = tmp_path / "reward.safetensors"
    save_reward(model, path)
    found = load_reward(path, chat)
    assert replace(found, tensors={}) == replace(model, tensors={})
    assert all(torch.equal(found.tensors[name], one) for name, one in model.tensors.items())
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    with pytest.raises(CheckpointError, match="reads another student"):
        load_reward(path, replace(chat, weights="other"))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="is not a reward model"):
        load_reward(path, chat)
    with pytest.raises(CheckpointError, match="is not a reward model"):
        load_reward(tmp_path / "absent", chat)


def test_a_learned_reward_pays(learned):
    chat, _, model = learned
    lessons = preferences()
    reward = LearnedReward(chat, model)
    good = reward(lessons, [one.answer for one in lessons])
    bad = reward(lessons, [one.rejected for one in lessons])
    assert sum(good) / 80 > 0.4 and sum(bad) / 80 < -0.4
    fresh = student()
    peft = wrapped(fresh, 0.05)
    at = PolicyGradient(lessons, LearnedReward(fresh, model), fresh.stops, tokens=5)
    loss = at.loss(peft, batch_of(peft, lessons, [0, 1, 2]))
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert any(bool(one.grad.any()) for one in peft.parameters() if one.grad is not None)
