"""Training: what is trained, in which order, and that a kill changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.distill.students import Quiet, made_lessons, student
from tests.models.architectures import tiny

from demur.console import Advance
from demur.distill.lessons import Lesson
from demur.distill.recipe import Recipe, lesson_order, micro_batch, trained_layers
from demur.distill.steps import COMPLETE, complete_checkpoints, optimizer_of
from demur.distill.train import target_modules, train
from demur.errors import TrainingError

RECIPE = Recipe(
    rank=2, first_layer=0.5, learning_rate=5e-2, batch=4, micro_batch=2, checkpoints=3, seed=3
)
LESSONS = 33  # eight steps of four, and one lesson too many
VICTIM = """
import sys
from pathlib import Path
from tests.distill.test_train import killed_training

killed_training(Path(sys.argv[1]))
"""


class Killer(Quiet):
    """Kills the process, as an impatient system would, in the middle of the fifth step."""

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Advance]:
        def advance(count: int) -> None:
            self.done.append(count)
            if sum(self.done) == 5:
                os.kill(os.getpid(), signal.SIGKILL)

        yield advance


def killed_training(folder: Path) -> None:
    torch.set_num_threads(1)
    chat = student()
    train(chat, made_lessons(chat.model, LESSONS), RECIPE, folder, Killer())


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole training: (student, wrapped model, checkpoints, narrator)."""
    torch.set_num_threads(1)
    chat, narrator = student(), Quiet()
    folder = tmp_path_factory.mktemp("run") / "training"
    wrapped, checkpoints = train(chat, made_lessons(chat.model, LESSONS), RECIPE, folder, narrator)
    return chat, wrapped, checkpoints, narrator


def weights(checkpoint: Path) -> bytes:
    return (checkpoint / "adapter_model.safetensors").read_bytes()


def test_a_training_goes_through_all_steps(finished):
    _, wrapped, checkpoints, narrator = finished
    assert [path.name for path in checkpoints] == ["checkpoint-3", "checkpoint-6", "checkpoint-8"]
    assert sum(narrator.done) == 8
    assert len({weights(path) for path in checkpoints}) == 3
    assert not wrapped.training
    assert not any(parameter.requires_grad for parameter in wrapped.parameters())
    assert any("loss" in line for line in narrator._early)
    assert "  7 adapters begin with the directions that already tell" in "\n".join(narrator._early)


def test_tiny_numbers_are_numbers_again_after_training(finished):
    assert finished
    tiniest = np.array([1], np.uint32).view(np.float32)
    assert (tiniest * np.float32(1)).view(np.uint32) == 1
    assert float(torch.tensor(1e-40) * 1) > 0


def test_down_projections_learn_at_a_rate_of_their_own(finished):
    _, wrapped, checkpoints, _ = finished
    ends = [torch.load(path / "optimizer.pt")["param_groups"] for path in checkpoints]
    for down, up in ends:
        assert up["initial_lr"] == RECIPE.learning_rate
        assert down["initial_lr"] == pytest.approx(0.2 * RECIPE.learning_rate)
        assert down["lr"] == pytest.approx(0.2 * up["lr"])
        assert down["betas"] == up["betas"] == (0.9, 0.99)
        assert down["weight_decay"] == up["weight_decay"] == 0
    assert ends[-1][1]["lr"] == pytest.approx(0.05 * RECIPE.learning_rate)
    parts: dict[str, list[torch.Tensor]] = {"lora_A": [], "lora_B": []}
    for name, parameter in wrapped.named_parameters():
        for part, found in parts.items():
            if part in name:
                found.append(parameter.requires_grad_(True))
    for informed, share in ((200, 0.2), (0, 1.0)):
        recipe = Recipe(learning_rate=1e-2, informed=informed)
        down, up = optimizer_of(wrapped, recipe).param_groups
        assert (down["lr"], up["lr"]) == (pytest.approx(share * 1e-2), 1e-2)
        assert [*map(id, down["params"])] == [*map(id, parts["lora_A"])]
        assert [*map(id, up["params"])] == [*map(id, parts["lora_B"])]
    wrapped.requires_grad_(False)


