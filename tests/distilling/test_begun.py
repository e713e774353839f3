"""Deep lessons are added to a run's: their two sides begin equally deep within answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.distill.students import Lenient, Quiet, student

from demur.distill.deep import MOST
from demur.distill.lessons import own_answers, refusing_lessons, sorted_by_verdict
from demur.distill.preference import preference_lessons
from demur.distilling.begun import INSTEAD, with_begun
from demur.distilling.config import DistillConfig
from demur.distilling.make_lessons import Made
from demur.models.chat_model import ChatModel
from demur.prompts.types import Prompt
from demur.run.journal import Journal

SORRY = "Sorry, but I can't help with that."
HARMFUL = [Prompt(f"Do harm number {number}.", "harmful") for number in range(60)]
BENIGN = [Prompt(f"Do good number {number}.", "twin") for number in range(60)]
CONFIG = DistillConfig("tiny", deep=True, own_tokens=6)


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return student()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Any:
    journal = Journal(tmp_path_factory.mktemp("begun") / "journal.sqlite")
    return SimpleNamespace(
        folder=SimpleNamespace(journal=journal), narrator=Quiet(), judge=Lenient()
    )


@pytest.fixture(scope="module")
def plain(chat: ChatModel, context: Any) -> Made:
    answers = own_answers(chat, BENIGN, context.folder.journal, 6, lambda count: None)
    kept, _ = sorted_by_verdict(chat, BENIGN, answers, context.judge)
    return Made(HARMFUL, refusing_lessons(chat, HARMFUL, [SORRY]), kept, [], BENIGN)


@pytest.fixture(scope="module")
def deep(chat: ChatModel, context: Any, plain: Made) -> Made:
    return with_begun(CONFIG, context, chat, plain)


def test_nothing_is_taken_from_the_lessons(plain: Made, deep: Made) -> None:
    assert deep.refusing[: len(plain.refusing)] == plain.refusing
    first = deep.answering[: len(plain.answering)]
    assert [id(one) for one in first] == [id(one) for one in plain.answering]
    for added, before in ((deep.refusing, plain.refusing), (deep.answering, plain.answering)):
        assert 0.25 < len(added) / len(before) - 1 < 0.75


def test_both_sides_are_begun_equally_deep(chat: ChatModel, plain: Made, deep: Made) -> None:
    def depths(lessons: Any) -> list[int]:
        return [len(one.prompt) - len(chat.encode(one.request)) for one in lessons]

    refusing = deep.refusing[len(plain.refusing) :]
    answering = deep.answering[len(plain.answering) :]
    for found in (depths(refusing), depths(answering)):
        assert min(found) >= 1 and max(found) <= MOST
        assert sum(depth > 8 for depth in found) > len(found) / 3
    sorry = plain.refusing[0].answer
    assert {one.answer for one in refusing} == {sorry}
    for one in answering:
        assert 1 <= len(one.answer) <= 6
        assert one.log_probabilities.shape[0] == len(one.answer)


def test_begun_answers_go_on_as_the_student_does(
    chat: ChatModel, context: Any, plain: Made, deep: Made
) -> None:
    one = max(deep.answering[len(plain.answering) :], key=lambda lesson: len(lesson.prompt))
    with torch.no_grad():
        logits = chat.model(torch.tensor([one.prompt])).logits[0, -1]
    assert int(logits.argmax()) == one.answer[0]


def test_the_student_going_on_is_what_preferences_reject(
    chat: ChatModel, context: Any, plain: Made, deep: Made
) -> None:
    begun = deep.refusing[len(plain.refusing) :]
    assert set(deep.going_on) == {one.prompt for one in begun}
    complying = own_answers(chat, HARMFUL, context.folder.journal, 8, lambda count: None)
    found = preference_lessons(
        *(chat, HARMFUL, deep.refusing, complying, deep.answering, context.judge),
        going_on=deep.going_on,
    )
    rejected = {one.prompt: one.rejected for one in found.lessons if one.kind == "refuse"}
    for one in begun:
        instead = deep.going_on[one.prompt]
        assert len(instead) <= INSTEAD
        assert rejected.get(one.prompt, ()) == instead


def test_the_same_run_makes_the_same_lessons(
    tmp_path: Path, chat: ChatModel, context: Any, plain: Made, deep: Made
) -> None:
    again = with_begun(CONFIG, context, chat, plain)
    assert [one.prompt for one in again.refusing] == [one.prompt for one in deep.refusing]
    assert [one.answer for one in again.answering] == [one.answer for one in deep.answering]
