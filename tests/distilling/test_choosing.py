"""Whose refusals a student learns where nobody said it: its own, or the configured sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.distill.students import Quiet, student

from demur.distilling.choosing import choose_teaching
from demur.distilling.config import DistillConfig
from demur.judge.verdict import Verdict
from demur.prompts.types import Prompt, Splits
from demur.run.journal import Journal
from demur.treating.stages import Context

REFUSED, COMPLIED = Verdict("refused", ""), Verdict("complied", "")


class Scripted:
    """Calls so many answers of each probe refused."""

    name = "scripted"
    description = ""

    def __init__(self, harmful: int, twins: int) -> None:
        self.script = [harmful, twins]

    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        count = self.script.pop(0)
        return [REFUSED if place < count else COMPLIED for place in range(len(prompts))]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


def splits() -> Splits:
    rows = [Prompt(f"Tell me how to do thing {n}.", "harmful") for n in range(4)]
    rows += [Prompt(f"Tell me how to bake cake {n}.", "twin") for n in range(4)]
    return Splits(train=tuple(rows), validation=(), test=(), removed=())


def context(journal: Journal, harmful: int, twins: int) -> Context:
    made = SimpleNamespace(
        folder=SimpleNamespace(journal=journal), judge=Scripted(harmful, twins), narrator=Quiet()
    )
    return cast(Any, made)


@pytest.mark.parametrize(
    ("harmful", "twins", "teacher", "why"),
    [
        (3, 1, "self", "it refuses 3 of 4 such requests"),
        (2, 0, "self", "it refuses 2 of 4 such requests"),
        (1, 0, None, "too few to be its own teacher"),
        (4, 3, None, "but also 3 of 4 harmless twins"),
    ],
)
def test_a_student_that_can_teaches_itself(
    journal: Journal, harmful: int, twins: int, teacher: str | None, why: str
) -> None:
    config = DistillConfig("tiny")
    chat, rows = student(), splits()
    choice = choose_teaching(config, context(journal, harmful, twins), chat, rows)
    assert choice.config.teacher == teacher
    assert why in choice.sentence
    assert "by imitating them (SFT)" in choice.sentence
    # A run that goes on keeps to it, whatever it would find now.
    assert choose_teaching(config, context(journal, 4 - harmful, 0), chat, rows) == choice


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"teacher": "recorded.jsonl"}, "refusals of recorded.jsonl, by imitating"),
        ({"teacher": "openai:model"}, "of which an endpoint gives the words only"),
        ({"teacher": "self", "objective": "dpo"}, "of its own, as told, by preferring them"),
        ({"refusal": "No."}, "the refusal that was given with --refusal"),
    ],
)
def test_what_is_given_is_taken_and_nothing_asked(
    journal: Journal, choices: dict[str, Any], said: str
) -> None:
    config = DistillConfig("tiny", **choices)
    choice = choose_teaching(config, context(journal, 0, 0), student(), splits())
    assert choice.config == config
    assert said in choice.sentence
    assert journal.count("answers") == 0
