"""Applying and reverting a patch: a copy of the model folder with some byte ranges rewritten.

The model is never loaded. Its files are copied (sharing blocks where the file system can), the
changed tensors are rewritten in blocks of rows, and their hashes are checked against the manifest
before the copy gets its name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from demur.checkpoint import arithmetic, corrections
from demur.checkpoint.arithmetic import BIT_TYPES
from demur.checkpoint.foreign import PICKLE_SUFFIXES
from demur.checkpoint.header import TensorRange, broken
from demur.checkpoint.index import (
    CHUNK_BYTES,
    Checkpoint,
    combined_hash,
    open_checkpoint,
    read_exactly,
    stream,
    tensor_hash,
    tensor_hashes,
)
from demur.checkpoint.manifest import Entry, Patch, demur_version, read_patch, verify_payload
from demur.checkpoint.storage import copy_file, require_empty, require_room, whole_folder, writing
from demur.errors import CheckpointError

PROVENANCE = "demur.json"
COPIED_FOLDERS = ("additional_chat_templates",)
OTHER_WEIGHTS = (*PICKLE_SUFFIXES, ".bin.index.json", ".gguf", ".h5", ".msgpack", ".onnx")

Edit = Callable[[IO[bytes], TensorRange, Entry, Patch], None]


@dataclass(frozen=True)
class Applied:
    """What came out: the folder, whether it is the expected model to the bit, and how much changed.

    `left_out` names the files that were not copied because they would still hold the old weights.
    """

    folder: Path
    exact: bool
    tensors: int
    share: float
    checkpoint_hash: str
    left_out: tuple[str, ...]
    sentence: str


def apply_patch(model_folder: Path, patch_path: Path, output: Path) -> Applied:
    """Write the patched model to `output`, a folder that is new or empty.

    Raises:
        CheckpointError: the patch is damaged or of a newer version; the model is not its base (by
            name, dtype, shape and hash) or carries it already; the output is taken; the disk is
            full. Nothing is left behind then.
    """
    patch, checkpoint, files, left_out = _prepare(model_folder, patch_path, output)
    hashes = tensor_hashes(checkpoint)
    _require_base(checkpoint, patch, hashes)
    history = _read_history(model_folder)
    manifest = patch.manifest
    history.append(
        {
            "demur": demur_version(),
            "patch": manifest.hash,
            "base": {"name": manifest.base_name, "hash": manifest.base_hash},
            "result": {"hash": manifest.result_hash},
        }
    )
    found = _rewrite(checkpoint, patch, output, files, history, hashes, _apply_entry)
    return _applied(output, patch, found, manifest.result_hash, "the patched model", left_out)


def revert_patch(model_folder: Path, patch_path: Path, output: Path) -> Applied:
    """Write the model as it was before the patch to `output`, a folder that is new or empty.

    Raises:
        CheckpointError: the patch is damaged or of a newer version; the model does not carry it;
            the output is taken; the disk is full. Nothing is left behind then.
    """
    patch, checkpoint, files, left_out = _prepare(model_folder, patch_path, output)
    hashes = tensor_hashes(checkpoint)
    _require_patched(checkpoint, patch, hashes)
    history = _read_history(model_folder)
    history = [entry for entry in history if entry.get("patch") != patch.manifest.hash]
    found = _rewrite(checkpoint, patch, output, files, history, hashes, _revert_entry)
    expected = patch.manifest.base_hash
    return _applied(output, patch, found, expected, patch.manifest.base_name, left_out)


def _prepare(
    model_folder: Path, patch_path: Path, output: Path
) -> tuple[Patch, Checkpoint, list[Path], tuple[str, ...]]:
    """Make every check that costs little; return also the files to copy and those left out."""
    require_empty(output)
    patch = read_patch(patch_path)
    checkpoint = open_checkpoint(model_folder)
    for entry in patch.manifest.entries:
        _require_same_form(checkpoint, patch, entry)
    files, left_out = _files(checkpoint)
    require_room(output, sum(path.stat().st_size for path in files))
    verify_payload(patch)
    return patch, checkpoint, files, left_out


def _require_same_form(checkpoint: Checkpoint, patch: Patch, entry: Entry) -> None:
    base_name = patch.manifest.base_name
    if entry.tensor not in checkpoint.tensors:
        raise CheckpointError(
            f"{checkpoint.folder} has no tensor {entry.tensor}, which this patch changes.",
            f"Use {base_name}, for which it was made.",
        )
    tensor = checkpoint.tensors[entry.tensor]
    if (tensor.dtype, tensor.shape) != (entry.dtype, entry.shape):
        raise CheckpointError(
            f"{entry.tensor} is {tensor.dtype} {list(tensor.shape)} in {checkpoint.folder}, and"
            f" {entry.dtype} {list(entry.shape)} in the model for which this patch was made.",
            f"Use {base_name} as it was published, in {entry.dtype}.",
        )
    if entry.kind == "dense" and patch.parts[f"{entry.tensor}.xor"].bytes < tensor.bytes:
        raise broken(patch.path, f"the data for {entry.tensor} are too short")


def _require_base(checkpoint: Checkpoint, patch: Patch, hashes: Mapping[str, str]) -> None:
    manifest = patch.manifest
    found = combined_hash(hashes)
    if found == manifest.base_hash:
        return
    if all(hashes[entry.tensor] == entry.result_hash for entry in manifest.entries):
        raise CheckpointError(
            f"The model in {checkpoint.folder} already carries this patch.",
            "Use it as it is, or take the patch out with `demur revert`.",
        )
    wrong = sum(hashes[entry.tensor] != entry.base_hash for entry in manifest.entries)
    where = (
        f"{wrong} of the {len(manifest.entries)} tensors that it changes differ"
        if wrong
        else "tensors that it does not change differ"
    )
    raise CheckpointError(
        f"The model in {checkpoint.folder} (checkpoint hash {found[:16]}) is not the base of this"
        f" patch: {where}.",
        f"Apply it to {manifest.base_name}, whose checkpoint hash begins with"
        f" {manifest.base_hash[:16]}.",
    )


def _require_patched(checkpoint: Checkpoint, patch: Patch, hashes: Mapping[str, str]) -> None:
    manifest = patch.manifest
    found = combined_hash(hashes)
    if found == manifest.result_hash:
        return
    if found == manifest.base_hash:
        raise CheckpointError(
            f"The model in {checkpoint.folder} does not carry this patch: it is its base.",
            "Use it as it is.",
        )
    wrong = sum(hashes[entry.tensor] != entry.result_hash for entry in manifest.entries)
    if not wrong:
        raise CheckpointError(
            f"The model in {checkpoint.folder} carries this patch, but other tensors have changed"
            " since.",
            "Revert the later changes first.",
        )
    raise CheckpointError(
        f"The model in {checkpoint.folder} does not carry this patch: {wrong} of the"
        f" {len(manifest.entries)} tensors that it changes are not as it leaves them.",
        "Name the folder that `demur apply` wrote, whose checkpoint hash begins with"
        f" {manifest.result_hash[:16]}.",
    )


def _files(checkpoint: Checkpoint) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files of the model folder to copy, and the names of other weights."""
    files, left_out = [], []
    for path in sorted(checkpoint.folder.iterdir()):
        if path.is_dir() and path.name in COPIED_FOLDERS:
            files += sorted(inner for inner in path.iterdir() if inner.is_file())
        if not path.is_file() or path.name == PROVENANCE:
            continue
        stray = path.suffix == ".safetensors" and not path.name.startswith("adapter_")
        if path not in checkpoint.shards and (stray or path.name.endswith(OTHER_WEIGHTS)):
            left_out.append(path.name)
        else:
            files.append(path)
    return files, tuple(left_out)


