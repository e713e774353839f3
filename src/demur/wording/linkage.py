"""Agglomerative clustering by average linkage on cosine distance, with a threshold.

Deterministic, and without choosing a number of clusters: two groups are joined while the mean
distance between their members is at most the threshold. The nearest-neighbour chain finds the same
tree as joining the nearest pair each time, in n^2 time and memory (Murtagh 1983; average linkage is
reducible, so that it may).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cosine_distances(rows: NDArray[Any]) -> NDArray[Any]:
    """Return (n, n) distances between rows of length one, in [0, 2]; zero rows are 1 from all."""
    import numpy

    distances: NDArray[Any] = (1 - rows @ rows.T).clip(0, 2).astype(numpy.float32)
    numpy.fill_diagonal(distances, 0)
    return distances


def merges(distances: NDArray[Any]) -> list[tuple[int, int, float]]:
    """Return the n - 1 joins (a member of each side, mean distance), the nearest first."""
    import numpy

    work = distances.astype(numpy.float64)
    numpy.fill_diagonal(work, numpy.inf)
    n = len(work)
    sizes, alive = numpy.ones(n), numpy.ones(n, dtype=bool)
    found: list[tuple[int, int, float]] = []
    chain: list[int] = []
    while len(found) < n - 1:
        if not chain:
            chain.append(int(alive.argmax()))
        last = chain[-1]
        row = work[last]
        near = int(row.argmin())
        if len(chain) > 1 and row[chain[-2]] <= row[near]:  # so that ties end the chain
            near = chain[-2]
        if len(chain) < 2 or near != chain[-2]:
            chain.append(near)
            continue
        chain = chain[:-2]
        first, second = min(last, near), max(last, near)
        found.append((first, second, float(row[near])))
        total = sizes[first] + sizes[second]
        joined = (sizes[first] * work[first] + sizes[second] * work[second]) / total
        work[first], work[:, first] = joined, joined
        work[first, first] = numpy.inf
        work[second], work[:, second] = numpy.inf, numpy.inf
        sizes[first], alive[second] = total, False
    return sorted(found, key=lambda join: join[2])


def cut(joins: list[tuple[int, int, float]], n: int, threshold: float) -> list[int]:
    """Return each row's cluster where joins up to `threshold` are made, numbered as they appear."""
    parents = list(range(n))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for first, second, distance in joins:
        if distance <= threshold:
            parents[root(second)] = root(first)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(place), len(numbers)) for place in range(n)]


def silhouette(distances: NDArray[Any], clusters: list[int]) -> float:
    """Return the mean silhouette (Rousseeuw 1987); NaN for one cluster, or as many as rows."""
    import numpy

    labels = numpy.asarray(clusters)
    count = int(labels.max()) + 1
    if not 1 < count < len(labels):
        return float("nan")
    member = numpy.eye(count, dtype=numpy.float32)[labels]
    sizes = member.sum(0)
    sums = distances @ member
    own = sizes[labels]
    inside = sums[numpy.arange(len(labels)), labels] / numpy.maximum(own - 1, 1)
    others = sums / sizes
    others[numpy.arange(len(labels)), labels] = numpy.inf
    outside = others.min(1)
    widths = numpy.where(own > 1, (outside - inside) / numpy.maximum(inside, outside), 0)
    return float(numpy.nan_to_num(widths).mean())
