"""A checkpoint on disk: which tensor lies where, its hash, its values, read out of core.

`open_checkpoint` reads headers only. Everything else streams in blocks, so that tensors larger
than memory are no trouble, but for `read_tensor` and `read_bits`, which return a whole tensor.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from demur.checkpoint.foreign import no_safetensors
from demur.checkpoint.header import TensorRange, broken, read_header
from demur.checkpoint.stamps import Stamp, stamp_of, steady
from demur.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CHUNK_BYTES = 1 << 22
BLOCK_BYTES = 1 << 20  # larger ones leave the processor's cache between reading and hashing
THREADS = 4

Blocks = Iterator[tuple[int, memoryview]]
"""Where each block begins, in bytes of its tensor, and the block, until the next is asked for."""

NUMPY_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "C64": "<c8", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip
# A number is NaN or infinite when all these bits are set (for F8_E4M3, which has no infinity: NaN).
NONFINITE_BITS = {
    "F64": 0x7FF0_0000_0000_0000,
    "F32": 0x7F80_0000,
    "F16": 0x7C00,
    "BF16": 0x7F80,
    "F8_E5M2": 0x7C,
    "F8_E4M3": 0x7F,
}


class Digest(Protocol):
    """What `hashlib.sha256()` returns, as far as it is used here."""

    def update(self, data: Any, /) -> None:
        """Add bytes to what is hashed."""

    def hexdigest(self) -> str:
        """Return the hash so far, as text."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a model folder by name, in the order of its files, and those files."""

    folder: Path
    tensors: Mapping[str, TensorRange]
    shards: tuple[Path, ...]

    @property
    def parameters(self) -> int:
        """How many numbers all the tensors hold together."""
        return sum(tensor.elements for tensor in self.tensors.values())

    def tensor(self, name: str) -> TensorRange:
        """Return where a tensor lies.

        Raises:
            CheckpointError: there is none of that name.
        """
        if name not in self.tensors:
            raise CheckpointError(
                f"{self.folder} has no tensor {name}.",
                "Check that it is the model that you mean.",
            )
        return self.tensors[name]


def open_checkpoint(folder: Path) -> Checkpoint:
    """Return the index of a model folder, with every byte range checked.

    Reads `model.safetensors`, or else the shards that `model.safetensors.index.json` names.

    Raises:
        CheckpointError: the folder has no safetensors (one with only pickled weights is refused
            with the command that converts it), a shard is missing, truncated or corrupt, or the
            index names a tensor that its shard lacks.
    """
    if (folder / SINGLE).is_file():
        path = folder / SINGLE
        tensors = {tensor.name: tensor for tensor in read_header(path).tensors}
        return Checkpoint(folder, tensors, (path,))
    if (folder / INDEX).is_file():
        return _open_shards(folder, _read_weight_map(folder / INDEX))
    raise no_safetensors(folder)


def _read_weight_map(path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(path.read_text("utf-8"))["weight_map"]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise broken(path, "it holds no weight_map") from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise broken(path, "its weight_map is empty")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or shard != os.path.basename(shard) or not shard:
            raise broken(path, f"it places the tensor {name} in {shard!r}, outside its folder")
    return weight_map


def _open_shards(folder: Path, weight_map: Mapping[str, str]) -> Checkpoint:
    shards = tuple(folder / shard for shard in sorted(set(weight_map.values())))
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing[:3])}, which {INDEX} names"
            f" ({len(missing)} of {len(shards)} shards are missing).",
            "Download the missing shards into this folder.",
        )
    tensors: dict[str, TensorRange] = {}
    for shard in shards:
        for tensor in read_header(shard).tensors:
            if weight_map.get(tensor.name, shard.name) == shard.name:
                tensors.setdefault(tensor.name, tensor)
    for name, shard_name in weight_map.items():
        if name not in tensors:
            raise CheckpointError(
                f"{INDEX} places the tensor {name} in {shard_name}, which lacks it.",
                f"Download {shard_name} and {INDEX} again, from the same revision of the model.",
            )
    return Checkpoint(folder, tensors, shards)


def read_exactly(file: IO[bytes], start: int, count: int) -> bytes:
    """Return `count` bytes from position `start` on.

    Raises:
        CheckpointError: the file ends before.
    """
    file.seek(start)
    data = file.read(count)
    if len(data) != count:
        raise broken(Path(file.name), f"it ends before byte {start + count}")
    return data


