"""How alike the weights of two checkpoints are, from a few blocks of each matrix.

Models that were made from one another, or from a common base, point the same way almost
everywhere: the cosine of their weights is about 0.99 and more. Between strangers of the same
shape it is about 0. Vectors of norms are near 1 in all models and prove nothing: only matrices
are looked at. Nothing is loaded: some hundred kilobytes are read.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demur.checkpoint.header import TensorRange
from demur.checkpoint.index import Checkpoint, read_exactly

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
BLOCKS, BLOCK = 8, 512
MOST_MATRICES = 256


@dataclass(frozen=True)
class Similarity:
    """Cosines of the sampled weights of two checkpoints.

    Attributes:
        median: over the matrices.
        lowest, lowest_name: the least alike, and which it is in the first checkpoint.
        matrices: how many were sampled.
        identical: whether every sampled number is the same in both.
    """

    median: float
    lowest: float
    lowest_name: str
    matrices: int
    identical: bool


def similarity(one: Checkpoint, other: Checkpoint, pairs: Mapping[str, str]) -> Similarity | None:
    """Return how alike the weights are, or None if there is no matrix to compare.

    Args:
        pairs: the names in `one` of the matrices to compare, each with its name in `other`. Of
            many, evenly chosen ones are taken. Shapes must agree; dtypes may differ.

    Raises:
        CheckpointError: a file ends early.
    """
    names = list(pairs)
    step = -(-len(names) // MOST_MATRICES) or 1
    cosines: dict[str, float] = {}
    identical = True
    for name in names[::step]:
        left = sample(one.tensor(name))
        right = sample(other.tensor(pairs[name]))
        lengths = float(np.linalg.norm(left) * np.linalg.norm(right))
        identical = identical and np.array_equal(left, right)
        if lengths > 0:
            cosines[name] = float(left @ right) / lengths
    if not cosines:
        return None
    lowest = min(cosines, key=cosines.__getitem__)
    return Similarity(
        median=statistics.median(cosines.values()),
        lowest=cosines[lowest],
        lowest_name=lowest,
        matrices=len(cosines),
        identical=identical,
    )


def sample(tensor: TensorRange) -> NDArray[np.float64]:
    """Return `BLOCKS` evenly spaced runs of `BLOCK` numbers, or all where it has no more.

    Raises:
        CheckpointError: its file ends early.
    """
    dtype = np.dtype(FLOATS[tensor.dtype])
    length = min(BLOCK, tensor.elements)
    if tensor.elements <= BLOCKS * BLOCK:
        starts, length = [0], tensor.elements
    else:
        starts = [(tensor.elements - length) * block // (BLOCKS - 1) for block in range(BLOCKS)]
    with tensor.shard.open("rb") as file:
        data = b"".join(
            read_exactly(file, tensor.start + start * dtype.itemsize, length * dtype.itemsize)
            for start in starts
        )
    numbers = np.frombuffer(data, dtype)
    if tensor.dtype == "BF16":
        numbers = (numbers.astype("<u4") << np.uint32(16)).view("<f4")
    return numbers.astype(np.float64)
