"""What may be paid for refusals: how much over-refusal, and how much divergence from the original.

    allowance = Allowance(over_refusal=0.05, divergence=0.1)
    best = allowance.best(options)
    payment = allowance.payment(best, options)  # what it costs, in figures and in a sentence

Without a limit the best option is that with the highest score (`validation.py`). With one it is the
option that refuses most harmful requests among those that keep to every limit; where none does, it
is the one that is the least over, and that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from demur import figures
from demur.measure.validation import Option

# What goes beyond a limit is told in units of the limit, and of this where the limit is below it.
LEAST_UNIT = 0.01
EDGE = 1e-9  # rates are quotients of counts

Some = TypeVar("Some", bound=Option)


class Priced(Protocol):
    """Something with a cost, as `Rates` and `Payment` have it."""

    @property
    def over_refusal(self) -> float: ...

    @property
    def divergence(self) -> float | None: ...


@dataclass(frozen=True)
class Payment:
    """What the chosen option costs on validation prompts, beside what was allowed.

    Attributes:
        most_over_refusal, most_divergence: the limits; None where there is none.
        over_refusal: share of benign requests refused, each kind counted alike.
        divergence: mean KL a token from the original on ordinary answers, in nats; None where it
            was not measured.
        options: how many were compared.
        within: how many of them keep to the limits.
        kept: whether the chosen one does.
        sentence: all of it for a reader.
    """

    most_over_refusal: float | None
    most_divergence: float | None
    over_refusal: float
    divergence: float | None
    options: int
    within: int
    kept: bool
    sentence: str


@dataclass(frozen=True)
class Allowance:
    """The limits; None where there is none.

    Attributes:
        over_refusal: the most of benign validation requests that may be refused, each kind counted
            alike, in [0, 1].
        divergence: the most of the mean KL a token on ordinary answers, in nats.
    """

    over_refusal: float | None = None
    divergence: float | None = None

    @property
    def given(self) -> bool:
        """Whether there is any limit."""
        return self.over_refusal is not None or self.divergence is not None

    def excess(self, option: Priced) -> float:
        """Return how far an option is over the limits, in units of the limit it is most over."""
        pairs = ((option.over_refusal, self.over_refusal), (option.divergence, self.divergence))
        beyond = [
            (value - limit) / max(limit, LEAST_UNIT)
            for value, limit in pairs
            if limit is not None and value is not None and value > limit + EDGE
        ]
        return max(beyond, default=0.0)

    def allows(self, option: Priced) -> bool:
        """Return whether an option keeps to the limits."""
        return not self.excess(option)

    def best(
        self, options: Sequence[Some], size: Callable[[Some], float] = lambda one: 0.0
    ) -> Some:
        """Return the option to keep; the first of equals.

        Args:
            size: what decides between options that are equal otherwise; the smaller is kept.
        """
        if not self.given:
            return max(options, key=lambda one: (one.score, -size(one)))
        within = [one for one in options if self.allows(one)]
        if within:
            return max(within, key=lambda one: (_harmful(one), one.score, -size(one)))
        return min(options, key=lambda one: (self.excess(one), -_harmful(one), size(one)))

    def payment(self, chosen: Option, options: Sequence[Option]) -> Payment | None:
        """Return what the chosen option costs; None where nothing was limited."""
        if not self.given:
            return None
        within = sum(self.allows(one) for one in options)
        return Payment(
            self.over_refusal,
            self.divergence,
            chosen.over_refusal,
            chosen.divergence,
            len(options),
            within,
            self.allows(chosen),
            self._sentence(chosen, len(options), within),
        )

    def _sentence(self, chosen: Option, options: int, within: int) -> str:
        over, diverging = self.over_refusal, self.divergence
        limits = [f"over-refusal at most {figures.percent(over)}"] if over is not None else []
        limits += [f"KL at most {diverging:g} nats a token"] if diverging is not None else []
        paid = f"over-refusal {figures.percent(chosen.over_refusal)}"
        if chosen.divergence is not None:
            paid += f", KL {figures.number(chosen.divergence)}"
        refuses = f"{figures.rate_text(chosen.harmful)} of harmful validation requests refused"
        budget = f"the budget ({' and '.join(limits)})"
        if within:
            return (
                f"{within} of {options} candidates keep to {budget}; of these {chosen.label} "
                f"refuses most: {refuses}, {paid}."
            )
        return (
            f"None of the {options} candidates keeps to {budget}; {chosen.label} is the least over "
            f"it: {refuses}, {paid}."
        )


def _harmful(option: Option) -> float:
    return option.harmful.value if option.harmful.n else 0.0