def test_training_lowers_the_loss(finished):
    from tests.distill.test_trainer import trainer

    from demur.distill.collate import Collator

    _, wrapped, _, _ = finished
    lessons = made_lessons(tiny("llama"), LESSONS)
    batch = Collator(lessons, 5)([{"lesson": number} for number in range(LESSONS)])
    with torch.no_grad():
        after = trainer().compute_loss(wrapped, batch).item()
        with wrapped.disable_adapter():
            before = trainer().compute_loss(wrapped, batch).item()
    assert after < 0.98 * before


def test_only_the_chosen_layers_are_trained(finished):
    _, wrapped, checkpoints, _ = finished
    from safetensors.torch import load_file

    adapter = load_file(checkpoints[-1] / "adapter_model.safetensors")
    assert adapter
    assert all(".layers.1." in name for name in adapter)
    assert all(bool(values.abs().sum() > 0) for values in adapter.values())
    base = {
        name.replace(".base_layer", ""): values
        for name, values in wrapped.base_model.model.state_dict().items()
        if "lora_" not in name
    }
    for name, values in tiny("llama").state_dict().items():
        assert torch.equal(values, base[name]), name


def test_frozen_layers_get_no_gradient(finished):
    from tests.distill.test_trainer import trainer

    from demur.distill.collate import Collator

    _, wrapped, _, _ = finished
    lessons = made_lessons(tiny("llama"), 4)
    entering: list[bool] = []
    handle = wrapped.base_model.model.model.layers[1].register_forward_pre_hook(
        lambda module, given: entering.append(given[0].requires_grad)
    )
    for name, parameter in wrapped.named_parameters():
        parameter.requires_grad_("lora_" in name)
    batch = Collator(lessons, 5)([{"lesson": number} for number in range(4)])
    trainer().compute_loss(wrapped, batch).backward()
    handle.remove()
    assert entering == [False, False]  # the prefix and the batch: nothing below needs a gradient
    for name, parameter in wrapped.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in name), name
    wrapped.zero_grad()
    wrapped.requires_grad_(False)


