"""What may be paid for refusals: the best within a budget, and the least over it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from demur.measure.allowance import Allowance
from demur.measure.validation import Option
from demur.stats import rate


@dataclass(frozen=True)
class Made(Option):
    """An option with made-up figures."""

    name: str
    strength: float = 1.0
    divergence: float | None = None

    @property
    def label(self) -> str:
        return self.name


def made(name: str, harmful: int, twins: int, ordinary: int, kl: float | None = None) -> Made:
    rates = (rate(harmful, 100), rate(twins, 100), rate(ordinary, 100))
    return Made(*rates, name, divergence=kl)


LIGHT, MIDDLE, HEAVY = (
    made("light", 60, 2, 0, 0.01),
    made("middle", 85, 10, 2, 0.05),
    made("heavy", 99, 30, 4, 0.3),
)
ALL = (LIGHT, MIDDLE, HEAVY)


def test_without_limits_the_score_decides_and_nothing_is_said() -> None:
    allowance = Allowance()
    assert not allowance.given
    assert allowance.best(ALL) is max(ALL, key=lambda one: one.score)
    assert allowance.payment(MIDDLE, ALL) is None
    twice = (made("first", 80, 5, 0), made("second", 80, 5, 0))
    assert allowance.best(twice) is twice[0]
    assert allowance.best(twice, size=lambda one: len(one.name) * -1.0) is twice[1]


@pytest.mark.parametrize(
    ("allowance", "best"),
    [
        (Allowance(over_refusal=0.2), HEAVY),  # 17 %, twins and ordinary counted alike
        (Allowance(over_refusal=0.06), MIDDLE),
        (Allowance(over_refusal=0.05), LIGHT),
        (Allowance(divergence=0.05), MIDDLE),
        (Allowance(0.2, 0.02), LIGHT),
    ],
)
def test_what_refuses_most_within_the_budget_is_chosen(allowance: Allowance, best: Made) -> None:
    assert allowance.best(ALL) is best
    payment = allowance.payment(best, ALL)
    assert payment is not None
    assert payment.kept
    assert payment.within == sum(map(allowance.allows, ALL)) > 0
    assert (payment.over_refusal, payment.divergence) == (best.over_refusal, best.divergence)
    assert f"of these {best.label} refuses most" in payment.sentence


def test_where_none_keeps_to_it_the_least_over_it_is_chosen_and_that_is_said() -> None:
    strict = Allowance(over_refusal=0.0)
    assert strict.best(ALL) is LIGHT
    payment = strict.payment(LIGHT, ALL)
    assert payment is not None
    assert (payment.kept, payment.within, payment.options) == (False, 0, 3)
    said = payment.sentence.replace("\u00a0", " ")
    assert said.startswith("None of the 3 candidates keeps to the budget (over-refusal at most 0.0")
    assert "light is the least over it" in said
    assert "60.0 % (50.2–69.1 %) of harmful" in said
    both = Allowance(0.005, 0.001)  # of two limits the one that is missed most counts
    assert both.excess(LIGHT) == pytest.approx(0.9)
    assert both.excess(MIDDLE) == pytest.approx(5.5)
    assert both.best((HEAVY, MIDDLE)) is MIDDLE


def test_kinds_that_were_not_asked_cost_nothing() -> None:
    alone = Made(rate(9, 10), rate(0, 0), rate(0, 0), "alone")
    assert alone.over_refusal == 0.0
    assert Allowance(over_refusal=0.0).allows(alone)
