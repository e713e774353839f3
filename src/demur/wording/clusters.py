"""Clusters of refusing sentences, the same for all sources of a study, so that they compare.

All different sentences go in together, each once; those beyond the first `FITTED` (evenly over the
sources, in the order of a hash) join the cluster whose mean is nearest. Where one cluster ends is a
matter of the threshold, so that a study also says what comes out at a lower and a higher one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demur.wording.embeddings import Embedder
from demur.wording.linkage import cosine_distances, cut, merges, silhouette

if TYPE_CHECKING:
    from numpy.typing import NDArray

FITTED = 2500
STEPS = (-0.15, 0.0, 0.15)  # of the threshold: what else is shown


@dataclass(frozen=True)
class Cluster:
    """One cluster.

    Attributes:
        sentence: the member nearest to all others, in one spelling, the request's words left out.
        sentences: how many different ones it holds.
        counts: refusals of each source in it, in the order of the sources.
    """

    sentence: str
    sentences: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Clustering:
    """What came out at one threshold.

    Attributes:
        threshold: mean cosine distance up to which clusters were joined.
        silhouette: how well apart they are, in [-1, 1]; NaN where there is one, or nothing but
            single sentences.
        clusters: the largest first.
    """

    threshold: float
    silhouette: float
    clusters: tuple[Cluster, ...]

    def counts(self, source: int) -> list[int]:
        """Return the refusals of one source in each cluster that it has any in."""
        return [each.counts[source] for each in self.clusters if each.counts[source]]


def cluster_sentences(
    sentences: Sequence[Sequence[str]], embedder: Embedder, fitted: int = FITTED
) -> tuple[Clustering, ...]:
    """Cluster the refusing sentences of several sources, at the embedder's threshold and beside it.

    Args:
        sentences: of each source, one a refusal.
        fitted: how many different sentences the tree is made of.

    Returns:
        One `Clustering` for each of `STEPS`; without any sentence, none.
    """
    counts = [Counter(each) for each in sentences]
    order = _order(counts)
    if not order:
        return ()
    rows = embedder.embed(order)
    distances = cosine_distances(rows[:fitted])
    joins = merges(distances)
    found = []
    for step in STEPS:
        threshold = embedder.distance + step
        labels = cut(joins, len(distances), threshold)
        width = silhouette(distances, labels) if len(labels) > 2 else float("nan")
        middles = _middles(distances, labels, order)
        labels = labels + _nearest(rows, labels)
        found.append(Clustering(threshold, width, _gathered(order, labels, middles, counts)))
    return tuple(found)


def _order(counts: Sequence[Counter[str]]) -> list[str]:
    """Return the different sentences so that every beginning has as many of each source."""
    ranked: dict[str, tuple[int, str]] = {}
    for source in counts:
        hashed = sorted((hashlib.sha256(text.encode()).hexdigest(), text) for text in source)
        for rank, (digest, text) in enumerate(hashed):
            ranked[text] = min(ranked.get(text, (rank, digest)), (rank, digest))
    return sorted(ranked, key=ranked.__getitem__)


def _middles(distances: NDArray[Any], labels: list[int], order: list[str]) -> dict[int, str]:
    """Return the sentence of each cluster that is nearest to all its others."""
    import numpy

    numbers = numpy.asarray(labels)
    middles = {}
    for label in range(int(numbers.max()) + 1):
        members = numpy.flatnonzero(numbers == label)
        sums = distances[numpy.ix_(members, members)].sum(1)
        middles[label] = order[members[int(sums.argmin())]]
    return middles


def _nearest(rows: NDArray[Any], labels: list[int]) -> list[int]:
    """Return the cluster of each row that no tree was made of."""
    import numpy

    rest = rows[len(labels) :]
    if not len(rest):
        return []
    member = numpy.eye(max(labels) + 1, dtype=rows.dtype)[labels]
    means = member.T @ rows[: len(labels)] / member.sum(0)[:, None]
    lengths = numpy.linalg.norm(means, axis=1, keepdims=True)
    found: list[int] = (rest @ (means / numpy.where(lengths > 0, lengths, 1)).T).argmax(1).tolist()
    return found


def _gathered(
    order: list[str], labels: list[int], middles: dict[int, str], counts: Sequence[Counter[str]]
) -> tuple[Cluster, ...]:
    totals = [[0] * len(counts) for _ in middles]
    kinds = Counter(labels)
    for text, label in zip(order, labels, strict=True):
        for place, source in enumerate(counts):
            totals[label][place] += source[text]
    clusters = [Cluster(middles[label], kinds[label], tuple(totals[label])) for label in middles]
    return tuple(sorted(clusters, key=lambda each: (-sum(each.counts), each.sentence)))
