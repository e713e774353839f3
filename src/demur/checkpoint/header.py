"""A safetensors file as byte ranges: its header read and checked, or laid out for writing.

The format (https://huggingface.co/docs/safetensors): eight bytes with the header's length, the
header as JSON, then the tensors one after another without gaps. Nothing here reads a tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from demur.errors import CheckpointError

LONGEST_HEADER = 100_000_000
ITEM_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class TensorRange:
    """Where one tensor lies: bytes `start` up to `stop` of the file `shard`, row-major.

    `dtype` is the name that safetensors gives it: "F32", "F16", "BF16" and so on.
    """

    name: str
    shard: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """How many bytes the tensor takes."""
        return self.stop - self.start


@dataclass(frozen=True)
class Header:
    """One safetensors file: its free text by key, and its tensors in the order of the file."""

    metadata: Mapping[str, str]
    tensors: tuple[TensorRange, ...]


class _MalformedError(ValueError):
    """The header is not what the format says; the text says how."""


def broken(path: Path, reason: str) -> CheckpointError:
    """Return the error for a safetensors file that is cut short or damaged."""
    return CheckpointError(
        f"{path} is truncated or corrupt: {reason}.",
        "Download or copy this file again.",
    )


def read_header(path: Path) -> Header:
    """Return the header of a safetensors file, with every byte range checked.

    Raises:
        CheckpointError: the file cannot be read, is truncated, or its byte ranges overlap, leave
            gaps or do not fit their dtype and shape.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8:
                raise broken(path, f"it is only {size} bytes long")
            if length > min(size - 8, LONGEST_HEADER):
                raise broken(path, f"its header claims {length} bytes of a file of {size}")
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions."
        ) from error
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates)
        tensors = _tensors(path, header, 8 + length)
        _check_tiling(tensors, 8 + length, size)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise broken(path, "its header is not JSON") from error
    except _MalformedError as error:
        raise broken(path, str(error)) from error
    return Header(_metadata(header), tensors)


def layout(
    tensors: Sequence[tuple[str, str, Sequence[int], int]], metadata: Mapping[str, str]
) -> bytes:
    """Return the first bytes of a safetensors file: the length and the header, padded to 8.

    Args:
        tensors: name, dtype, shape and size in bytes, in the order in which the data will follow.
        metadata: free text by key.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for name, dtype, shape, size in tensors:
        offsets = [position, position + size]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += size
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _MalformedError("its header names something twice")
    return found


def _metadata(header: Mapping[str, Any]) -> dict[str, str]:
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict):
        return {}
    return {str(key): value for key, value in metadata.items() if isinstance(value, str)}


def _is_naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _tensors(path: Path, header: object, origin: int) -> tuple[TensorRange, ...]:
    if not isinstance(header, dict):
        raise _MalformedError("its header is not a JSON object")
    tensors = []
    for name, value in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(value, dict) or not isinstance(value.get("dtype"), str):
            raise _MalformedError(f"the tensor {name} has no dtype")
        shape, offsets = value.get("shape"), value.get("data_offsets")
        if not _is_naturals(shape) or not _is_naturals(offsets) or len(offsets) != 2:
            raise _MalformedError(f"the tensor {name} has no valid shape or byte range")
        start, stop = offsets
        bits = ITEM_BITS.get(value["dtype"])
        if stop < start or (bits and (stop - start) * 8 != bits * math.prod(shape)):
            raise _MalformedError(f"the byte range of the tensor {name} does not fit its shape")
        tensors.append(
            TensorRange(name, path, value["dtype"], tuple(shape), origin + start, origin + stop)
        )
    return tuple(sorted(tensors, key=lambda tensor: (tensor.start, tensor.stop)))


def _check_tiling(tensors: Sequence[TensorRange], origin: int, size: int) -> None:
    end = origin
    for tensor in tensors:
        if tensor.start < end:
            raise _MalformedError(f"the byte range of the tensor {tensor.name} overlaps another")
        if tensor.start > end:
            raise _MalformedError(f"there is a gap before the tensor {tensor.name}")
        end = tensor.stop
    if end > size:
        raise _MalformedError(f"its tensors end at byte {end} and the file at byte {size}")
    if end < size:
        raise _MalformedError(f"{size - end} bytes at its end belong to no tensor")
