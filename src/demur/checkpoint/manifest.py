"""A patch's manifest: what it changes, in which model, how it was made and what was measured.

A patch is one safetensors file. The manifest is JSON under the key `demur_patch` of its metadata;
the data of a changed tensor NAME are the tensors

* `NAME.up` [rows, rank] and `NAME.down` [rank, columns], F32, for a low-rank change, and
  `NAME.corrections` (see `corrections.py`) where reverting needs any;
* `NAME.xor`, the raw bits of old and new tensor combined by exclusive or, for a dense change.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from demur.checkpoint.arithmetic import BIT_TYPES
from demur.checkpoint.header import TensorRange, broken, layout, read_header
from demur.checkpoint.index import stream
from demur.checkpoint.storage import copy_range, whole_file, writing
from demur.errors import CheckpointError

KEY = "demur_patch"
VERSION = 1
PARTS = {"low-rank": ("up", "down", "corrections"), "dense": ("xor",)}


@dataclass(frozen=True)
class Entry:
    """One changed tensor.

    `changed` counts the weights whose bits differ, `corrections` those that subtracting alone does
    not bring back; `rows_per_block` is how the corrections are cut. Dense entries have rank None.
    """

    tensor: str
    kind: Literal["low-rank", "dense"]
    rank: int | None
    dtype: str
    shape: tuple[int, ...]
    base_hash: str
    result_hash: str
    payload_hash: str
    changed: int
    corrections: int
    rows_per_block: int


@dataclass(frozen=True)
class Manifest:
    """All that a patch says about itself; hashes are those of `demur.checkpoint.index`."""

    demur: str
    base_name: str
    base_hash: str
    result_hash: str
    parameters: int
    changed: int
    entries: tuple[Entry, ...]
    recipe: Mapping[str, Any]
    results: Mapping[str, Any]

    @property
    def share(self) -> float:
        """The share of the model's parameters that the patch changes, in [0, 1]."""
        return self.changed / self.parameters if self.parameters else 0.0

    @property
    def hash(self) -> str:
        """What identifies the patch: base, result and payload, whatever was measured since."""
        entries = [dataclasses.astuple(entry) for entry in self.entries]
        text = json.dumps([self.base_hash, self.result_hash, entries], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        """Return the text that stands in the patch's metadata."""
        return json.dumps({"version": VERSION, **plain(self)}, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Patch:
    """A patch on disk: its manifest, and where the parts of its payload lie, by their names."""

    path: Path
    manifest: Manifest
    parts: Mapping[str, TensorRange]

    def payload(self, entry: Entry) -> list[TensorRange]:
        """Return the parts that belong to an entry, in their order."""
        names = (f"{entry.tensor}.{part}" for part in PARTS[entry.kind])
        return [self.parts[name] for name in names if name in self.parts]


def demur_version() -> str:
    """Return the version of demur that runs, or "unknown" when it is not installed."""
    try:
        return importlib.metadata.version("demur")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: dataclasses as objects, NaN and infinity as null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not hasattr(value, "tolist"):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return plain(value.tolist())
    return str(value)


def read_patch(path: Path) -> Patch:
    """Return a patch's manifest and layout; the payload is not read.

    Raises:
        CheckpointError: the file is missing, truncated, no demur patch, damaged, or of a version
            that this demur does not know.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no patch file {path}.", "Check the path.")
    header = read_header(path)
    if KEY not in header.metadata:
        raise CheckpointError(
            f"{path} is a safetensors file but not a demur patch.",
            "Name a patch that demur made.",
        )
    try:
        found = json.loads(header.metadata[KEY])
        version = int(found.pop("version"))
        if version > VERSION:
            raise CheckpointError(
                f"{path} was made by a newer demur ({found.get('demur')}, patch version {version};"
                f" this one reads {VERSION}).",
                "Upgrade demur.",
            )
        entries = [Entry(**{**entry, "shape": tuple(entry["shape"])}) for entry in found["entries"]]
        manifest = Manifest(**{**found, "entries": tuple(entries)})
        patch = Patch(path, manifest, {part.name: part for part in header.tensors})
        for entry in manifest.entries:
            _check_entry(patch, entry)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise broken(path, "its manifest is damaged") from error
    return patch


def _check_entry(patch: Patch, entry: Entry) -> None:
    if entry.kind == "dense":
        fits = f"{entry.tensor}.xor" in patch.parts
    elif entry.kind == "low-rank":
        rows, columns = entry.shape
        up, down = patch.parts[f"{entry.tensor}.up"], patch.parts[f"{entry.tensor}.down"]
        fits = (
            entry.dtype in BIT_TYPES
            and entry.rows_per_block > 0
            and (up.dtype, up.shape) == ("F32", (rows, entry.rank))
            and (down.dtype, down.shape) == ("F32", (entry.rank, columns))
            and (entry.corrections == 0 or f"{entry.tensor}.corrections" in patch.parts)
        )
    else:
        raise ValueError(f"unknown kind {entry.kind}")
    if not fits:
        raise ValueError(f"the payload of {entry.tensor} is not what the manifest says")


def payload_hash(parts: Iterable[str]) -> str:
    """Return the hash of an entry's payload from the SHA-256 of each of its parts."""
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def verify_payload(patch: Patch) -> None:
    """Read the whole payload and check it against the manifest.

    Raises:
        CheckpointError: a part differs from what was written.
    """
    for entry in patch.manifest.entries:
        hashes = []
        for part in patch.payload(entry):
            digest = hashlib.sha256()
            for chunk in stream(part):
                digest.update(chunk)
            hashes.append(digest.hexdigest())
        if payload_hash(hashes) != entry.payload_hash:
            raise broken(patch.path, f"the data for {entry.tensor} differ from their hash")


def update_results(path: Path, results: Mapping[str, Any]) -> None:
    """Add measured results to a patch's manifest; keys that are there already are replaced.

    The file is replaced atomically, and the patch keeps its `Manifest.hash`.

    Raises:
        CheckpointError: as `read_patch`, or the file cannot be written.
    """
    patch = read_patch(path)
    merged = {**patch.manifest.results, **plain(results)}
    manifest = dataclasses.replace(patch.manifest, results=merged)
    parts = list(patch.parts.values())
    tensors = [(part.name, part.dtype, part.shape, part.bytes) for part in parts]
    with writing(path), path.open("rb") as reader, whole_file(path) as file:
        file.write(layout(tensors, {KEY: manifest.to_json()}))
        if parts:
            copy_range(reader, file, parts[0].start, parts[-1].stop - parts[0].start)
