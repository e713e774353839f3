"""Weights as bits and as numbers: one rounding, the same on every IEEE 754 machine.

A low-rank change is `W' = round(W + sum_k up[:, k] * down[k, :])`. The factors are float32, so
each product is exact in float64 and a fused multiply-add changes nothing; the sum runs over k in
order, element by element, without BLAS, whose order depends on the machine. Rounding happens once,
from float64 to the tensor's dtype, to nearest, ties to even.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[Any]
"""Raw bits of a tensor as unsigned integers of its item size."""

PIECE_ELEMENTS = 1 << 15

BIT_TYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<u4"),
    "F16": np.dtype("<u2"),
    "BF16": np.dtype("<u2"),
}
"""The dtypes that can be computed with, and the unsigned integers that hold their bits."""


def to_float64(bits: Bits, dtype: str) -> NDArray[np.float64]:
    """Return the numbers that the bits stand for, exactly; any shape.

    Args:
        bits: contiguous unsigned integers, as `BIT_TYPES` says for the dtype.
        dtype: "F32", "F16" or "BF16".
    """
    if dtype == "BF16":
        return (bits.astype("<u4") << np.uint32(16)).view("<f4").astype(np.float64)
    return bits.view("<f4" if dtype == "F32" else "<f2").astype(np.float64)


def round_to_bits(values: NDArray[np.float64], dtype: str) -> Bits:
    """Return float64 numbers rounded once to the dtype, to nearest, ties to even, as bits.

    Numbers beyond the dtype's range become infinities; NaN must not be among them.
    """
    with np.errstate(over="ignore", under="ignore"):
        if dtype == "F32":
            return values.astype("<f4").view("<u4")
        if dtype == "F16":
            return values.astype("<f2").view("<u2")
        return _round_to_bfloat16(values)


def _round_to_bfloat16(values: NDArray[np.float64]) -> Bits:
    # Rounding to float32 and then to bfloat16 rounds twice, which errs only where the first
    # rounding ends halfway between two bfloat16 numbers: those few are rounded anew.
    bits = values.astype("<f4").view("<u4")
    rounded = bits >> np.uint32(16)
    even = rounded & np.uint32(1)
    even += np.uint32(0x7FFF)
    even += bits
    np.right_shift(even, np.uint32(16), out=rounded)
    result = rounded.astype("<u2")
    bits &= np.uint32(0xFFFF)
    halfway = np.flatnonzero(bits == np.uint32(0x8000))
    if len(halfway):
        result.reshape(-1)[halfway] = _round_once(values.reshape(-1)[halfway])
    return result


def _round_once(values: NDArray[np.float64]) -> Bits:
    # Rounding to odd in between (drop the extra bits, set the last one if any was lost) keeps what
    # the second rounding must know.
    nearest = values.astype("<f4")
    back = nearest.astype(np.float64)
    bits = nearest.view("<u4") - (np.abs(back) > np.abs(values))
    bits |= back != values
    even = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + even) >> np.uint32(16)).astype("<u2")


def low_rank_sum(up: NDArray[np.float64], down: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sum over k of up[:, k] * down[k, :], in order of k, in float64.

    Args:
        up: [rows, rank], float32 numbers held as float64.
        down: [rank, columns], likewise.
    """
    total = np.zeros((up.shape[0], down.shape[1]))
    product = np.empty_like(total)
    for k in range(down.shape[0]):
        np.multiply(up[:, k, None], down[k], out=product)
        np.add(total, product, out=total)
    return total


def add(bits: Bits, delta: NDArray[np.float64], dtype: str) -> Bits:
    """Return round(W + delta) for the weights W that the bits stand for; shapes equal."""
    with np.errstate(invalid="ignore"):  # weights of some other model; their hash will tell
        return round_to_bits(to_float64(bits, dtype) + delta, dtype)


def subtract(bits: Bits, delta: NDArray[np.float64], dtype: str) -> Bits:
    """Return round(W - delta): what undoes `add`, but for what its rounding lost."""
    with np.errstate(invalid="ignore"):
        return round_to_bits(to_float64(bits, dtype) - delta, dtype)


def quick_low_rank_sum(up: NDArray[np.float64], down: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `low_rank_sum`, or what differs from it by an order of summing, several times faster.

    Once rounded to a tensor's dtype the two are the same but for the rarest of weights, so that who
    knows the hash of what must come out may try this first.
    """
    return up @ down


LowRankSum = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def add_low_rank(
    bits: Bits,
    up: NDArray[np.float64],
    down: NDArray[np.float64],
    dtype: str,
    total: LowRankSum = low_rank_sum,
) -> Bits:
    """Return `add` of `low_rank_sum(up, down)`, computed in pieces that fit the processor's cache.

    Args:
        bits: [rows, columns].
        up, down: as `low_rank_sum` takes them.
        total: how they are multiplied.
    """
    result = np.empty_like(bits)
    for rows in _pieces(bits):
        result[rows] = add(bits[rows], total(up[rows], down), dtype)
    return result


def subtract_low_rank(
    bits: Bits,
    up: NDArray[np.float64],
    down: NDArray[np.float64],
    dtype: str,
    total: LowRankSum = low_rank_sum,
) -> Bits:
    """Return `subtract` of `low_rank_sum(up, down)`, likewise."""
    result = np.empty_like(bits)
    for rows in _pieces(bits):
        result[rows] = subtract(bits[rows], total(up[rows], down), dtype)
    return result


def there_and_back(
    bits: Bits, up: NDArray[np.float64], down: NDArray[np.float64], dtype: str
) -> tuple[Bits, Bits]:
    """Return what `add_low_rank` gives, and what `subtract_low_rank` makes of that."""
    result, back = np.empty_like(bits), np.empty_like(bits)
    for rows in _pieces(bits):
        delta = low_rank_sum(up[rows], down)
        result[rows] = add(bits[rows], delta, dtype)
        back[rows] = subtract(result[rows], delta, dtype)
    return result, back


def _pieces(bits: Bits) -> Iterator[slice]:
    rows, columns = bits.shape
    step = max(1, PIECE_ELEMENTS // max(1, columns))
    for row in range(0, rows, step):
        yield slice(row, row + step)


def to_ordered(bits: Bits) -> Bits:
    """Return unsigned integers in the order of the numbers: neighbours differ by one.

    Every bit pattern has its own place, so -0 comes just before +0.
    """
    top = _top_bit(bits)
    return np.where(bits & top, ~bits, bits | top)


def from_ordered(ordered: Bits) -> Bits:
    """Return the bits again: the inverse of `to_ordered`."""
    top = _top_bit(ordered)
    return np.where(ordered & top, ordered & ~top, ~ordered)


def _top_bit(bits: Bits) -> Any:
    return bits.dtype.type(1 << (8 * bits.dtype.itemsize - 1))
