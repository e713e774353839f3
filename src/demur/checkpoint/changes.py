"""A change of one tensor, and how it becomes an entry of a patch.

Each block is changed, and changed back as `apply.py` will do it; where rounding loses bits,
corrections go into the patch, so that reverting is exact by construction.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from demur.checkpoint import arithmetic, corrections
from demur.checkpoint.arithmetic import BIT_TYPES, Bits
from demur.checkpoint.header import TensorRange
from demur.checkpoint.index import (
    NONFINITE_BITS,
    NUMPY_TYPES,
    blocks_of,
    new_digest,
    read_exactly,
)
from demur.checkpoint.manifest import Entry, payload_hash
from demur.checkpoint.rewrite import Rewrite
from demur.errors import CheckpointError

BLOCK_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class LowRank:
    """A change of a matrix [rows, columns] by up @ down, any scale folded in.

    `up` is [rows, rank] and `down` is [rank, columns]; both are kept as float32.
    """

    up: NDArray[Any]
    down: NDArray[Any]


@dataclass(frozen=True)
class Dense:
    """New values for a whole tensor, in its shape.

    Floating values are rounded once to the tensor's dtype; integers of its item size are taken as
    its raw bits (uint16 for BF16).
    """

    values: NDArray[Any]


Change = LowRank | Dense | Rewrite
"""What a patch can be made of; a `Rewrite` gives new bits block by block."""


class Spool:
    """The payload while it grows, before its sizes, and so the header, are known."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.parts: list[tuple[str, str, tuple[int, ...], int]] = []
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Add bytes to the part that is open."""
        self.file.write(data)
        self._digest.update(data)
        self._size += len(data)

    def finish(self, name: str, dtype: str = "U8", shape: tuple[int, ...] | None = None) -> str:
        """Close a part, aligned to four bytes, and return its SHA-256; bytes need no shape."""
        self.write(bytes(-self._size % 4))
        self.parts.append((name, dtype, shape or (self._size,), self._size))
        digest = self._digest.hexdigest()
        self._digest, self._size = hashlib.sha256(), 0
        return digest

    def drop(self) -> None:
        """Forget what was written since the last part."""
        self.file.seek(-self._size, 1)
        self.file.truncate()
        self._digest, self._size = hashlib.sha256(), 0


def add_entry(spool: Spool, tensor: TensorRange, base_hash: str, change: Change) -> Entry:
    """Write a change's payload to the spool and return its entry.

    Args:
        spool: where the payload goes.
        tensor: the tensor that is changed, where it lies on disk.
        base_hash: its `tensor_hash`.
        change: what happens to it.

    Raises:
        CheckpointError: the change does not fit the tensor, or would make weights that are NaN or
            infinite.
    """
    entry = Entry(
        tensor=tensor.name,
        kind="dense",
        rank=None,
        dtype=tensor.dtype,
        shape=tensor.shape,
        base_hash=base_hash,
        result_hash="",
        payload_hash="",
        changed=0,
        corrections=0,
        rows_per_block=0,
    )
    if isinstance(change, Rewrite):
        return _add_rewrite(spool, tensor, entry, change)
    if isinstance(change, Dense):
        return _add_dense(spool, tensor, entry, change)
    return _add_low_rank(spool, tensor, entry, change)


def _add_low_rank(spool: Spool, tensor: TensorRange, entry: Entry, change: LowRank) -> Entry:
    up, down = _factors(tensor, change)
    rank = up.shape[1]
    rows, columns = tensor.shape
    step = max(1, BLOCK_ELEMENTS // max(1, columns))
    parts = []
    for part, factor in (("up", up), ("down", down)):
        spool.write(factor.tobytes())
        parts.append(spool.finish(f"{tensor.name}.{part}", "F32", factor.shape))
    wide_up, wide_down = up.astype(np.float64), down.astype(np.float64)
    digest, changed, corrected = new_digest(tensor.dtype, tensor.shape), 0, 0
    with tensor.shard.open("rb") as file:
        for row in range(0, rows, step):
            height = min(step, rows - row)
            base = _read_block(file, tensor, row * columns, (height, columns))
            rows_up = wide_up[row : row + height]
            result, reverted = arithmetic.there_and_back(base, rows_up, wide_down, tensor.dtype)
            _require_finite(tensor, base, result)
            record, count = corrections.encode(reverted, base)
            spool.write(record)
            digest.update(result.tobytes())
            changed += int(np.count_nonzero(result != base))
            corrected += count
    if corrected:
        parts.append(spool.finish(f"{tensor.name}.corrections"))
    else:
        spool.drop()
    return dataclasses.replace(
        entry,
        kind="low-rank",
        rank=rank,
        result_hash=digest.hexdigest(),
        payload_hash=payload_hash(parts),
        changed=changed,
        corrections=corrected,
        rows_per_block=step,
    )


def _factors(
    tensor: TensorRange, change: LowRank
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if tensor.dtype not in BIT_TYPES or len(tensor.shape) != 2:
        raise CheckpointError(
            f"{tensor.name} is {tensor.dtype} {list(tensor.shape)}, and a low-rank change needs a"
            " matrix in F32, F16 or BF16.",
            "Give a dense change, or use the model in one of these types.",
        )
    up = np.ascontiguousarray(change.up, "<f4")
    down = np.ascontiguousarray(change.down, "<f4")
    rank = down.shape[0]
    if not rank or (up.shape, down.shape) != ((tensor.shape[0], rank), (rank, tensor.shape[1])):
        raise CheckpointError(
            f"The factors {list(up.shape)} and {list(down.shape)} do not fit {tensor.name}, which"
            f" is {list(tensor.shape)}.",
            "Give up as [rows, rank] and down as [rank, columns].",
        )
    if not (np.isfinite(up).all() and np.isfinite(down).all()):
        raise _not_finite(f"The change of {tensor.name}")
    return up, down


def _add_dense(spool: Spool, tensor: TensorRange, entry: Entry, change: Dense) -> Entry:
    values = np.asarray(change.values)
    raw = _is_raw(tensor, values)
    if not raw and (
        values.shape != tensor.shape or values.dtype.kind != "f" or tensor.dtype not in BIT_TYPES
    ):
        raise CheckpointError(
            f"The new values, {values.dtype} {list(values.shape)}, do not fit {tensor.name}, which"
            f" is {tensor.dtype} {list(tensor.shape)}.",
            "Give floating values in its shape, or its raw bits.",
        )
    flat = values.reshape(-1)
    size = tensor.bytes // flat.size if flat.size else 1
    digest, changed = new_digest(tensor.dtype, tensor.shape), 0
    with tensor.shard.open("rb") as file:
        for first in range(0, flat.size, BLOCK_ELEMENTS):
            block = flat[first : first + BLOCK_ELEMENTS]
            if raw:
                result = np.ascontiguousarray(block).view(f"<u{size}")
            else:
                if not np.isfinite(block).all():
                    raise _not_finite(f"The change of {tensor.name}")
                result = arithmetic.round_to_bits(block.astype(np.float64), tensor.dtype)
            data = read_exactly(file, tensor.start + first * size, result.nbytes)
            base = np.frombuffer(data, result.dtype)
            _require_finite(tensor, result)
            spool.write((base ^ result).tobytes())
            digest.update(result.tobytes())
            changed += int(np.count_nonzero(base != result))
    part = spool.finish(f"{tensor.name}.xor")
    return dataclasses.replace(
        entry, result_hash=digest.hexdigest(), payload_hash=payload_hash([part]), changed=changed
    )


def _add_rewrite(spool: Spool, tensor: TensorRange, entry: Entry, change: Rewrite) -> Entry:
    kind = np.dtype(f"<u{tensor.bytes // tensor.elements}") if tensor.elements else np.dtype("u1")
    digest, changed = new_digest(tensor.dtype, tensor.shape), 0
    with (
        tensor.shard.open("rb", buffering=0) as file,
        tensor.shard.open("rb", buffering=0) as again,
    ):
        bases = blocks_of(tensor, change.step, again)
        for block, (_, base) in zip(
            change.run(blocks_of(tensor, change.step, file)), bases, strict=True
        ):
            data = memoryview(block).cast("B")
            flips = np.frombuffer(data, kind) ^ np.frombuffer(base, kind)
            spool.write(flips.tobytes())
            digest.update(data)
            changed += int(np.count_nonzero(flips))
    part = spool.finish(f"{tensor.name}.xor")
    return dataclasses.replace(
        entry, result_hash=digest.hexdigest(), payload_hash=payload_hash([part]), changed=changed
    )


def _is_raw(tensor: TensorRange, values: NDArray[Any]) -> bool:
    """Return whether the values are the tensor's own bits, with nothing to round."""
    if values.nbytes != tensor.bytes:
        return False
    if values.shape != tensor.shape:  # types narrower than a byte come as flat bytes
        return values.shape == (tensor.bytes,) and values.dtype == np.uint8
    own = NUMPY_TYPES.get(tensor.dtype)
    return values.dtype.kind in "ui" or (own is not None and values.dtype == np.dtype(own))


def _read_block(file: IO[bytes], tensor: TensorRange, first: int, shape: tuple[int, int]) -> Bits:
    kind = BIT_TYPES[tensor.dtype]
    count = shape[0] * shape[1] * kind.itemsize
    data = read_exactly(file, tensor.start + first * kind.itemsize, count)
    return np.frombuffer(data, kind).reshape(shape)


def _require_finite(tensor: TensorRange, *blocks: Bits) -> None:
    mask = NONFINITE_BITS.get(tensor.dtype)
    if mask is None:
        return
    for bits in blocks:
        marker = bits.dtype.type(mask)
        if ((bits & marker) == marker).any():
            raise _not_finite(f"{tensor.name}, or what the change makes of it,")


def _not_finite(subject: str) -> CheckpointError:
    return CheckpointError(
        f"{subject} holds numbers that are NaN, infinite or beyond the range of the dtype.",
        "Check the base model and the run that made this change; a lower learning rate may help.",
    )