def test_a_killed_training_goes_on_to_the_same_weights(finished, tmp_path):
    folder = tmp_path / "training"
    victim = subprocess.run(
        [sys.executable, "-c", VICTIM, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert victim.returncode == -signal.SIGKILL, victim.stderr[-2000:]
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-3"]
    half = folder / "checkpoint-4"  # as if the kill had come while it was written
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    chat, narrator = student(), Quiet()
    lessons = made_lessons(chat.model, LESSONS)
    _, checkpoints = train(chat, lessons, RECIPE, folder, narrator)
    assert narrator.done[0] == 3
    assert sum(narrator.done) == 8
    assert not any("adapters begin" in line for line in narrator._early)  # they began before
    assert [weights(path) for path in checkpoints] == [weights(path) for path in finished[2]]


def test_a_finished_training_is_not_done_again(finished, monkeypatch):
    from demur.distill import train as room

    _, _, checkpoints, _ = finished
    monkeypatch.setattr(room, "trainer_of", None)  # would fail if it were called
    chat, narrator = student(), Quiet()
    lessons = made_lessons(chat.model, LESSONS)
    again = train(chat, lessons, RECIPE, checkpoints[0].parent, narrator)[1]
    assert again == checkpoints
    assert narrator.done == []


def test_incomplete_checkpoints_do_not_count(tmp_path):
    for step in (10, 9, 2):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "weights").write_text("w")
    (tmp_path / "checkpoint-10" / COMPLETE).touch()
    (tmp_path / "checkpoint-9" / COMPLETE).touch()
    names = [path.name for path in complete_checkpoints(tmp_path)]
    assert names == ["checkpoint-9", "checkpoint-10"]
    assert not (tmp_path / "checkpoint-2").exists()
    assert complete_checkpoints(tmp_path / "absent") == []


def test_numbers_that_are_no_numbers_are_an_error(tmp_path):
    chat = student()
    lessons = made_lessons(chat.model, 8)
    recipe = Recipe(rank=2, learning_rate=1e30, batch=2, micro_batch=2, checkpoints=1)
    narrator = Quiet()
    with pytest.raises(TrainingError, match=r"NaN|nan|inf") as caught:
        train(chat, lessons, recipe, tmp_path / "training", narrator)
    assert any("too few lessons to begin with" in line for line in narrator._early)
    assert "--learning-rate" in caught.value.remedy
    assert complete_checkpoints(tmp_path / "training") == []


def test_a_loss_that_is_no_number_is_an_error(tmp_path):
    chat = student()
    lessons = made_lessons(chat.model, 20)
    chat.model.model.norm.weight.data[0] = float("nan")
    recipe = Recipe(rank=2, batch=2, micro_batch=2, checkpoints=1)
    with pytest.raises(TrainingError, match="became nan at step 5"):
        train(chat, lessons, recipe, tmp_path / "training", Quiet())


def test_fewer_lessons_than_a_batch(tmp_path):
    chat = student()
    with pytest.raises(TrainingError, match="3 lessons, fewer than one batch of 4"):
        train(chat, made_lessons(chat.model, 3), RECIPE, tmp_path / "training", Quiet())


def test_the_order_of_lessons_is_fixed_by_the_seed_and_fair():
    lessons = [Lesson("refuse", (1,) * (1 + number % 37), (2,)) for number in range(203)]
    recipe = Recipe(batch=8, epochs=3)
    order = lesson_order(lessons, recipe)
    assert order == lesson_order(list(lessons), recipe)
    assert order != lesson_order(lessons, Recipe(batch=8, epochs=3, seed=1))
    assert len(order) == 3 * 200
    spreads = []
    for epoch in range(3):
        part = order[epoch * 200 : (epoch + 1) * 200]
        assert len(set(part)) == 200  # each lesson once, less the rest of the division
        for start in range(0, 200, 8):
            lengths = [len(lessons[index].prompt) for index in part[start : start + 8]]
            spreads.append(max(lengths) - min(lengths))
    assert sum(spreads) / len(spreads) < 12  # of 37: like goes with like
    assert order[:200] != order[200:400]


def test_both_kinds_are_mixed_all_along():
    lessons = [
        Lesson("refuse" if number < 160 else "keep", (1,) * (5 + number % 7), (2,))
        for number in range(320)
    ]
    order = lesson_order(lessons, Recipe(batch=32))
    for start in range(0, 320, 32):
        refusing = sum(lessons[index].kind == "refuse" for index in order[start : start + 32])
        assert 4 <= refusing <= 28


@pytest.mark.parametrize(
    ("depth", "first", "last", "expected"),
    [
        (4, 0.0, 1.0, [0, 1, 2, 3]),
        (4, 0.5, 1.0, [2, 3]),
        (4, 0.25, 0.5, [1]),
        (4, 0.95, 1.0, [3]),
        (4, 0.5, 0.5, [2]),
        (1, 0.9, 1.0, [0]),
    ],
)
def test_trained_layers(depth, first, last, expected):
    recipe = Recipe(first_layer=first, last_layer=last)
    assert trained_layers(depth, recipe) == expected


@pytest.mark.parametrize(
    ("batch", "allowed", "expected"), [(32, 16, 16), (32, 12, 8), (8, 16, 8), (7, 4, 1), (6, 4, 3)]
)
def test_a_step_is_divided_evenly(batch, allowed, expected):
    assert micro_batch(Recipe(batch=batch, micro_batch=allowed)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("phi3", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        ("gpt2", {"c_attn"}),
        ("gpt-neox", {"query_key_value"}),
    ],
)
def test_target_modules(name, expected):
    assert set(target_modules(tiny(name))) == expected


def test_an_architecture_without_projections_is_an_error():
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(hidden_size=16, num_hidden_layers=1, state_size=4))
    model.config.model_type = "unheard-of"
    with pytest.raises(TrainingError, match="architecture unheard-of"):
        target_modules(model)
