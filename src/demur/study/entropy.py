"""How uniform a source's refusals are, from how often each pattern occurs.

A source that refuses seldom shows fewer patterns than it has, so that no figure here is left as
counted. With n refusals in K patterns, n_i of each, and p_i = n_i / n:

* entropy, H = -sum p_i log2 p_i, in bits: the plug-in estimate, too low by about (K - 1) / 2n nats.
* Miller-Madow adds exactly that (Miller 1955).
* Chao-Shen (2003) weighs by the coverage C = 1 - f1 / n, f1 patterns having been seen once, and
  divides each term by the chance of having been seen at all: right where many are unseen.
* rarefied to m refusals: the expected plug-in entropy (and number of patterns, Hurlbert 1971) of m
  refusals drawn without replacement, exactly, by the hypergeometric distribution. With the same m
  for all sources, sources with different numbers of refusals can be compared.
* **uniformity**, U = 1 - H_m / log2 m, of the rarefied entropy: 1 where all m are alike, 0 where no
  two are. This is the figure that the premise is tested with.
* alike: the chance that two different refusals are of the same pattern, sum n_i (n_i - 1) /
  n (n - 1) (Simpson 1949): unbiased at every n, and so the check on all others.
* evenness, H / log2 K (Pielou 1966): how evenly the patterns seen are used, whatever their number;
  it has no value where there is one pattern only.

Intervals are percentile bootstraps over refusals, shifted so that their mean is the estimate:
resampling loses rare patterns, and would else put the whole interval too low.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Uniformity:
    """How uniform one source's refusals are in one kind of pattern; entropies are in bits.

    Attributes:
        n: refusals.
        kinds: different patterns seen.
        rarefied_to: m, the number that rarefied figures are for.
        entropy: the plug-in estimate, uncorrected.
        miller_madow, chao_shen: corrected for what was not seen.
        rarefied: expected entropy of m refusals.
        richness: expected number of different patterns among m refusals.
        uniformity: 1 - rarefied / log2 m.
        alike: the chance that two refusals are of one pattern.
        evenness: entropy / log2 kinds; None where there is one kind.
    """

    n: int
    kinds: int
    rarefied_to: int
    entropy: float
    miller_madow: Estimate
    chao_shen: Estimate
    rarefied: Estimate
    richness: float
    uniformity: Estimate
    alike: Estimate
    evenness: float | None


def entropy(counts: Sequence[int]) -> float:
    """Return the plug-in entropy in bits; 0 for nothing."""
    return float(_entropies(_rows(counts))[0])


def miller_madow(counts: Sequence[int]) -> float:
    """Return the Miller-Madow estimate in bits."""
    return float(_miller_madow(_rows(counts))[0])


def chao_shen(counts: Sequence[int]) -> float:
    """Return the Chao-Shen estimate in bits; where every pattern was seen once, C is taken as 1/n.

    Without that, coverage would be estimated as zero, and the estimate as infinite.
    """
    return float(_chao_shen(_rows(counts))[0])


def alike(counts: Sequence[int]) -> float:
    """Return the chance that two different refusals are of one pattern; NaN for fewer than two."""
    return float(_alike(_rows(counts))[0])


def rarefied_entropy(counts: Sequence[int], size: int) -> float:
    """Return the expected plug-in entropy, in bits, of `size` refusals drawn from these.

    Raises:
        ValueError: `size` is not between 1 and their number.
    """
    table = _table(sum(counts), size, _surprise)
    return float(sum(table[count] for count in counts))


def rarefied_richness(counts: Sequence[int], size: int) -> float:
    """Return the expected number of different patterns among `size` refusals drawn from these.

    Raises:
        ValueError: as `rarefied_entropy`.
    """
    table = _table(sum(counts), size, lambda share: float(share > 0))
    return float(sum(table[count] for count in counts))


def uniformity(counts: Sequence[int], size: int, seed: int = 0) -> Uniformity:
    """Return all figures on patterns that occurred so often, rarefied to `size` refusals.

    Raises:
        ValueError: `size` is not between 2 and the number of refusals.
    """
    import numpy

    n = sum(counts)
    if not 2 <= size <= n:
        raise ValueError("uniformity is rarefied to between two and all refusals")
    observed = _rows(counts)
    drawn = numpy.random.default_rng(seed).multinomial(
        n, numpy.asarray(counts, dtype=float) / n, size=RESAMPLES
    )
    surprises = numpy.asarray(_table(n, size, _surprise))
    most = math.log2(size)

    def estimate(of: Callable[[Any], Any], least: float, limit: float) -> Estimate:
        return _shifted(float(of(observed)[0]), of(drawn), least, limit)

    rarefied = estimate(lambda rows: surprises[rows].sum(1), 0.0, most)
    plain = float(_entropies(observed)[0])
    kinds = sum(count > 0 for count in counts)
    return Uniformity(
        n,
        kinds,
        size,
        plain,
        estimate(_miller_madow, 0.0, math.inf),
        estimate(_chao_shen, 0.0, math.inf),
        rarefied,
        rarefied_richness(counts, size),
        Estimate(*(_left(part / most) for part in (rarefied.value, rarefied.high, rarefied.low))),
        estimate(_alike, 0.0, 1.0),
        plain / math.log2(kinds) if kinds > 1 else None,
    )


def _left(share: float) -> float:
    """Return what a share leaves of one, in [0, 1] however it was rounded."""
    return min(1.0, max(0.0, 1 - share))


def _shifted(value: float, resampled: NDArray[Any], least: float, limit: float) -> Estimate:
    import numpy

    low, high = numpy.quantile(resampled - resampled.mean() + value, (0.025, 0.975))
    return Estimate(value, min(value, max(least, float(low))), max(value, min(limit, float(high))))


def _rows(counts: Sequence[int]) -> NDArray[Any]:
    import numpy

    return numpy.asarray([list(counts)], dtype=int)


def _surprise(share: float) -> float:
    return -share * math.log2(share) if share > 0 else 0.0


def _shares(rows: NDArray[Any]) -> NDArray[Any]:
    shares: NDArray[Any] = rows / rows.sum(1, keepdims=True).clip(min=1)
    return shares


def _logs(shares: NDArray[Any]) -> NDArray[Any]:
    import numpy

    logs: NDArray[Any] = numpy.log2(numpy.where(shares > 0, shares, 1.0))
    return logs


def _entropies(rows: NDArray[Any]) -> NDArray[Any]:
    shares = _shares(rows)
    result: NDArray[Any] = -(shares * _logs(shares)).sum(1)
    return abs(result)  # of one pattern it is 0, not -0


def _miller_madow(rows: NDArray[Any]) -> NDArray[Any]:
    n = rows.sum(1).clip(min=1)
    result: NDArray[Any] = _entropies(rows) + ((rows > 0).sum(1) - 1) / (2 * n * math.log(2))
    return result


def _chao_shen(rows: NDArray[Any]) -> NDArray[Any]:
    import numpy

    n = rows.sum(1, keepdims=True).clip(min=1)
    once = (rows == 1).sum(1, keepdims=True)
    once = numpy.where(once == n, n - 1, once)
    covered = (1 - once / n) * _shares(rows)
    seen = 1 - (1 - covered) ** n
    terms = covered * _logs(covered) / numpy.where(rows > 0, seen, 1.0)
    result: NDArray[Any] = abs(-terms.sum(1))
    return result


def _alike(rows: NDArray[Any]) -> NDArray[Any]:
    import numpy

    n = rows.sum(1)
    pairs = numpy.where(n > 1, n * (n - 1), 1)
    result: NDArray[Any] = numpy.where(n > 1, (rows * (rows - 1)).sum(1) / pairs, numpy.nan)
    return result


def _table(n: int, size: int, of: Callable[[float], float]) -> list[float]:
    """Return the expected `of(share)` in `size` of n draws for a pattern that has 0, 1, ... n."""
    if not 1 <= size <= n:
        raise ValueError("a sample without replacement has between one and all of the refusals")
    every = _log_choose(n, size)
    values = [of(drawn / size) for drawn in range(size + 1)]
    table = []
    for count in range(n + 1):
        expected = 0.0
        for drawn in range(max(0, size - (n - count)), min(count, size) + 1):
            if values[drawn]:
                log = _log_choose(count, drawn) + _log_choose(n - count, size - drawn) - every
                expected += math.exp(log) * values[drawn]
        table.append(expected)
    return table


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
