"""Training on logits: the student comes nearer to its teacher, and a kill changes nothing."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from tests.distill.students import Quiet, made_lessons, student
from tests.distill.test_logits import along
from tests.models.architectures import tiny

from demur.distill.deep import MOST, deep_lessons
from demur.distill.lessons import refusing_lessons
from demur.distill.objectives.logits import generalised_jsd
from demur.distill.train import Recipe, complete_checkpoints, distilled, train
from demur.models.generation import decode
from demur.prompts.types import Prompt

RECIPE = Recipe(
    rank=4,
    informed=0,
    first_layer=0.0,
    learning_rate=3e-2,
    batch=4,
    micro_batch=2,
    checkpoints=3,
    seed=3,
    on_policy=0.5,
    divergence=0.5,
    epochs=2,
)
COUNT = 24
HINT = (21, 22, 23, 24, 25)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(folder, recipe=RECIPE):
    chat = student()
    lessons = made_lessons(chat.model, COUNT)
    hinted = {
        index: (*HINT, *lesson.prompt)
        for index, lesson in enumerate(lessons)
        if lesson.kind == "refuse"
    }
    objective = distilled(chat, lessons, recipe, hinted)
    model, checkpoints = train(chat, lessons, recipe, folder, Quiet(), objective)
    return model, checkpoints, lessons, hinted


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    torch.set_num_threads(1)
    return trained(tmp_path_factory.mktemp("run") / "training")


def weights(checkpoint):
    return (checkpoint / "adapter_model.safetensors").read_bytes()


def test_the_student_comes_nearer_to_its_teacher(finished):
    model, _, lessons, hinted = finished
    base = tiny("llama")
    before, after = 0.0, 0.0
    with torch.no_grad():
        for index, prompt in hinted.items():
            lesson = lessons[index]
            teacher = along(base, prompt, lesson.answer)
            for one in ("before", "after"):
                asked = base if one == "before" else model
                found = along(asked, lesson.prompt, lesson.answer)
                price = generalised_jsd(found, teacher, 0.5).sum().item()
                before, after = (
                    (before + price, after) if one == "before" else (before, after + price)
                )
    assert after < 0.8 * before


def test_a_training_goes_on_from_a_checkpoint_to_the_same_weights(finished, tmp_path):
    _, checkpoints, *_ = finished
    steps = [int(path.name.split("-")[1]) for path in checkpoints]
    assert steps == [4, 8, 12]
    folder = tmp_path / "training"
    shutil.copytree(checkpoints[0], folder / checkpoints[0].name)
    torch.manual_seed(99)  # what another process happens to have drawn before
    _, again, *_ = trained(folder)
    assert [weights(path) for path in again] == [weights(path) for path in checkpoints]
    assert complete_checkpoints(folder) == again


def test_what_the_student_writes_now_matters(finished, tmp_path):
    _, checkpoints, *_ = finished
    _, other, *_ = trained(tmp_path / "training", replace(RECIPE, on_policy=0.0))
    assert weights(other[-1]) != weights(checkpoints[-1])


def test_deep_lessons_teach_to_refuse_from_within_an_answer(tmp_path):
    chat = student()
    prompts = [Prompt(f"Do harm number {number}.", "harmful") for number in range(16)]
    own = [
        decode(chat.model, [chat.encode(prompt.text)], MOST, frozenset())[0].tokens
        for prompt in prompts
    ]
    recipe = replace(RECIPE, rank=8, learning_rate=5e-2, micro_batch=4, epochs=6, checkpoints=1)
    surprise = {}
    for name in ("plain", "deep"):
        pupil = student()
        lessons = refusing_lessons(pupil, prompts, ["Sorry, no."])
        if name == "deep":
            lessons = deep_lessons(pupil, prompts, own, ["Sorry, no."], seed=1)
        model, _ = train(pupil, lessons, recipe, tmp_path / name, Quiet())
        with torch.no_grad():
            for depth in (0, 10):
                found = [
                    along(model, (*pupil.encode(prompt.text), *answer[:depth]), lesson.answer[:1])
                    for prompt, answer, lesson in zip(prompts, own, lessons, strict=True)
                ]
                chances = torch.cat(found).log_softmax(-1)[:, lessons[0].answer[0]]
                surprise[name, depth] = -chances.mean().item()
    assert max(surprise["plain", 0], surprise["deep", 0]) < 1.5
    assert surprise["plain", 10] > surprise["deep", 10] + 1.5
