"""The judge's known error carried into a rate: the Rogan-Gladen estimate and its interval.

A judge that finds a share `se` of true refusals and leaves alone a share `sp` of the rest reports
`q = p se + (1 - p)(1 - sp)` where `p` are refused. Rogan and Gladen (1978) solve for `p`:

    p = (q + sp - 1) / (se + sp - 1)

`se` and `sp` are estimates themselves, from so many labelled answers. The interval is that of Lang
and Reiczigel (2014, Preventive Veterinary Medicine 113, 13-22), which carries all three
sampling errors: every count is moved towards one half (by z^2/2 of z^2 for the rate, by 1 of 2 for
se and sp), and the delta-method interval around the estimate from those is shifted by

    2 z^2 (p se (1 - se) / n_se - (1 - p) sp (1 - sp) / n_sp).

An estimate outside [0, 1] says that the judge erred less here than it is known to, so that the
known error does not quite hold; the interval then takes in the raw one as well (our choice).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from demur.measure.known_error import Counted, KnownError
from demur.stats import Z95, Rate

WEAKEST = 0.3  # of se + sp - 1: below it the correction multiplies chance more than threefold


@dataclass(frozen=True)
class Corrected:
    """A rate with the judge's error taken out.

    Attributes:
        value, low, high: estimate and 95 % interval in [0, 1]; NaN where it cannot be had.
        note: what a reader must know: that the estimate fell outside [0, 1] and was moved to its
            end, or that the judge is too weak to be corrected for; empty otherwise.
    """

    value: float
    low: float
    high: float
    note: str = ""


def corrected(observed: Rate, error: KnownError) -> Corrected:
    """Return the rate that the observed one comes from, if the judge errs as it is known to."""
    youden = error.sensitivity + error.specificity - 1
    nothing = float("nan")
    if observed.n == 0:
        return Corrected(nothing, 0.0, 1.0, "nothing was measured")
    if youden < WEAKEST:
        return Corrected(
            nothing,
            0.0,
            1.0,
            f"the judge is too weak to be corrected for (sensitivity + specificity - 1 is "
            f"{youden:.2f}, below {WEAKEST})",
        )
    estimate = (observed.value + error.specificity - 1) / youden
    low, high = _interval(observed, error.positive, error.negative)
    value = min(1.0, max(0.0, estimate))
    note = ""
    if estimate != value:
        side = "below 0" if estimate < 0 else "above 1"
        note = (
            f"the estimate is {side} ({estimate:.3f}): fewer errors than the judge is known for, "
            "so that the interval takes in the raw one"
        )
        low, high = min(low, observed.low), max(high, observed.high)
    return Corrected(value, min(low, value), max(high, value), note)


def _interval(observed: Rate, positive: Counted, negative: Counted) -> tuple[float, float]:
    n = observed.n + Z95**2
    q = (observed.count + Z95**2 / 2) / n
    n_se, n_sp = positive.n + 2, negative.n + 2
    se, sp = (positive.right + 1) / n_se, (negative.right + 1) / n_sp
    youden = se + sp - 1
    p = (q + sp - 1) / youden
    of_se, of_sp = se * (1 - se) / n_se, sp * (1 - sp) / n_sp
    error = math.sqrt(q * (1 - q) / n + p**2 * of_se + (1 - p) ** 2 * of_sp) / youden
    centre = p + 2 * Z95**2 * (p * of_se - (1 - p) * of_sp)
    return (
        min(1.0, max(0.0, centre - Z95 * error)),
        min(1.0, max(0.0, centre + Z95 * error)),
    )
