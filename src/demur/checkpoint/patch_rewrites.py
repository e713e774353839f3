"""Entries of a patch as rewrites of their tensors, forwards and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.checkpoint import arithmetic, corrections
from demur.checkpoint.arithmetic import BIT_TYPES, LowRankSum, quick_low_rank_sum
from demur.checkpoint.header import TensorRange, broken
from demur.checkpoint.index import BLOCK_BYTES, Blocks, read_exactly, stream
from demur.checkpoint.manifest import Entry, Patch
from demur.checkpoint.rewrite import Rewrite


def applying(tensor: TensorRange, entry: Entry, patch: Patch) -> Rewrite:
    """Return how a patch changes a tensor of its base."""
    if entry.kind == "dense":
        return _flipping(tensor, patch)

    def run(total: LowRankSum, blocks: Blocks) -> Iterator[Any]:
        for bits, up, down in _low_rank(blocks, tensor, patch):
            yield arithmetic.add_low_rank(bits, up, down, tensor.dtype, total)

    return _low_rank_rewrite(tensor, entry, run, entry.result_hash)


def reverting(tensor: TensorRange, entry: Entry, patch: Patch) -> Rewrite:
    """Return how a patch's change of a tensor is taken back, to the bit."""
    if entry.kind == "dense":
        return _flipping(tensor, patch)

    def run(total: LowRankSum, blocks: Blocks) -> Iterator[Any]:
        with patch.path.open("rb") as record:
            if entry.corrections:
                record.seek(patch.parts[f"{tensor.name}.corrections"].start)
            for bits, up, down in _low_rank(blocks, tensor, patch):
                reverted = arithmetic.subtract_low_rank(bits, up, down, tensor.dtype, total)
                if entry.corrections:
                    try:
                        reverted = corrections.correct(reverted, record)
                    except ValueError as error:
                        raise broken(patch.path, str(error)) from error
                yield reverted

    return _low_rank_rewrite(tensor, entry, run, entry.base_hash)


Direction = Callable[[TensorRange, Entry, Patch], Rewrite]


def _low_rank_rewrite(
    tensor: TensorRange,
    entry: Entry,
    run: Callable[[LowRankSum, Blocks], Iterator[Any]],
    result: str,
) -> Rewrite:
    row_bytes = tensor.shape[1] * BIT_TYPES[tensor.dtype].itemsize
    return Rewrite(
        step=max(1, entry.rows_per_block * row_bytes),
        run=partial(run, quick_low_rank_sum),
        result=result,
        careful=partial(run, arithmetic.low_rank_sum),
    )


def _low_rank(
    blocks: Blocks, tensor: TensorRange, patch: Patch
) -> Iterator[tuple[arithmetic.Bits, NDArray[np.float64], NDArray[np.float64]]]:
    """Yield each block of rows: its bits, and the factors of its change."""
    up, down = (_factor(patch.parts[f"{tensor.name}.{part}"]) for part in ("up", "down"))
    columns = tensor.shape[1]
    kind = BIT_TYPES[tensor.dtype]
    for offset, block in blocks:
        bits = np.frombuffer(block, kind).reshape(-1, columns)
        row = offset // (columns * kind.itemsize)
        yield bits, up[row : row + len(bits)], down


def _factor(part: TensorRange) -> NDArray[np.float64]:
    data = b"".join(stream(part))
    return np.frombuffer(data, "<f4").reshape(part.shape).astype(np.float64)


def _flipping(tensor: TensorRange, patch: Patch) -> Rewrite:
    """Exchange old and new bits, in either direction."""
    part = patch.parts[f"{tensor.name}.xor"]

    def run(blocks: Blocks) -> Iterator[Any]:
        with patch.path.open("rb") as source:
            for offset, block in blocks:
                flips = read_exactly(source, part.start + offset, len(block))
                yield np.frombuffer(block, np.uint8) ^ np.frombuffer(flips, np.uint8)

    return Rewrite(BLOCK_BYTES, run)
