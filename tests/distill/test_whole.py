"""Full fine-tuning: what is trained, its copy, checkpoints, and the patch that comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tests.distill.students import Quiet, Striking, Struck, made_lessons, student
from tests.distill.test_policy import lessons_for, objective
from tests.distill.test_train import one_thread  # noqa: F401
from tests.models.architectures import tiny

from demur.checkpoint import apply_patch, make_patch
from demur.distill import whole
from demur.distill.choose import as_adapted, changes_of, put
from demur.distill.objectives import Distilled
from demur.distill.recipe import Recipe
from demur.distill.train import distilled, train
from demur.distill.untouched import remembered, untouched
from demur.errors import ModelError, TrainingError

RECIPE = Recipe(
    full=True, first_layer=0.5, learning_rate=3e-3, batch=4, micro_batch=2, checkpoints=3, seed=3
)
LESSONS = 33  # eight steps of four


def weights(checkpoint: Path) -> bytes:
    return (checkpoint / whole.WEIGHTS).read_bytes()


def trained(folder: Path, narrator: Any = None, recipe: Recipe = RECIPE) -> Any:
    chat = student()
    lessons = made_lessons(chat.model, LESSONS)
    return chat, *train(chat, lessons, recipe, folder, narrator or Quiet())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    torch.set_num_threads(1)
    return trained(tmp_path_factory.mktemp("run") / "training")


def test_what_is_trained():
    model = student().model
    second = whole.whole_names(model, [1])
    assert second and all(name.startswith("model.layers.1.") for name in second)
    assert "model.layers.1.input_layernorm.weight" in second
    everything = whole.whole_names(model, [0, 1])
    assert set(everything) == {name for name, _ in model.named_parameters()}


def test_only_the_chosen_layers_change_and_the_copy_does_not(finished):
    chat, model, checkpoints = finished
    assert model is chat.model and not model.training
    assert [path.name for path in checkpoints] == ["checkpoint-3", "checkpoint-6", "checkpoint-8"]
    assert len({weights(path) for path in checkpoints}) == 3
    before = tiny("llama").state_dict()
    put(model, checkpoints[-1], 1.0)
    for name, parameter in model.named_parameters():
        assert (".layers.1." in name) != torch.equal(parameter, before[name]), name
        assert not parameter.requires_grad
    copy = remembered(model)
    assert all(torch.equal(one, before[name]) for name, one in copy.named_parameters())
    shared = {name: one.data_ptr() for name, one in model.named_parameters()}
    for name, parameter in copy.named_parameters():
        assert (parameter.data_ptr() == shared[name]) == (".layers.1." not in name)


def test_the_moments_are_kept_for_the_last_checkpoint_alone(finished):
    _, _, checkpoints = finished
    assert [(path / "optimizer.pt").exists() for path in checkpoints] == [False, False, True]


def test_training_lowers_the_loss(finished):
    from tests.distill.test_trainer import trainer

    from demur.distill.collate import Collator

    _, model, checkpoints = finished
    put(model, checkpoints[-1], 1.0)
    lessons = made_lessons(tiny("llama"), LESSONS)
    batch = Collator(lessons, 5)([{"lesson": number} for number in range(LESSONS)])
    with torch.no_grad():
        after = trainer().compute_loss(model, batch).item()
        with untouched(model) as copy:
            before = trainer().compute_loss(copy, batch).item()
    assert after < 0.98 * before


@pytest.mark.parametrize("kind", ["sft", "logits", "rloo"])
def test_an_interrupted_training_goes_on_to_the_same_weights(kind, tmp_path):
    recipe = replace(RECIPE, objective=kind, epochs=2 if kind == "rloo" else 1)
    if kind == "rloo":
        recipe = replace(recipe, batch=6, micro_batch=3)

    def run(folder: str, narrator: Any) -> Any:
        chat = student()
        if kind == "rloo":
            lessons = lessons_for(chat, tmp_path)
            made: Any = objective(chat, lessons)
        else:
            lessons = made_lessons(chat.model, LESSONS)
            hinted = {place: (21, 22, *one.prompt) for place, one in enumerate(lessons)}
            made = distilled(chat, lessons, recipe, hinted) if kind == "logits" else None
        return train(chat, lessons, recipe, tmp_path / folder, narrator, made)

    _, expected = run("whole", Quiet())
    with pytest.raises(Struck):
        run("broken", Striking())
    torch.manual_seed(99)
    narrator = Quiet()
    _, found = run("broken", narrator)
    assert 0 < narrator.done[0] < 5
    assert [weights(path) for path in found] == [weights(path) for path in expected]


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_patch_is_what_was_tried_in_memory(finished, tmp_path, strength):
    chat, model, checkpoints = finished
    base = tmp_path / "base"
    tiny("llama").save_pretrained(base)
    put(model, checkpoints[-1], strength)
    changes = changes_of(model, base, checkpoints[-1], strength)
    assert len(changes) == len(whole.whole_names(model, [1]))
    patch = tmp_path / "patch.safetensors"
    make_patch(base, changes, patch, base_name="tiny", recipe={}, results={})
    apply_patch(base, patch, tmp_path / "treated")
    treated = load_file(tmp_path / "treated" / "model.safetensors")
    before = load_file(base / "model.safetensors")
    for name, parameter in model.named_parameters():
        assert np.array_equal(treated[name], parameter.numpy()), name
    first = "model.layers.1.mlp.up_proj.weight"
    full = dict(changes_of(model, base, checkpoints[-1], 1.0))[first].values
    moved = before[first] + strength * (full - before[first])
    assert np.allclose(treated[first], moved, atol=1e-7) and not np.array_equal(
        moved, before[first]
    )
    name = as_adapted(chat, checkpoints[-1], strength).weights
    assert name != as_adapted(chat, checkpoints[-1], 0.75).weights != chat.weights


def test_narrow_numbers_are_trained_wide_and_come_back_narrow(tmp_path):
    chat = student()
    for parameter in chat.model.parameters():
        parameter.data = parameter.data.bfloat16()
    assert chat.model.model.rotary_emb.inv_freq.dtype == torch.float32
    chat.placement = replace(chat.placement, dtype="bfloat16")
    lessons = made_lessons(tiny("llama"), 8)
    model, checkpoints = train(
        chat, lessons, replace(RECIPE, checkpoints=1), tmp_path / "training", Quiet()
    )
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32  # positions are exact still
    from safetensors.torch import load_file as load_tensors

    kept = load_tensors(checkpoints[-1] / whole.WEIGHTS)
    assert {one.dtype for one in kept.values()} == {torch.float32}
    put(model, checkpoints[-1], 1.0)
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(dict(model.named_parameters())[name], kept[name].bfloat16())


def test_the_student_as_it_was_is_read_while_its_weights_are_trained():
    chat = student()
    ids = torch.tensor([[5, 6, 7, 20, 30, 31]])
    before = chat.model(ids).logits
    parameters = whole.begin(chat.model, [0, 1])
    with torch.no_grad():
        for parameter in parameters.values():
            parameter += 0.1
    assert not torch.allclose(chat.model(ids).logits, before, atol=1e-3)
    with untouched(chat.model) as untrained:
        assert torch.allclose(untrained(ids).logits, before, atol=1e-6)
    lessons = made_lessons(tiny("llama"), 3)
    loss = Distilled(lessons, frozenset({2})).loss(chat.model, {"lesson": torch.tensor([0, 1, 2])})
    loss.backward()
    assert all(one.grad is not None for one in parameters.values())
    assert all(one.grad is None for one in remembered(chat.model).parameters() if one is not None)


def test_memory_that_will_not_do_is_said():
    model = student().model
    second = whole.whole_names(model, [1])
    sizes = {name: one.numel() for name, one in model.named_parameters()}
    assert whole.memory_needed(model, [1]) == 16 * sum(sizes[name] for name in second)
    whole.require_memory(model, [1], free=16 * sum(sizes.values()))
    with pytest.raises(TrainingError, match=r"all weights of 2 layers .* are free") as caught:
        whole.require_memory(model, [0, 1], free=1000)
    assert "--first-layer" in caught.value.remedy
    assert whole.memory_needed(model.bfloat16(), [1]) > 16 * sum(sizes[name] for name in second)


def test_weights_that_are_not_on_disk_are_said_before_training(tmp_path):
    tiny("llama").save_pretrained(tmp_path)
    model = student().model
    whole.require_whole_on_disk(model, tmp_path, [0, 1])
    model.model.layers[1].extra = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"layers\.1\.extra\.weight is to be trained"):
        whole.require_whole_on_disk(model, tmp_path, [1])
