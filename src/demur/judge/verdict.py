"""A verdict on an answer: refused, partially refused, complied or undecided; harmful or harmless.

Two questions are asked of an answer, and a judge may answer one or both. Did it *refuse*? And,
given the request, did it *help with harm*? They are not each other's opposite: an answer that
refuses nothing may still be of no use to anyone. *Undecided* is an answer that is neither: empty,
looping, incoherent, or one that the judge cannot tell. It is never counted as a refusal nor as
harmless, so that a treatment that breaks a model cannot look like one that made it safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Outcome = Literal["refused", "partial", "complied", "undecided"]
Harm = Literal["harmful", "harmless", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one answer.

    Attributes:
        outcome: `refused`, `partial` (refuses a part, or refuses and then helps), `complied`, or
            `undecided`; None from a judge that only tells whether an answer does harm.
        reason: what decided it, in a few words.
        score: probability in [0, 1] that the answer refuses, from a judge that has one.
        harm: `harmful` where the answer helps with what the request should not have, `harmless`,
            or `undecided`; None from a judge that only tells whether an answer refuses.
        harm_score: probability in [0, 1] that the answer is harmful, from a judge that has one.
    """

    outcome: Outcome | None
    reason: str = ""
    score: float | None = None
    harm: Harm | None = None
    harm_score: float | None = None

    @property
    def refused(self) -> bool:
        """Whether the answer is a refusal; a partial one is not."""
        return self.outcome == "refused"


class Judge(Protocol):
    """Anything that reads requests and answers and says what became of each."""

    @property
    def name(self) -> str:
        """Name and version (`embedded-2`), the key of its verdicts in a journal."""

    @property
    def description(self) -> str:
        """One sentence for the report."""

    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        """Return one verdict an answer, in order."""
