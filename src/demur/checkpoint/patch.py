"""Making a patch: the change of a model's weights as one small file that can be taken back."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from demur.checkpoint.changes import Change, LowRank, Spool, add_entry
from demur.checkpoint.header import layout
from demur.checkpoint.index import Checkpoint, combined_hash, open_checkpoint, tensor_hashes
from demur.checkpoint.manifest import KEY, Manifest, demur_version, plain, read_patch
from demur.checkpoint.storage import copy_range, require_room, whole_file, writing
from demur.errors import CheckpointError

OUTPUT_HEAD = "lm_head.weight"


@dataclass(frozen=True)
class PatchSummary:
    """What was made: the file, its size in bytes, and how much of the model it changes.

    `tied` names the output heads that were given but are not on disk, because the model shares
    them with its input embedding.
    """

    path: Path
    bytes: int
    hash: str
    base_hash: str
    result_hash: str
    tensors: int
    parameters: int
    changed: int
    share: float
    corrections: int
    tied: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The summary for a user."""
        return (
            f"The patch {self.path} ({self.bytes / 1e6:.1f} MB) changes {self.share:.2%} of"
            f" {self.parameters:,} parameters, in {self.tensors} tensors, and can be taken back"
            f" to the bit ({self.corrections:,} corrections)."
        )


def make_patch(
    base_folder: Path,
    changes: Mapping[str, Change],
    output: Path,
    *,
    base_name: str,
    recipe: Mapping[str, Any],
    results: Mapping[str, Any],
) -> PatchSummary:
    """Write a patch that turns the model in `base_folder` into the changed one, atomically.

    Args:
        base_folder: the model's folder; it is only read.
        changes: the change of each tensor, by the tensor's name on disk. Each is asked for once,
            so a mapping may load them one at a time.
        output: the patch file; one that exists is replaced.
        base_name: the name under which others find the base model.
        recipe: how the change was made; anything that `plain` can turn into JSON.
        results: what was measured; `update_results` can add to it later.

    Raises:
        CheckpointError: a tensor is not there, a change does not fit its tensor, or it would make
            weights that are NaN or infinite; the disk is full.
    """
    checkpoint = open_checkpoint(base_folder)
    names, tied = _names(checkpoint, changes)
    hashes = tensor_hashes(checkpoint)
    with writing(output), _scratch(output) as file:
        spool = Spool(file)
        entries = tuple(
            add_entry(spool, checkpoint.tensors[name], hashes[name], changes[name])
            for name in names
        )
        manifest = Manifest(
            demur=demur_version(),
            base_name=base_name,
            base_hash=combined_hash(hashes),
            result_hash=combined_hash(
                hashes | {entry.tensor: entry.result_hash for entry in entries}
            ),
            parameters=checkpoint.parameters,
            changed=sum(entry.changed for entry in entries),
            entries=entries,
            recipe=plain(recipe),
            results=plain(results),
        )
        size = file.tell()
        require_room(output, size)
        with whole_file(output) as target:
            target.write(layout(spool.parts, {KEY: manifest.to_json()}))
            file.flush()
            copy_range(file, target, 0, size)
    return _summary(output, manifest, tied)


def _scratch(output: Path) -> IO[bytes]:
    """Return a nameless file on the disk that will hold the patch."""
    output.parent.mkdir(parents=True, exist_ok=True)
    # Where the file system knows no nameless files it has this name for a moment.
    return tempfile.TemporaryFile(dir=output.parent, prefix=f".{output.name}.", suffix=".partial")


def read_summary(path: Path) -> PatchSummary:
    """Return the summary of a patch on disk.

    Raises:
        CheckpointError: the file is no patch, or a damaged one.
    """
    return _summary(path, read_patch(path).manifest, ())


def _summary(path: Path, manifest: Manifest, tied: tuple[str, ...]) -> PatchSummary:
    return PatchSummary(
        path=path,
        bytes=path.stat().st_size,
        hash=manifest.hash,
        base_hash=manifest.base_hash,
        result_hash=manifest.result_hash,
        tensors=len(manifest.entries),
        parameters=manifest.parameters,
        changed=manifest.changed,
        share=manifest.share,
        corrections=sum(entry.corrections for entry in manifest.entries),
        tied=tied,
    )


def _names(
    checkpoint: Checkpoint, changes: Mapping[str, Change]
) -> tuple[list[str], tuple[str, ...]]:
    """Return the tensors to change in the order of the files, and the tied ones left aside."""
    tied = []
    for name in changes:
        if name in checkpoint.tensors:
            continue
        if not name.endswith(OUTPUT_HEAD):
            checkpoint.tensor(name)
        if isinstance(changes[name], LowRank):
            raise CheckpointError(
                f"{name} is tied to the input embedding and not on disk, so that a change of it"
                " alone cannot be kept.",
                "Change the input embedding instead, or untie the model first.",
            )
        tied.append(name)
    names = [name for name in checkpoint.tensors if name in changes]
    if not names:
        raise CheckpointError(
            f"There is nothing to change in {checkpoint.folder}.", "Give at least one tensor."
        )
    return names, tuple(tied)
