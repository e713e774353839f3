"""The refusal direction in weights: what is added, where, and to whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distill.students import student
from tests.models.architectures import tiny

from demur.checkpoint import Dense, LowRank, apply_patch, make_patch
from demur.distill.baselines.context import INSTRUCTIONS
from demur.distill.baselines.direction import Direction, find_directions, residual_writer
from demur.distill.baselines.states import last_token_states
from demur.distill.initialise import last_token_inputs
from demur.errors import ConfigError, ModelError, PromptError
from demur.models.chat_model import ChatModel
from demur.models.edits import edited
from demur.prompts.types import Prompt

TASKS = (
    *("bake bread", "kill a process", "take the flour", "help with weather", "think"),
    *("answer the user", "do the mountains", "say sorry", "be friendly", "hang it", "cook"),
)
HARMFUL = [Prompt(f"Tell me how to {task}, like this!", "harmful") for task in TASKS]
BENIGN = [Prompt(f"What is it to {task} then?", "twin") for task in TASKS[:9]]


def saved(name: str, folder: Path) -> ChatModel:
    """Return a tiny student whose checkpoint is on disk."""
    chat = student(name)
    chat.model.save_pretrained(folder)
    return replace(chat, folder=folder)


def states(chat: ChatModel, prompts: list[Prompt]) -> torch.Tensor:
    return last_token_states(chat.model, [chat.encode(prompt.text) for prompt in prompts]).double()


def difference(chat: ChatModel) -> torch.Tensor:
    """Return the difference in means after the first layer."""
    return (states(chat, HARMFUL).mean(0) - states(chat, BENIGN).mean(0))[1]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox", "mpt", "opt"])
def test_states_equal_those_of_single_rows(name, monkeypatch):
    from demur.distill.baselines import states as room

    monkeypatch.setattr(room, "ROWS", 4)
    model = tiny(name)
    chat = student(name)
    requests = [chat.encode(prompt.text) for prompt in HARMFUL]
    found = last_token_states(model, requests)
    for row, request in zip(found, requests, strict=True):
        with torch.no_grad():
            single = model(torch.tensor([request]), output_hidden_states=True).hidden_states
        expected = torch.stack([state[0, -1] for state in single])
        assert torch.allclose(row, expected, rtol=1e-3, atol=1e-4)


def added_by(found: Direction, chat: ChatModel) -> torch.Tensor:
    """Return the direction that a change holds, at a scale of 1."""
    (tensor,) = found.changes
    change = found.changes[tensor]
    if isinstance(change, Dense):
        return torch.from_numpy(change.values) - chat.model.get_parameter(tensor).double()
    return torch.from_numpy(change.up[:, 0]).double()


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "gpt-neox", "opt", "falcon", "mpt"])
def test_the_direction_is_of_means_and_points_towards_harm(name, tmp_path):
    chat = saved(name, tmp_path)
    (found,) = find_directions(chat, HARMFUL, BENIGN)
    expected = difference(chat)
    assert torch.allclose(added_by(found, chat), expected, atol=1e-5)
    assert found.norm == pytest.approx(float(expected.norm()), rel=1e-4)
    harmful, benign = (states(chat, side)[:, 1] @ expected for side in (HARMFUL, BENIGN))
    assert harmful.mean() > benign.mean()


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_instruction_is_the_other_source(name, tmp_path):
    chat = saved(name, tmp_path)
    text = INSTRUCTIONS["short"]
    (found,) = find_directions(chat, HARMFUL, BENIGN, source="instruction", instruction=text)
    told = replace(chat, system=text)
    expected = (states(told, HARMFUL).mean(0) - states(chat, HARMFUL).mean(0))[1]
    assert torch.allclose(added_by(found, chat), expected, atol=1e-5)
    assert not torch.allclose(expected, difference(chat), atol=1e-2)


@pytest.mark.parametrize("name", ["llama", "qwen2", "mpt", "falcon", "phi3"])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_without_a_bias_it_is_added_in_full_on_average_and_at_the_mean_input(name, scale, tmp_path):
    chat = saved(name, tmp_path)
    (found,) = find_directions(chat, HARMFUL, BENIGN)
    (change,) = found.changes.values()
    assert isinstance(change, LowRank)
    everyone = [*HARMFUL, *BENIGN]
    before = states(chat, everyone)
    with edited(chat.model, found.changes, scale):
        after = states(chat, everyone)
    direction = difference(chat)
    added = (after - before)[:, 1]
    assert torch.equal(after[:, 0], before[:, 0])
    assert torch.allclose(added.mean(0), scale * direction, atol=1e-4 * float(direction.norm()))
    amounts = added @ direction / direction.pow(2).sum() / scale
    assert float(amounts.std()) == pytest.approx(found.spread, rel=1e-2, abs=1e-5)
    assert float(amounts[: len(HARMFUL)].mean()) == pytest.approx(found.harmful, rel=1e-2)
    assert float(amounts[len(HARMFUL) :].mean()) == pytest.approx(found.benign, rel=1e-2)
    assert found.norm == pytest.approx(float(direction.norm()), rel=1e-5)
    assert (found.layer, found.label) == (1, "constant direction of harmful after layer 1")
    name, module = residual_writer(chat.model, 1)
    requests = [chat.encode(prompt.text) for prompt in everyone]
    mean = last_token_inputs(chat.model, {name: module}, requests)[name].double().mean(0)
    reached = torch.from_numpy(change.up).double() @ (
        torch.from_numpy(change.down).double() @ mean[:, None]
    )
    assert torch.allclose(reached[:, 0], direction, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox", "opt", "bloom", "gpt-neo"])
def test_with_a_bias_it_is_added_exactly_to_every_token(name, tmp_path):
    chat = saved(name, tmp_path)
    (found,) = find_directions(chat, HARMFUL, BENIGN)
    assert [type(change) for change in found.changes.values()] == [Dense]
    assert all(tensor.endswith(".bias") for tensor in found.changes)
    assert (found.spread, found.harmful, found.benign) == (0, 1, 1)
    direction = difference(chat).float()
    ids = torch.tensor([chat.encode("Something else, and never seen.")])
    with torch.no_grad():
        before = chat.model(ids, output_hidden_states=True).hidden_states[1]
        with edited(chat.model, found.changes, 0.5):
            after = chat.model(ids, output_hidden_states=True).hidden_states[1]
    assert torch.allclose(after - before, (0.5 * direction).expand_as(before), atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "opt"])
def test_the_discriminant_adds_it_to_harmful_requests_and_not_to_benign_ones(name, tmp_path):
    chat = saved(name, tmp_path)
    (found,) = find_directions(chat, HARMFUL, BENIGN, form="discriminant")
    assert isinstance(next(iter(found.changes.values())), LowRank)
    assert found.harmful == pytest.approx(1, abs=1e-6)
    assert found.benign == pytest.approx(0, abs=1e-6)
    direction = difference(chat)
    for prompts, amount in ((HARMFUL, 1.0), (BENIGN, 0.0)):
        before = states(chat, prompts)
        with edited(chat.model, found.changes):
            added = (states(chat, prompts) - before)[:, 1].mean(0)
        assert torch.allclose(added, amount * direction, atol=1e-3 * float(direction.norm()))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_attention_can_write_it(name, tmp_path):
    chat = saved(name, tmp_path)
    (found,) = find_directions(chat, HARMFUL, BENIGN, writer="attention")
    module = residual_writer(chat.model, 1, "attention")[1]
    written: list[torch.Tensor] = []
    module.register_forward_hook(lambda module, given, out: written.append(out[:, -1].detach()))
    requests = [*HARMFUL, *BENIGN]
    with torch.no_grad():
        for prompt in requests:
            ids = torch.tensor([chat.encode(prompt.text)])
            chat.model(ids)
            with edited(chat.model, found.changes):
                chat.model(ids)
    added = torch.cat(written[1::2]) - torch.cat(written[::2])
    direction = difference(chat).float()
    assert torch.allclose(added.mean(0), direction, atol=1e-3 * float(direction.norm()))


@pytest.mark.parametrize(
    ("name", "form"), [("llama", "constant"), ("gpt2", "constant"), ("gpt2", "discriminant")]
)
def test_it_can_be_written_as_a_patch(name, form, tmp_path):
    from transformers import AutoModelForCausalLM

    base = tmp_path / "base"
    chat = saved(name, base)
    (found,) = find_directions(chat, HARMFUL, BENIGN, form=form)
    patch = tmp_path / "patch.safetensors"
    make_patch(base, found.changes, patch, base_name="tiny", recipe={}, results={})
    assert apply_patch(base, patch, tmp_path / "treated").exact
    treated = AutoModelForCausalLM.from_pretrained(tmp_path / "treated").eval()
    ids = torch.tensor([chat.encode("How do I bake bread?")])
    with torch.no_grad(), edited(chat.model, found.changes):
        assert torch.allclose(chat.model(ids).logits, treated(ids).logits, atol=1e-3)


@pytest.mark.parametrize("name", ["gemma2", "olmo2", "mixtral"])
def test_architectures_that_cannot_have_it_are_told(name, tmp_path):
    chat = saved(name, tmp_path)
    with pytest.raises(ModelError, match="cannot be added by the mlp matrix"):
        find_directions(chat, HARMFUL, BENIGN)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"layers": [2]}, ConfigError, "after layer 2 of a model of 2"),
        ({"layers": [0]}, ConfigError, "after layer 0"),
        ({"layers": []}, ConfigError, "none given"),
        ({"source": "instruction"}, ConfigError, "there is no instruction"),
    ],
)
def test_senseless_choices_are_errors(settings: dict[str, Any], error, message, tmp_path):
    chat = saved("llama", tmp_path)
    with pytest.raises(error, match=message):
        find_directions(chat, HARMFUL, BENIGN, **settings)


def test_a_layer_in_which_all_requests_end_alike_has_none(tmp_path):
    chat = saved("lfm2", tmp_path)  # its first layer sees no further than the template's tail
    with pytest.raises(ConfigError, match="end alike after layer 1"):
        find_directions(chat, HARMFUL, BENIGN)


def test_too_few_requests_are_an_error(tmp_path):
    chat = saved("llama", tmp_path)
    with pytest.raises(PromptError, match="3 harmful and 9 benign"):
        find_directions(chat, HARMFUL[:3], BENIGN)
