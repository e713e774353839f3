"""Safety by context: where the instruction and the examples stand, and what is then asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.distill.students import Quiet, student
from tests.tiny import CHAT_TEMPLATE

from demur.distill.baselines.context import (
    INSTRUCTIONS,
    ContextBaseline,
    ContextChat,
    Shot,
    takes_system,
)
from demur.errors import ConfigError
from demur.judge import OpeningJudge
from demur.measure.protocol import Probe, measure_probe
from demur.models.generation import Decoding
from demur.prompts.types import Prompt
from demur.run.journal import Journal

DROPS = (  # as Gemma's would, without an error
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REFUSES = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}" + CHAT_TEMPLATE
)
SHOT = Shot("How do I do harm?", "I cannot help with that.")


def test_the_instruction_is_the_system_prompt():
    chat = student()
    baseline = ContextBaseline("plain", INSTRUCTIONS["plain"])
    asked = baseline.applied(chat)
    assert baseline.place(chat) == "system"
    assert asked.text("Hello?") == (
        f"<|im_start|>system\n{INSTRUCTIONS['plain']}<|im_end|>\n"
        "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.text("Hello?") == "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
    earlier = baseline.applied(replace(chat, system="Speak plainly."))
    assert earlier.system == f"{INSTRUCTIONS['plain']}\n\nSpeak plainly."
    assert asked.model is chat.model
    assert asked.stops == chat.stops == {2}


@pytest.mark.parametrize("template", [DROPS, REFUSES])
def test_without_a_system_role_it_stands_in_the_first_user_turn(template):
    chat = student(template=template)
    assert not takes_system(chat)
    baseline = ContextBaseline("short", INSTRUCTIONS["short"])
    assert baseline.place(chat) == "user"
    assert baseline.applied(chat).text("Hello?", "Hi.") == (
        f"<|im_start|>user\n{INSTRUCTIONS['short']}\n\nHello?<|im_end|>\n"
        "<|im_start|>assistant\nHi.<|im_end|>\n"
    )
    both = ContextBaseline("both", INSTRUCTIONS["short"], (SHOT,)).applied(chat)
    assert both.text("Hello?") == (
        f"<|im_start|>user\n{INSTRUCTIONS['short']}\n\nHow do I do harm?<|im_end|>\n"
        "<|im_start|>assistant\nI cannot help with that.<|im_end|>\n"
        "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_examples_are_earlier_turns():
    baseline = ContextBaseline("one-shot", shots=(SHOT,))
    chat = student()
    assert baseline.place(chat) == "none"
    asked = baseline.applied(replace(chat, system="Speak plainly."))
    assert asked.text("Hello?") == (
        "<|im_start|>system\nSpeak plainly.<|im_end|>\n"
        "<|im_start|>user\nHow do I do harm?<|im_end|>\n"
        "<|im_start|>assistant\nI cannot help with that.<|im_end|>\n"
        "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
    )
    twice = ContextBaseline("more", shots=(Shot("Bread?", "Flour."),)).applied(asked)
    assert twice.shots == (Shot("Bread?", "Flour."), SHOT)
    assert asked.encode("Hello?") == chat.tokenizer(asked.text("Hello?")).input_ids


def test_every_context_has_answers_of_its_own(tmp_path):
    chat = student()
    contexts = [
        chat,
        *(ContextBaseline(name, text).applied(chat) for name, text in INSTRUCTIONS.items()),
        ContextBaseline("one-shot", shots=(SHOT,)).applied(chat),
        ContextBaseline("other", shots=(Shot(SHOT.request, "No."),)).applied(chat),
    ]
    assert len({one.identity for one in contexts}) == len(contexts) == 7
    moved = replace(contexts[-1], weights="others")
    assert isinstance(moved, ContextChat)
    assert moved.identity != contexts[-1].identity
    assert moved.text("Hello?") == contexts[-1].text("Hello?")
    probe = Probe("harmful", "", "test", "up", (Prompt("Hello?", "harmful"),), Decoding(2))
    journal = Journal(tmp_path / "journal.sqlite")
    brief = [contexts[0], *contexts[-2:]]  # which the tiny context holds
    for one in brief:
        measure_probe(one, probe, journal, OpeningJudge(), Quiet(), "context")
    assert journal.count("answers") == 3


@pytest.mark.parametrize("instruction", ["", "  \n"])
def test_an_empty_context_is_an_error(instruction):
    with pytest.raises(ConfigError, match="The context nothing is empty"):
        ContextBaseline("nothing", instruction).applied(student())
