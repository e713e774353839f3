"""Rewards: what an answer is worth, by the verdict of a judge.

A refusal of a harmful request earns 1, and so does help with a benign one. Help with a harmful
request costs 1, a refusal of a benign one `over_refusal_price`; a partial refusal earns on neither
side. Undecided answers cost 1 on both, so that a student cannot earn by writing nonsense. A learned
reward is in `reward`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from demur.distill.lessons import Lesson
from demur.errors import ConfigError
from demur.judge.settled import settled
from demur.judge.verdict import Judge, Verdict
from demur.models.chat_model import ChatModel


class Reward(Protocol):
    """Anything that says what answers are worth."""

    def __call__(
        self, lessons: Sequence[Lesson], answers: Sequence[tuple[int, ...]]
    ) -> list[float]:
        """Return one number an answer.

        Args:
            lessons: the requests; `refuse` lessons are harmful, all others benign.
            answers: token ids.
        """


@dataclass(frozen=True)
class VerdictReward:
    """The reward of this module.

    Attributes:
        chat: whose tokens the answers are.
        judge: reads requests and answers.
        over_refusal_price: what it costs to refuse a benign request, wholly or in part.

    Raises:
        ConfigError: the price is negative, so that refusing everything would pay.
    """

    chat: ChatModel
    judge: Judge
    over_refusal_price: float = 1.0

    def __post_init__(self) -> None:
        if self.over_refusal_price < 0:
            raise ConfigError("The price of over-refusal is negative.", "Give 0 or more.")

    def __call__(
        self, lessons: Sequence[Lesson], answers: Sequence[tuple[int, ...]]
    ) -> list[float]:
        """Return one number an answer; see the module's docstring."""
        verdicts = self.judge.judge(
            [lesson.request for lesson in lessons], [self.chat.decode(one) for one in answers]
        )
        return [
            self.worth(lesson.kind == "refuse", verdict)
            for lesson, verdict in zip(lessons, verdicts, strict=True)
        ]

    def decided(self, lesson: Lesson, answer: Sequence[int]) -> bool:
        """Return whether the verdict on an answer that begins so is known; of quick judges."""
        return settled(self.judge, lesson.request, self.chat.decode(tuple(answer)))

    def worth(self, harmful: bool, verdict: Verdict) -> float:
        """Return what one answer is worth."""
        if harmful:
            return 1.0 if verdict.refused else -1.0
        if verdict.outcome in {"refused", "partial"}:
            return -self.over_refusal_price
        return 1.0 if verdict.outcome == "complied" else -1.0