def _rewrite(
    checkpoint: Checkpoint,
    patch: Patch,
    output: Path,
    files: list[Path],
    history: list[dict[str, Any]],
    hashes: dict[str, str],
    edit: Edit,
) -> dict[str, str]:
    """Write the edited copy and return the hashes of all its tensors, read back from disk."""
    with writing(output), whole_folder(output) as temporary:
        for path in files:
            target = temporary / path.relative_to(checkpoint.folder)
            target.parent.mkdir(exist_ok=True)
            copy_file(path, target)
        for entry in patch.manifest.entries:
            tensor = checkpoint.tensors[entry.tensor]
            with (temporary / tensor.shard.name).open("r+b") as file:
                edit(file, tensor, entry, patch)
        if history:
            text = json.dumps({"patches": history}, indent=2, ensure_ascii=False)
            (temporary / PROVENANCE).write_text(text + "\n", "utf-8")
        written = open_checkpoint(temporary)
        return hashes | {
            entry.tensor: tensor_hash(written, entry.tensor) for entry in patch.manifest.entries
        }


def _apply_entry(file: IO[bytes], tensor: TensorRange, entry: Entry, patch: Patch) -> None:
    if entry.kind == "dense":
        _flip(file, tensor, patch)
        return
    for start, bits, delta in _low_rank_blocks(file, tensor, entry, patch):
        _write(file, start, arithmetic.add(bits, delta, tensor.dtype).tobytes())


