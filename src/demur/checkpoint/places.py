"""Parts of tensors as runs of numbers in row-major order, read and written piece by piece.

Along the dimension that divides it a tensor repeats with a period; row by row, that makes stretches
of `width` numbers of which those from `low` to `high` belong to the part. Whole tensors, blocks of
rows, blocks of columns, fused and interleaved parts are all of this one form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from demur.checkpoint.header import TensorRange
from demur.checkpoint.index import BLOCK_BYTES, Checkpoint, read_into
from demur.errors import CheckpointError

FEW_RUNS = 64


class Places(Protocol):
    """Some places of a tensor along one dimension: those i with start <= i % period < stop.

    `demur.models.anatomy.types.Part` is one; `size` is the tensor's size along `dim`.
    """

    @property
    def tensor(self) -> str:
        """Name of the tensor."""

    @property
    def dim(self) -> int:
        """The dimension along which it is divided."""

    @property
    def period(self) -> int:
        """After how many places the pattern repeats."""

    @property
    def start(self) -> int:
        """First place of each period."""

    @property
    def stop(self) -> int:
        """The place after the last of each period."""

    @property
    def size(self) -> int:
        """Places in all, a multiple of the period."""


@dataclass(frozen=True)
class Stretches:
    """A part in row-major order: of every `width` numbers those from `low` to `high`.

    Attributes:
        count: how many stretches the tensor has.
    """

    width: int
    low: int
    high: int
    count: int

    @property
    def run(self) -> int:
        """How many numbers of each stretch belong to the part."""
        return self.high - self.low

    @property
    def elements(self) -> int:
        """How many numbers the part holds."""
        return self.run * self.count

    def before(self, element: int) -> int:
        """Return how many numbers of the part lie before a place of the tensor."""
        stretch, within = divmod(element, self.width)
        return stretch * self.run + min(max(within - self.low, 0), self.run)


def stretches(part: Places, checkpoint: Checkpoint) -> Stretches:
    """Return a part of a tensor on disk as stretches.

    Raises:
        CheckpointError: there is no such tensor, or it has no such places.
    """
    tensor = checkpoint.tensor(part.tensor)
    shape = tensor.shape
    fits = (
        0 <= part.dim < len(shape)
        and shape[part.dim] == part.size
        and 0 <= part.start < part.stop <= part.period
        and part.size % part.period == 0
        and tensor.elements > 0
    )
    if not fits:
        raise CheckpointError(
            f"{part.tensor} is {list(shape)} in {checkpoint.folder}, which has no places"
            f" {part.start} to {part.stop} of every {part.period} of {part.size} along dimension"
            f" {part.dim}.",
            "Take the parts from the anatomy of this very model.",
        )
    inner = math.prod(shape[part.dim + 1 :])
    outer = math.prod(shape[: part.dim])
    return Stretches(
        width=part.period * inner,
        low=part.start * inner,
        high=part.stop * inner,
        count=outer * (part.size // part.period),
    )


def read_part(
    file: IO[bytes],
    tensor: TensorRange,
    part: Stretches,
    first: int,
    last: int,
    kind: np.dtype[Any],
) -> NDArray[Any]:
    """Return the numbers `first` up to `last` of a part, in row-major order.

    Args:
        file: the tensor's shard, opened without a buffer.
        kind: the type that holds the bits of one number.

    Raises:
        CheckpointError: the file ends early.
    """
    found = np.empty(last - first, kind)
    wide = part.width * kind.itemsize > BLOCK_BYTES
    if part.run == part.width or wide or last - first <= FEW_RUNS * part.run:
        for begin, end in _runs(part, first, last):
            place = begin // part.run * part.width + part.low + begin % part.run
            block = found[begin - first : end - first].view(np.uint8)
            read_into(file, tensor.start + place * kind.itemsize, block.data)
        return found
    at_once = max(1, BLOCK_BYTES // (part.width * kind.itemsize)) * part.run
    for begin in range(first // part.run * part.run, last, at_once):
        end = min(begin + at_once, -(-last // part.run) * part.run)
        window = np.empty((end - begin) // part.run * part.width, kind)
        place = begin // part.run * part.width
        read_into(file, tensor.start + place * kind.itemsize, window.view(np.uint8).data)
        values = window.reshape(-1, part.width)[:, part.low : part.high].reshape(-1)
        here, there = max(begin, first), min(end, last)
        found[here - first : there - first] = values[here - begin : there - begin]
    return found


def write_part(block: NDArray[Any], part: Stretches, place: int, values: NDArray[Any]) -> None:
    """Set those numbers of a tensor's block that belong to a part, in row-major order.

    Args:
        block: numbers of the tensor from `place` on; it is changed.
        values: as many as the part has in this block.
    """
    first = part.before(place)
    if part.run == part.width:
        block[:] = values
    elif len(values) <= FEW_RUNS * part.run:
        for begin, end in _runs(part, first, first + len(values)):
            at = begin // part.run * part.width + part.low + begin % part.run - place
            block[at : at + end - begin] = values[begin - first : end - first]
    else:
        skipped = place % part.width
        rows = -(-(skipped + len(block)) // part.width)
        mask = np.zeros((rows, part.width), bool)
        mask[:, part.low : part.high] = True
        block[mask.reshape(-1)[skipped : skipped + len(block)]] = values


def _runs(part: Stretches, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the numbers of a part that lie side by side on disk, as ranges of their count."""
    if part.run == part.width:
        if last > first:
            yield first, last
        return
    while first < last:
        end = min(last, (first // part.run + 1) * part.run)
        yield first, end
        first = end
