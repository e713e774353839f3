"""What a candidate does to all else: divergence on ordinary answers, and perplexity; kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from demur.errors import PromptError
from demur.graft.candidate import Candidate
from demur.run.journal import content_key

if TYPE_CHECKING:
    from demur.graft.workbench import Workbench
    from demur.measure.utility import Reference, Text
    from demur.models.chat_model import ChatModel
    from demur.run.journal import Answer, Journal

UNTOUCHED = Candidate(frozenset())


class Utility:
    """Measures candidates against the untouched recipient.

    Args:
        chat: the recipient, whose model `bench` moves.
        key: what the figures in the journal depend on, beside the candidate.
        answers: gives the untouched recipient's whole answers to ordinary prompts, when asked.
        text: for perplexity; by default the built-in passages.
        tokens: of the text.
    """

    def __init__(
        self,
        chat: ChatModel,
        bench: Workbench,
        journal: Journal,
        key: str,
        answers: Callable[[], list[Answer]],
        text: Text | None,
        tokens: int,
    ) -> None:
        self.chat, self.bench, self.journal, self.key = chat, bench, journal, key
        self.answers, self.text, self.tokens = answers, text, tokens

    def divergence(self, candidate: Candidate) -> float:
        """Return the mean KL a token from the untouched recipient along its ordinary answers.

        Raises:
            PromptError: there are no ordinary prompts.
        """
        from demur.measure.utility import divergence

        key = content_key("divergence", self.key, candidate.key)
        known = self.journal.fact(key)
        if known is None:
            reference = self._reference
            self.bench.move(candidate)
            values = divergence(self.chat, reference)
            known = sum(values) / len(values)
            self.journal.keep_fact(key, known)
        return float(known)

    def perplexity(self, candidate: Candidate) -> float:
        """Return the perplexity on plain text as a ratio to the untouched recipient's."""
        from demur.measure.utility import perplexity_ratio

        return perplexity_ratio(self._losses(UNTOUCHED), self._losses(candidate)).value

    def _losses(self, candidate: Candidate) -> list[float]:
        from demur.measure.utility import load_text, negative_log_likelihoods

        text = self.text or load_text(None)
        key = content_key("losses", self.key, candidate.key, text.content, self.tokens)
        known: list[float] | None = self.journal.fact(key)
        if known is None:
            self.bench.move(candidate)
            known = negative_log_likelihoods(self.chat, text, tokens=self.tokens)
            self.journal.keep_fact(key, known)
        return known

    @cached_property
    def _reference(self) -> Reference:
        from demur.measure.utility import make_reference

        answers = self.answers()
        if not answers:
            raise PromptError(
                "There are no ordinary prompts to measure divergence on.",
                "Give some, or leave the limit out.",
            )
        self.bench.move(None)
        return make_reference(self.chat, answers)
