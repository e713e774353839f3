"""What maps come to: mean effects over prompts, with bootstrap intervals, raw and normalised.

* indirect effect: restored minus corrupted margin, in nats (Meng et al. 2022, section 2.1, there
  of probabilities).
* normalised: the mean indirect effect divided by the mean total effect, clean minus corrupted: 0
  restores nothing, 1 all. A ratio of means, since single prompts with a small total effect would
  drown the mean of ratios; both are drawn anew together for the interval.

Prompts are what is drawn: the draws of noise of one prompt are averaged first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demur.stats import Mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

RESAMPLES, LEVEL = 2000, 95.0


@dataclass(frozen=True)
class Cell:
    """One cell of a map.

    Attributes:
        kind, layer, place: what was restored, where; the layer is the middle of a window.
        effect: indirect effect in nats.
        share: the same, normalised.
    """

    kind: str
    layer: int
    place: str
    effect: Mean
    share: Mean


def by_pair(values: Any, units: Sequence[int], pairs: int) -> Values:
    """Return (..., pairs) means over the units of each pair; NaN where all of them are.

    Args:
        values: (..., units).
        units: which pair each is of.
    """
    import numpy as np

    found = np.asarray(values, np.float64)
    owners = np.asarray(units)
    return np.stack([found[..., owners == pair].mean(-1) for pair in range(pairs)], -1)


def draws(n: int, seed: int = 0) -> Values:
    """Return (resamples, n) how often each of n prompts is in each bootstrap sample."""
    import numpy as np

    generator = np.random.default_rng(seed)
    return generator.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)


def mean_of(values: Any, seed: int = 0) -> Mean:
    """Return the mean of (prompts,) values with its bootstrap interval; NaN are left out."""
    import numpy as np

    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return Mean(float("nan"), float("nan"), float("nan"), 0)
    samples = draws(len(known), seed) @ known / len(known)
    return _mean(known.mean(), samples, len(known))


def ratio_of(above: Any, below: Any, seed: int = 0) -> Mean:
    """Return the ratio of two means over the same prompts, with its interval.

    Args:
        above, below: (prompts,); a prompt that has no value above is left out of both.
    """
    import numpy as np

    upper, lower = np.asarray(above, np.float64), np.asarray(below, np.float64)
    there = ~np.isnan(upper)
    upper, lower = upper[there], lower[there]
    if not len(upper) or not lower.sum():
        return Mean(float("nan"), float("nan"), float("nan"), len(upper))
    weights = draws(len(upper), seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        samples = weights @ upper / (weights @ lower)
    return _mean(upper.sum() / lower.sum(), samples, len(upper))


def _mean(value: float, samples: Values, n: int) -> Mean:
    import numpy as np

    known = samples[np.isfinite(samples)]
    edge = (100 - LEVEL) / 2
    low, high = np.percentile(known, [edge, 100 - edge]) if len(known) else (np.nan, np.nan)
    return Mean(float(value), float(low), float(high), n)


def cells_of(
    restored: Values,
    clean: Values,
    corrupted: Values,
    kinds: Sequence[str],
    places: Sequence[str],
    seed: int = 0,
) -> tuple[Cell, ...]:
    """Return all cells of a map, in the order of kinds, layers and places.

    Args:
        restored: (kinds, layers, places, pairs) margins.
        clean, corrupted: (pairs,) margins.
    """
    total = clean - corrupted
    return tuple(
        Cell(
            kind,
            layer,
            place,
            mean_of(restored[i, layer, j] - corrupted, seed),
            ratio_of(restored[i, layer, j] - corrupted, total, seed),
        )
        for i, kind in enumerate(kinds)
        for layer in range(restored.shape[1])
        for j, place in enumerate(places)
    )


@dataclass(frozen=True)
class Agreement:
    """How well an approximation agrees with what it approximates.

    Attributes:
        cells: how many are compared.
        correlation: Pearson's, of the mean effects.
        rank_correlation: Spearman's.
        top: of the `k` cells with the largest exact effects, the share that the approximation has
            among its own `k` largest.
        k: a tenth of the cells, at least 3.
        error: mean absolute difference, in nats.
        largest: the largest absolute exact effect, in nats, to hold the error against.
    """

    cells: int
    correlation: float
    rank_correlation: float
    top: float
    k: int
    error: float
    largest: float


def agreement(exact: Any, approximate: Any) -> Agreement:
    """Compare mean effects of the same cells; those that have none are left out."""
    import numpy as np

    one, other = (np.asarray(each, np.float64).ravel() for each in (exact, approximate))
    there = ~(np.isnan(one) | np.isnan(other))
    one, other = one[there], other[there]
    k = min(len(one), max(3, len(one) // 10))
    best = set(np.argsort(-one, kind="stable")[:k].tolist())
    named = set(np.argsort(-other, kind="stable")[:k].tolist())
    return Agreement(
        len(one),
        _correlation(one, other),
        _correlation(_ranks(one), _ranks(other)),
        len(best & named) / k if k else float("nan"),
        k,
        float(np.abs(one - other).mean()) if len(one) else float("nan"),
        float(np.abs(one).max()) if len(one) else float("nan"),
    )


def _correlation(one: Values, other: Values) -> float:
    import numpy as np

    if len(one) < 2 or not one.std() or not other.std():
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: Values) -> Values:
    import numpy as np

    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    return np.asarray(below + (counts - 1) / 2, np.float64)[places]
