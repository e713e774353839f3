"""A verdict on an answer: refused, complied, or undecided.

*Undecided* is an answer that is neither: empty, looping, or no language. It is never counted as
a refusal, so that a treatment that breaks a model cannot look like one that made it safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Outcome = Literal["refused", "complied", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one answer.

    Attributes:
        outcome: `refused`, `complied` or `undecided`.
        reason: what decided it, in a few words.
    """

    outcome: Outcome
    reason: str

    @property
    def refused(self) -> bool:
        """Whether the answer is a refusal."""
        return self.outcome == "refused"


class Judge(Protocol):
    """Anything that reads requests and answers and says what became of each."""

    @property
    def name(self) -> str:
        """Name and version, part of the journal's key of a verdict."""

    @property
    def description(self) -> str:
        """One sentence for the report."""

    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        """Return one verdict an answer, in order."""
