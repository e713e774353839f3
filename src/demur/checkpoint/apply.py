"""Applying and reverting a patch: a copy of the model folder with some byte ranges rewritten.

The model is never loaded. One pass over it copies its files (sharing blocks where the file system
can), rewrites the changed tensors in blocks of rows, and hashes all; the hashes are checked against
the manifest before the copy gets its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.checkpoint.copying import Copied, UnexpectedBaseError, copy_model, files_of
from demur.checkpoint.header import broken
from demur.checkpoint.history import read_history, write_history
from demur.checkpoint.index import Checkpoint, combined_hash, open_checkpoint, tensor_hashes
from demur.checkpoint.manifest import Entry, Patch, demur_version, read_patch, verify_payload
from demur.checkpoint.patch_rewrites import Direction, applying, reverting
from demur.checkpoint.storage import require_empty, require_room, whole_folder, writing
from demur.errors import CheckpointError


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
    history = read_history(model_folder)
    manifest = patch.manifest
    history.append(
        {
            "demur": demur_version(),
            "patch": manifest.hash,
            "base": {"name": manifest.base_name, "hash": manifest.base_hash},
            "result": {"hash": manifest.result_hash},
            "recipe": dict(manifest.recipe),
        }
    )
    copied = _rewrite(checkpoint, patch, output, files, history, applying)
    expected = manifest.result_hash
    return _applied(output, patch, copied.result, expected, "the patched model", left_out)


def revert_patch(model_folder: Path, patch_path: Path, output: Path) -> Applied:
    """Write the model as it was before the patch to `output`, a folder that is new or empty.

    Raises:
        CheckpointError: the patch is damaged or of a newer version; the model does not carry it;
            the output is taken; the disk is full. Nothing is left behind then.
    """
    patch, checkpoint, files, left_out = _prepare(model_folder, patch_path, output)
    history = read_history(model_folder)
    history = [entry for entry in history if entry.get("patch") != patch.manifest.hash]
    copied = _rewrite(checkpoint, patch, output, files, history, reverting)
    expected = patch.manifest.base_hash
    return _applied(output, patch, copied.result, expected, patch.manifest.base_name, left_out)


def _prepare(
    model_folder: Path, patch_path: Path, output: Path
) -> tuple[Patch, Checkpoint, list[Path], tuple[str, ...]]:
    """Make every check that costs little; return also the files to copy and those left out."""
    require_empty(output)
    patch = read_patch(patch_path)
    checkpoint = open_checkpoint(model_folder)
    for entry in patch.manifest.entries:
        _require_same_form(checkpoint, patch, entry)
    files, left_out = files_of(checkpoint)
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


def _rewrite(
    checkpoint: Checkpoint,
    patch: Patch,
    output: Path,
    files: list[Path],
    history: list[dict[str, Any]],
    direction: Direction,
) -> Copied:
    """Write the edited copy, in one pass over the model."""
    entries = patch.manifest.entries
    rewrites = {
        one.tensor: direction(checkpoint.tensors[one.tensor], one, patch) for one in entries
    }
    applied = direction is applying
    wanted = {one.tensor: one.base_hash if applied else one.result_hash for one in entries}
    require = _require_base if applied else _require_patched
    with writing(output), whole_folder(output) as temporary:
        try:
            copied = copy_model(checkpoint, files, temporary, rewrites, expected=wanted)
        except UnexpectedBaseError as error:
            require(checkpoint, patch, tensor_hashes(checkpoint))
            raise CheckpointError(
                f"The tensor {error} changed while it was read.",
                "Wait until nothing writes to the model, and try again.",
            ) from error
        require(checkpoint, patch, copied.base)
        write_history(temporary, history)
        return copied


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
