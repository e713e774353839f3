"""What subtracting cannot undo, kept small: where a reverted weight is off, and by how much.

Rounding loses bits where a weight is small beside its change. For each block of rows the places
are kept as gaps between flat indices and the differences as steps between neighbouring numbers
(`arithmetic.to_ordered`); both as variable-length integers (LEB128), mostly one byte each.

A block is recorded as two little-endian 64-bit lengths, the gaps and the differences.
"""

from __future__ import annotations

import struct
from typing import IO

import numpy as np
from numpy.typing import NDArray

from demur.checkpoint.arithmetic import Bits, from_ordered, to_ordered

LENGTHS = struct.Struct("<QQ")
LONGEST_NUMBER = 10


def encode(reverted: Bits, wanted: Bits) -> tuple[bytes, int]:
    """Return the record of one block and how many weights it corrects.

    Args:
        reverted: the bits that subtracting gives.
        wanted: the bits of the base, in the same shape.
    """
    places = np.flatnonzero(reverted.reshape(-1) != wanted.reshape(-1))
    off = to_ordered(reverted.reshape(-1)[places]).astype(np.int64)
    right = to_ordered(wanted.reshape(-1)[places]).astype(np.int64)
    gaps = _pack((np.diff(places, prepend=-1) - 1).astype(np.uint64))
    differences = _pack(_zigzag(right - off))
    return LENGTHS.pack(len(gaps), len(differences)) + gaps + differences, len(places)


def correct(reverted: Bits, record: IO[bytes]) -> Bits:
    """Return one block with its corrections made, reading its record from the stream.

    Raises:
        ValueError: the record is damaged.
    """
    lengths = record.read(LENGTHS.size)
    if len(lengths) != LENGTHS.size:
        raise ValueError("a record of corrections is cut short")
    gaps_length, differences_length = LENGTHS.unpack(lengths)
    if max(gaps_length, differences_length) > LONGEST_NUMBER * reverted.size:
        raise ValueError("a record of corrections is too long")
    gaps = _unpack(record.read(gaps_length), gaps_length)
    differences = _unzigzag(_unpack(record.read(differences_length), differences_length))
    places = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if len(places) != len(differences) or (len(places) and places[-1] >= reverted.size):
        raise ValueError("a record of corrections does not fit its block")
    bits = reverted.reshape(-1).copy()
    moved = to_ordered(bits[places]).astype(np.int64) + differences
    bits[places] = from_ordered(moved.astype(bits.dtype))
    return bits.reshape(reverted.shape)


def _zigzag(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    return ((numbers << 1) ^ (numbers >> 63)).astype(np.uint64)


def _unzigzag(numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (numbers >> np.uint64(1)).astype(np.int64) ^ -(numbers & np.uint64(1)).astype(np.int64)


def _pack(numbers: NDArray[np.uint64]) -> bytes:
    """Return numbers as LEB128: seven bits a byte, the top bit set on all but the last."""
    lengths = np.ones(len(numbers), np.int64)
    for count in range(1, LONGEST_NUMBER):
        lengths += numbers >= np.uint64(1 << (7 * count))
    starts = np.cumsum(lengths) - lengths
    packed = np.zeros(int(lengths.sum()), np.uint8)
    for position in range(int(lengths.max(initial=0))):
        chosen = lengths > position
        seven = (numbers[chosen] >> np.uint64(7 * position)) & np.uint64(0x7F)
        more = np.where(lengths[chosen] > position + 1, 0x80, 0).astype(np.uint8)
        packed[starts[chosen] + position] = seven.astype(np.uint8) | more
    return packed.tobytes()


def _unpack(packed: bytes, length: int) -> NDArray[np.uint64]:
    data = np.frombuffer(packed, np.uint8)
    if len(data) != length or (length and data[-1] >= 0x80):
        raise ValueError("a record of corrections is cut short")
    ends = np.flatnonzero(data < 0x80)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])[: len(ends)]
    lengths = ends - starts + 1
    if lengths.max(initial=0) > LONGEST_NUMBER:
        raise ValueError("a record of corrections holds a number that is too long")
    numbers = np.zeros(len(ends), np.uint64)
    for position in range(int(lengths.max(initial=0))):
        chosen = lengths > position
        seven = (data[starts[chosen] + position] & 0x7F).astype(np.uint64)
        numbers[chosen] |= seven << np.uint64(7 * position)
    return numbers
