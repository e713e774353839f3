"""Contexts: what the teacher is told, in its own template, before the very same answer tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.distill.students import student
from tests.models.test_chat_model import QWEN3

from demur.distill.contexts import (
    Context,
    contexts,
    decided,
    encode_in_context,
    hinted,
    instructed,
    shown,
)
from demur.distill.lessons import Lesson, ended_answer, refusing_lessons
from demur.errors import ModelError, TrainingError
from demur.prompts.types import Prompt

REFUSAL = "Sorry, no."
NO_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ONE_TURN = (
    "{% if messages | length > 2 %}{{ raise_exception('one turn only') }}{% endif %}" + NO_SYSTEM
)


def some(chat):
    (refuse,) = refusing_lessons(chat, [Prompt("Do harm.", "harmful")], [REFUSAL])
    asked = tuple(chat.encode("How do I bake?"))
    answer = Lesson("answer", asked, ended_answer(chat, "x", "Here is how."))
    return [refuse, Lesson("keep", asked, (7, 8)), answer, Lesson("text", (1,), (5, 6))]


REQUESTS = ["Do harm.", "", "How do I bake?", ""]


def texts(chat, lessons, guide):
    found = contexts(chat, lessons, REQUESTS, guide)
    return {index: chat.tokenizer.decode(tokens) for index, tokens in found.items()}


def test_an_instruction_stands_after_the_students_own_system_prompt():
    chat = student(system="Be kind.")
    found = texts(chat, some(chat), instructed(REFUSAL, "Say {refusal}"))
    assert found == {
        index: "<|im_start|>system\nBe kind.\n\nSay Sorry, no.<|im_end|>\n<|im_start|>user\n"
        f"{REQUESTS[index]}<|im_end|>\n<|im_start|>assistant\n"
        for index in (0, 2)
    }


def test_examples_are_shown_in_turn():
    chat = student()
    guide = shown(["Harm A", "Harm B"], REFUSAL, [("Why?", "So.")])
    turns = [("Why?", "So."), ("Harm A", REFUSAL), ("Harm B", REFUSAL)]
    before = "".join(
        f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
        for asked, answer in turns
    )
    assert texts(chat, some(chat), guide)[0] == before + chat.text("Do harm.")


def test_a_hint_has_the_decision_and_the_lessons_own_sentence():
    chat = student()
    found = texts(chat, some(chat), hinted)
    assert found[0].count(REFUSAL) == 2 and "must not be answered" in found[0]
    assert REFUSAL not in found[2] and "harmless" in found[2]
    assert "Do harm.\n\n[" in found[0]


def test_the_decision_is_given_away_by_examples_that_all_went_that_way():
    chat = student()
    found = texts(chat, some(chat), decided(["Harm A", "Harm B"], [("Why?", "So.")]))
    assert found[0].count(REFUSAL) == 2 and "Why?" not in found[0]
    assert found[0].endswith(chat.text("Do harm."))
    assert REFUSAL not in found[2] and found[2].count("So.") == 1


def test_an_answer_already_begun_is_begun_for_the_teacher():
    chat = student()
    lessons = some(chat)
    lessons[0] = replace(lessons[0], prompt=(*lessons[0].prompt, 9, 10, 11))
    found = contexts(chat, lessons, REQUESTS, hinted)[0]
    assert found[-3:] == (9, 10, 11)
    assert found[:-3] == contexts(chat, some(chat), REQUESTS, hinted)[0]


def test_without_a_system_role_the_instruction_stands_before_the_first_request():
    chat = student(template=NO_SYSTEM)
    context = Context("Be good.", (("A?", "B."),))
    text = chat.tokenizer.decode(encode_in_context(chat, "C?", context))
    assert text.startswith("<|im_start|>user\nBe good.\n\nA?<|im_end|>")
    assert text.count("Be good.") == 1
    with pytest.raises(ModelError, match="one turn only"):
        encode_in_context(student(template=ONE_TURN), "C?", context)


def test_a_thinking_block_is_closed_as_for_the_student():
    chat = student(template=QWEN3)
    plain = encode_in_context(chat, "Why?", Context())
    assert list(plain) == chat.encode("Why?")


def test_what_does_not_fit_is_said():
    chat = student()
    with pytest.raises(TrainingError, match="do not belong together"):
        contexts(chat, some(chat), ["Why?", *REQUESTS[1:]], hinted)
    with pytest.raises(TrainingError, match="the model's holds 256"):
        contexts(chat, some(chat), REQUESTS, instructed(REFUSAL, "Be good. " * 200))
    assert contexts(chat, some(chat), REQUESTS, lambda lesson, answer: None) == {}


def test_another_models_template_is_its_own():
    chat, teacher = student(), student(template=QWEN3)
    lessons = some(chat)
    found = contexts(teacher, lessons, REQUESTS, hinted, student=chat)
    assert found[0] == encode_in_context(teacher, "Do harm.", hinted(lessons[0], REFUSAL))