def stream(tensor: TensorRange, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yield the bytes of a tensor in order, in chunks of `chunk_bytes`."""
    with tensor.shard.open("rb") as file:
        for start in range(tensor.start, tensor.stop, chunk_bytes):
            yield read_exactly(file, start, min(chunk_bytes, tensor.stop - start))


def read_into(file: IO[bytes], start: int, block: memoryview) -> None:
    """Fill `block` with the bytes from position `start` on; `file` has no buffer.

    Raises:
        CheckpointError: the file ends before.
    """
    file.seek(start)
    filled = 0
    while filled < len(block):
        count = file.readinto(block[filled:])  # type: ignore[attr-defined]
        if not count:
            raise broken(Path(file.name), f"it ends before byte {start + len(block)}")
        filled += count


def blocks_of(tensor: TensorRange, step: int, file: IO[bytes]) -> Blocks:
    """Yield the bytes of a tensor in order, in blocks of `step`, all in one buffer.

    Args:
        tensor: where it lies.
        step: bytes of a block; the last one may be shorter.
        file: its shard, or a copy of it, opened without a buffer.

    Raises:
        CheckpointError: the file ends early.
    """
    buffer = memoryview(bytearray(min(step, tensor.bytes)))
    for offset in range(0, tensor.bytes, step):
        block = buffer[: min(step, tensor.bytes - offset)]
        read_into(file, tensor.start + offset, block)
        yield offset, block


def new_digest(dtype: str, shape: Iterable[int]) -> Digest:
    """Return a SHA-256 that has taken in dtype and shape, and waits for the tensor's bytes."""
    head = json.dumps([dtype, list(shape)], separators=(",", ":"))
    return hashlib.sha256(head.encode() + b"\n")


def tensor_hash(checkpoint: Checkpoint, name: str) -> str:
    """Return the SHA-256 of a tensor's dtype, shape and bytes: 64 hexadecimal digits.

    Raises:
        CheckpointError: there is no such tensor, or its file ends early.
    """
    tensor = checkpoint.tensor(name)
    digest = new_digest(tensor.dtype, tensor.shape)
    with tensor.shard.open("rb", buffering=0) as file:
        for _, block in blocks_of(tensor, BLOCK_BYTES, file):
            digest.update(block)
    return digest.hexdigest()


# A model is hashed when it is looked at, when a patch of it is made and when it is applied.
_remembered: dict[Stamp, dict[str, str]] = {}


def known_hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """Return `tensor_hash` of the tensors that this process has hashed, if they are unchanged."""
    found: dict[str, str] = {}
    for shard in checkpoint.shards:
        hashes = _remembered.get(stamp_of(shard), {})
        found |= {
            name: hashes[name]
            for name, tensor in checkpoint.tensors.items()
            if tensor.shard == shard and name in hashes
        }
    return found


def remember_hashes(checkpoint: Checkpoint, hashes: Mapping[str, str]) -> None:
    """Keep hashes for `known_hashes`, where later changes of the files would show."""
    now = time.time_ns()
    for shard in checkpoint.shards:
        stamp = stamp_of(shard)
        if stamp.settled(now):
            _remembered[stamp] = {
                name: hashes[name]
                for name, tensor in checkpoint.tensors.items()
                if tensor.shard == shard
            }


def tensor_hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """Return `tensor_hash` of every tensor by name, computed on a few threads, once a process.

    Raises:
        CheckpointError: a file ends early, or changes while it is read.
    """
    with steady(checkpoint.shards):
        known = known_hashes(checkpoint)
        names = [name for name in checkpoint.tensors if name not in known]
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            found = pool.map(lambda name: tensor_hash(checkpoint, name), names)
            known |= dict(zip(names, found, strict=True))
    remember_hashes(checkpoint, known)
    return {name: known[name] for name in checkpoint.tensors}


def combined_hash(hashes: Mapping[str, str]) -> str:
    """Return the checkpoint's hash from its tensors' hashes: SHA-256 of "name hash" lines, sorted.

    It depends on names, dtypes, shapes and bytes, and not on how the tensors are sharded.
    """
    lines = "".join(f"{name} {hashes[name]}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()


def checkpoint_hash(checkpoint: Checkpoint) -> str:
    """Return the SHA-256 of all the tensors, however they are sharded: 64 hexadecimal digits.

    Raises:
        CheckpointError: a file ends early.
    """
    return combined_hash(tensor_hashes(checkpoint))


def read_bits(checkpoint: Checkpoint, name: str) -> NDArray[Any]:
    """Return a tensor's raw bits as unsigned integers of its item size, in its shape.

    Types narrower than a byte come as a flat array of bytes.

    Raises:
        CheckpointError: there is no such tensor, or its file ends early.
    """
    tensor = checkpoint.tensor(name)
    with tensor.shard.open("rb") as file:
        data = np.frombuffer(read_exactly(file, tensor.start, tensor.bytes), np.uint8)
    width = tensor.bytes // tensor.elements if tensor.elements else 1
    if width * tensor.elements != tensor.bytes or width not in (1, 2, 4, 8):
        return data
    return data.view(f"<u{width}").reshape(tensor.shape)


def read_tensor(checkpoint: Checkpoint, name: str) -> NDArray[Any]:
    """Return a tensor's values in its shape; BF16 comes as float32, which holds it exactly.

    Raises:
        CheckpointError: there is no such tensor, its file ends early, or numpy lacks its dtype.
    """
    tensor = checkpoint.tensor(name)
    if tensor.dtype == "BF16":
        wide = read_bits(checkpoint, name).astype("<u4") << np.uint32(16)
        return wide.view("<f4").reshape(tensor.shape)
    if tensor.dtype not in NUMPY_TYPES:
        raise CheckpointError(
            f"The tensor {name} is stored as {tensor.dtype}, which cannot be read as numbers here.",
            "Use the model in F32, F16 or BF16.",
        )
    with tensor.shard.open("rb") as file:
        data = read_exactly(file, tensor.start, tensor.bytes)
    return np.frombuffer(data, NUMPY_TYPES[tensor.dtype]).reshape(tensor.shape)


def find_nonfinite(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the names of the tensors that hold a NaN or an infinity, in the order of the files.

    Raises:
        CheckpointError: a file ends early.
    """
    return tuple(name for name, tensor in checkpoint.tensors.items() if _holds_nonfinite(tensor))


def _holds_nonfinite(tensor: TensorRange) -> bool:
    mask = NONFINITE_BITS.get(tensor.dtype)
    if mask is None or not tensor.elements:
        return False
    unsigned = np.dtype(f"<u{tensor.bytes // tensor.elements}")
    marker = unsigned.type(mask)
    return any(
        bool(((np.frombuffer(chunk, unsigned) & marker) == marker).any())
        for chunk in stream(tensor)
    )
