"""What a number of prompts can show at all, and what remains when many models are compared.

* `detectable_unpaired`: the smallest difference of two rates on separate prompts that a test at
  5 % finds four times out of five, `(z_a + z_b) sqrt(2 p (1 - p) / n)`, with `p` the rate compared
  with (Fleiss, Levin and Paik 2003, chapter 4). It is the conservative form.
* `detectable_paired`: the same for two models on the same prompts, by McNemar's test. With a share
  `d` of prompts on which they disagree, n prompts find a difference `x` (Connor 1987, Biometrics
  43, 207-211) where `n x^2 >= (z_a sqrt(d) + z_b sqrt(d - x^2))^2`. `d` is the share seen, but
  never below `x` itself, since a difference cannot be larger than the disagreement; and with fewer
  than six disagreements the exact test is never below 5 %, so that less than 6 / n never shows.
* `holm`: p-values adjusted for that many models are compared with one (Holm 1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from demur.stats import Z95

Z80 = 0.8416212335729143  # of power 80 %


FEWEST = 6  # disagreements, all on one side, at which McNemar's exact p is below 0.05


def detectable_unpaired(n: int, p: float = 0.5) -> float:
    """Return the smallest difference, in [0, 1], that two samples of `n` each would show.

    Args:
        n: prompts a model.
        p: the rate compared with; near 0 or 1 it is taken as 1 / (n + 1) from the end, where the
            normal form would promise too much.
    """
    if n == 0:
        return 1.0
    inside = min(max(p, 1 / (n + 1)), n / (n + 1))
    return min(1.0, (Z95 + Z80) * math.sqrt(2 * inside * (1 - inside) / n))


def detectable_paired(n: int, disagree: float) -> float:
    """Return the smallest difference, in [0, 1], that `n` pairs would show.

    Args:
        n: prompts that both models were asked.
        disagree: the share of prompts on which exactly one of them refused, in [0, 1].
    """
    if n < FEWEST:
        return 1.0
    low, high = FEWEST / n, 1.0
    if not _shows(n, high, disagree):
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _shows(n, middle, disagree) else (middle, high)
    return high


def _shows(n: int, difference: float, disagree: float) -> bool:
    share = min(1.0, max(disagree, difference))
    spread = max(0.0, share - difference**2)
    needed = (Z95 * math.sqrt(share) + Z80 * math.sqrt(spread)) ** 2
    return n * difference**2 >= needed


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, worst)
    return adjusted