def _revert_entry(file: IO[bytes], tensor: TensorRange, entry: Entry, patch: Patch) -> None:
    if entry.kind == "dense":
        _flip(file, tensor, patch)
        return
    with patch.path.open("rb") as record:
        if entry.corrections:
            record.seek(patch.parts[f"{tensor.name}.corrections"].start)
        for start, bits, delta in _low_rank_blocks(file, tensor, entry, patch):
            reverted = arithmetic.subtract(bits, delta, tensor.dtype)
            if entry.corrections:
                try:
                    reverted = corrections.correct(reverted, record)
                except ValueError as error:
                    raise broken(patch.path, str(error)) from error
            _write(file, start, reverted.tobytes())


def _low_rank_blocks(
    file: IO[bytes], tensor: TensorRange, entry: Entry, patch: Patch
) -> Iterator[tuple[int, arithmetic.Bits, NDArray[np.float64]]]:
    """Yield each block of rows: where it starts in the file, its bits, and the change's sum."""
    up, down = (_factor(patch.parts[f"{tensor.name}.{part}"]) for part in ("up", "down"))
    rows, columns = tensor.shape
    kind = BIT_TYPES[tensor.dtype]
    for row in range(0, rows, entry.rows_per_block):
        height = min(entry.rows_per_block, rows - row)
        start = tensor.start + row * columns * kind.itemsize
        data = read_exactly(file, start, height * columns * kind.itemsize)
        bits = np.frombuffer(data, kind).reshape(height, columns)
        yield start, bits, arithmetic.low_rank_sum(up[row : row + height], down)


def _factor(part: TensorRange) -> NDArray[np.float64]:
    data = b"".join(stream(part))
    return np.frombuffer(data, "<f4").reshape(part.shape).astype(np.float64)


def _flip(file: IO[bytes], tensor: TensorRange, patch: Patch) -> None:
    """Exchange old and new bits, in either direction."""
    part = patch.parts[f"{tensor.name}.xor"]
    with patch.path.open("rb") as source:
        for offset in range(0, tensor.bytes, CHUNK_BYTES):
            count = min(CHUNK_BYTES, tensor.bytes - offset)
            old = np.frombuffer(read_exactly(file, tensor.start + offset, count), np.uint8)
            flips = np.frombuffer(read_exactly(source, part.start + offset, count), np.uint8)
            _write(file, tensor.start + offset, (old ^ flips).tobytes())


def _write(file: IO[bytes], start: int, data: bytes) -> None:
    file.seek(start)
    file.write(data)


def _read_history(folder: Path) -> list[dict[str, Any]]:
    """Return what `demur.json` says about the patches in a model, oldest first."""
    path = folder / PROVENANCE
    if not path.exists():
        return []
    try:
        history = json.loads(path.read_text("utf-8"))["patches"]
        return [dict(entry) for entry in history]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not the list of patches that demur keeps there.",
            "Rename or delete this file; the weights say themselves which patch they carry.",
        ) from error


def _applied(
    output: Path,
    patch: Patch,
    found: Mapping[str, str],
    expected: str,
    what: str,
    left_out: tuple[str, ...],
) -> Applied:
    manifest = patch.manifest
    exact = combined_hash(found) == expected
    changed = f"{len(manifest.entries)} tensors ({manifest.share:.2%} of the parameters)"
    sentence = (
        f"Rewrote {changed} in {output}: it is {what} to the bit."
        if exact
        else f"Rewrote {changed} in {output}, but it is not {what} to the bit: this machine does"
        " not round as IEEE 754 says, so expect differences in the last place."
    )
    if left_out:
        sentence += f" Left out {', '.join(left_out)}, which demur does not patch."
    return Applied(
        folder=output,
        exact=exact,
        tensors=len(manifest.entries),
        share=manifest.share,
        checkpoint_hash=combined_hash(found),
        left_out=left_out,
        sentence=sentence,
    )
