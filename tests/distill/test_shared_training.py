"""A training shared by two processes: whole weights and answers drawn in training, over gloo."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.distill.students import Quiet, Striking, Struck, made_lessons, student
from tests.distill.test_policy import lessons_for, objective
from tests.distill.test_train import one_thread  # noqa: F401
from tests.processes import together

from demur.distill import whole
from demur.distill.lessons import Lesson
from demur.distill.recipe import Recipe
from demur.distill.steps import complete_checkpoints
from demur.distill.train import distilled, train
from demur.run.processes import launched

FULL = Recipe(
    full=True, first_layer=0.5, learning_rate=3e-3, batch=8, micro_batch=4, checkpoints=2, seed=3
)
LOGITS = replace(
    FULL, full=False, rank=2, informed=0, batch=4, micro_batch=2, checkpoints=3, objective="logits"
)
RLOO = replace(FULL, batch=6, micro_batch=3, objective="rloo", checkpoints=1)
BOTH = "import sys; from tests.distill.test_shared_training import both; both(sys.argv[1])"


def with_texts(model: Any) -> list[Lesson]:
    """Return lessons, and two texts outside a chat."""
    lessons = made_lessons(model, 33)
    kept = [one for one in lessons if one.kind == "keep" and len(one.answer) == 4][:1]
    return [*lessons, *(replace(one, kind="text", prompt=one.prompt[-1:]) for one in kept * 2)]


def fully(folder: Path) -> list[Path]:
    chat = student()
    found: list[Path] = train(chat, with_texts(chat.model), FULL, folder, Quiet())[1]
    return found


def hinted(folder: Path, narrator: Quiet) -> Any:
    chat = student()
    lessons = made_lessons(chat.model, 33)
    contexts = {place: (21, 22, *one.prompt) for place, one in enumerate(lessons)}
    made = distilled(chat, lessons, LOGITS, contexts)
    return train(chat, lessons, LOGITS, folder, narrator, made)[0]


def both(place: str) -> None:
    """Be one of two processes: train, and keep what this one came to."""
    torch.set_num_threads(1)
    folder, rank = Path(place), launched().rank
    fully(folder / "full")
    model = hinted(folder / "logits", Quiet())
    with pytest.raises(Struck):
        hinted(folder / "broken", Striking())
    hinted(folder / "broken", Quiet())
    chat = student()
    lessons = lessons_for(chat, folder / f"lessons-{rank}")
    drawn: list[Any] = []
    reward = objective(chat, lessons).reward

    def heard(rows: Any, answers: Any) -> Any:
        drawn.extend(answers)
        return reward(rows, answers)

    made = objective(chat, lessons, reward=heard)
    train(chat, lessons, RLOO, folder / "rloo", Quiet(), made)
    weights = {f"rloo {name}": one.clone() for name, one in chat.model.named_parameters()}
    weights |= {f"logits {name}": one.clone() for name, one in model.named_parameters()}
    save_file(weights, folder / f"rank-{rank}.safetensors")
    print(sorted(drawn))
    launched().part(on_cpu=True)
    sys.exit(0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    for rank in range(2):
        (folder / f"lessons-{rank}").mkdir()
    ended = together(folder, "-c", BOTH, str(folder))
    assert [one.returncode for one in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    return folder, ended


def test_whole_weights_are_those_of_one_process(shared, tmp_path):
    folder, _ = shared
    expected, found = fully(tmp_path / "alone"), complete_checkpoints(folder / "full")
    assert [path.name for path in found] == [path.name for path in expected]
    for one, two in zip(expected, found, strict=True):
        mine, theirs = (load_file(path / whole.WEIGHTS) for path in (one, two))
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            assert torch.allclose(tensor, theirs[name], rtol=1e-3, atol=3e-5), name


def test_both_hold_the_same_weights_and_draw_other_answers(shared):
    folder, ended = shared
    first, second = (load_file(folder / f"rank-{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(one, second[name]) for name, one in first.items())
    assert any("lora_B" in name and bool(one.any()) for name, one in first.items())
    assert ended[0].stdout != ended[1].stdout
    assert ended[0].stdout.startswith("[(")


def test_an_interrupted_training_of_two_goes_on_to_the_same_weights(shared):
    folder, _ = shared
    expected, found = (complete_checkpoints(folder / name) for name in ("logits", "broken"))
    assert [path.name for path in found] == ["checkpoint-3", "checkpoint-6", "checkpoint-8"]
    for one, two in zip(expected, found, strict=True):
        mine, theirs = (path / "adapter_model.safetensors" for path in (one, two))
        assert mine.read_bytes() == theirs.read_bytes()
