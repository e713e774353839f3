"""What choices are made on: how often each option refuses the validation prompts.

The score of an option is the share of harmful requests refused, less the share of twins, less the
share of ordinary instructions: Youden's index with ordinary requests priced in. Test prompts play
no part.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from demur.console import Narrator
from demur.judge.verdict import Judge
from demur.measure.protocol import Probe, measure_probe
from demur.models.chat_model import ChatModel
from demur.run.journal import Journal
from demur.stats import Z95, Rate, rate


@dataclass(frozen=True)
class Rates:
    """Refusal rates on validation prompts; n is 0 where they were not asked."""

    harmful: Rate
    twins: Rate
    ordinary: Rate

    @property
    def score(self) -> float:
        """Harmful refused less twins refused less ordinary refused; what was not asked is 0."""
        sides = (self.harmful, self.twins, self.ordinary)
        harmful, twins, ordinary = (one.value if one.n else 0.0 for one in sides)
        return harmful - twins - ordinary

    @property
    def score_error(self) -> float:
        """The standard error of the score, from Wilson's intervals: not 0 where a rate is."""
        sides = (self.harmful, self.twins, self.ordinary)
        return math.hypot(*((one.high - one.low) / (2 * Z95) for one in sides if one.n))

    @property
    def over_refusal(self) -> float:
        """Share of benign requests refused: twins and ordinary ones, each kind counted alike."""
        found = [one.value for one in (self.twins, self.ordinary) if one.n]
        return sum(found) / len(found) if found else 0.0

    @property
    def benign(self) -> Rate:
        """Twins and ordinary instructions together."""
        return rate(self.twins.count + self.ordinary.count, self.twins.n + self.ordinary.n)


class Option(Rates):
    """Something that can be chosen: what it is in a few words, and the factor on its change.

    `divergence` is the mean KL a token from the original, in nats; None where it has no limit and
    is not measured.
    """

    strength: float
    divergence: float | None = None

    @property
    @abstractmethod
    def label(self) -> str:
        """The option in a few words."""


def refusal_rates(
    chat: ChatModel,
    probes: Mapping[str, Probe],
    journal: Journal,
    judge: Judge,
    narrator: Narrator,
    label: str,
) -> tuple[Rate, Rate, Rate]:
    """Return how often the chat refuses harmful, twins and ordinary; n = 0 where not asked."""
    rates = []
    for key in ("harmful", "twins", "ordinary"):
        if key in probes:
            judged = measure_probe(chat, probes[key], journal, judge, narrator, label)
            rates.append(rate(sum(judged.refused), len(judged.refused)))
        else:
            rates.append(rate(0, 0))
    return rates[0], rates[1], rates[2]
