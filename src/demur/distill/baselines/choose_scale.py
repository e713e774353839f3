"""Picking how strongly a baseline is applied: on validation prompts, by the score of `choose`.

Every set of changes is tried at every scale, in memory, and the untouched model stands among the
candidates at a scale of 0, so that a treatment that makes nothing better is not applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from demur.measure.validation import Rates, refusal_rates
from demur.models.edits import changes_hash, edited, require_scale
from demur.run.journal import content_key

if TYPE_CHECKING:
    from demur.checkpoint.changes import Dense, LowRank
    from demur.console import Narrator
    from demur.judge.verdict import Judge
    from demur.measure.protocol import Probe
    from demur.models.chat_model import ChatModel
    from demur.run.journal import Journal

UNTOUCHED = "untouched"


@dataclass(frozen=True)
class ScaledCandidate(Rates):
    """One set of changes at one scale."""

    name: str
    scale: float

    @property
    def label(self) -> str:
        """The candidate in a few words."""
        return self.name if self.name == UNTOUCHED else f"{self.name}, scale {self.scale:g}"


def choose_scale(
    chat: ChatModel,
    treatments: Mapping[str, Mapping[str, LowRank | Dense]],
    scales: Sequence[float],
    probes: Mapping[str, Probe],
    journal: Journal,
    judge: Judge,
    narrator: Narrator,
) -> tuple[ScaledCandidate, list[ScaledCandidate]]:
    """Try every treatment at every scale, and the untouched model.

    Args:
        chat: the student; its weights are changed meanwhile, and are afterwards as before.
        treatments: changes at a scale of 1, by a name that tells them apart.
        scales: factors, none negative.
        probes: validation probes by key, from `measure.protocol.standard_probes`.

    Returns:
        The candidate with the highest score (the earlier one of equals, so that the untouched
        model and the smaller scale win ties), and all of them.

    Raises:
        ConfigError: a scale is negative.
        ModelError: changes do not fit the model.
    """
    for scale in scales:
        require_scale(scale)
    rates = refusal_rates(chat, probes, journal, judge, narrator, UNTOUCHED)
    tried = [ScaledCandidate(*rates, UNTOUCHED, 0.0)]
    for name, changes in treatments.items():
        known = changes_hash(changes)
        for scale in sorted(set(scales) - {0.0}):
            candidate = replace(chat, weights=content_key(chat.weights, known, scale))
            with edited(chat.model, changes, scale):
                rates = refusal_rates(
                    candidate, probes, journal, judge, narrator, f"{name} x{scale:g}"
                )
            tried.append(ScaledCandidate(*rates, name, scale))
    return max(tried, key=lambda one: one.score), tried
