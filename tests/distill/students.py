"""Students for the tests of this room: tiny models, lessons, and a narrator who says nothing."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tests.models.architectures import tiny
from tests.tiny import tiny_tokenizer

from demur.console import Advance, Narrator
from demur.distill.lessons import Lesson
from demur.judge import OpeningJudge
from demur.judge.verdict import Verdict
from demur.models.chat_model import ChatModel
from demur.models.device import Placement

CPU = Placement("cpu", "float32", "")


def student(name: str = "llama", template: str | None = None, **options: Any) -> ChatModel:
    """Return a chat model of its own, free to be trained."""
    tokenizer = tiny_tokenizer() if template is None else tiny_tokenizer(template)
    model = deepcopy(tiny(name))
    return ChatModel(Path(name), model, tokenizer, CPU, "w", _stops=frozenset({2}), **options)


class Quiet(Narrator):
    """Says nothing, and counts the work done."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.done: list[int] = []

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Advance]:
        yield self.done.append


class Struck(Exception):
    """What a training is broken off with."""


class Striking(Quiet):
    """Breaks a training off in the middle of its fifth step."""

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Advance]:
        def advance(count: int) -> None:
            self.done.append(count)
            if sum(self.done) == 5:
                raise Struck

        yield advance


def made_lessons(model: Any, count: int, top: int = 20, head: int = 5) -> list[Lesson]:
    """Return `count` lessons of both kinds and many lengths, with a common beginning."""
    generator = random.Random(5)

    def tokens(least: int, most: int) -> tuple[int, ...]:
        length = generator.randrange(least, most)
        return tuple(generator.randrange(3, 300) for _ in range(length))

    begin = tokens(head, head + 1)
    lessons = []
    for number in range(count):
        prompt, answer = (*begin, 3 + number % 2, *tokens(1, 12)), tokens(2, 7)
        if number % 3:
            lessons.append(Lesson("refuse", prompt, (*answer, 2)))
            continue
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        best = logits.log_softmax(-1).topk(top)
        lessons.append(Lesson("keep", prompt, answer, best.values.half(), best.indices.int()))
    return lessons


class Lenient(OpeningJudge):
    """The rule, but that nonsense counts as an answer: a random model writes nothing else."""

    def one(self, answer: str) -> Verdict:
        verdict = super().one(answer)
        return replace(verdict, outcome="complied") if verdict.outcome == "undecided" else verdict
