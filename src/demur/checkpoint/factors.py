"""The low-rank changes that a patch holds, read back as they were given to `make_patch`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.checkpoint.changes import LowRank
from demur.checkpoint.index import stream
from demur.checkpoint.manifest import Entry, Patch, verify_payload
from demur.errors import CheckpointError


def read_factors(patch: Patch) -> dict[str, LowRank]:
    """Return the changes of a patch, by the tensors' names on disk.

    Raises:
        CheckpointError: the patch is damaged, or changes a tensor otherwise than by a product of
            low rank.
    """
    verify_payload(patch)
    return {entry.tensor: _factors(patch, entry) for entry in patch.manifest.entries}


def _factors(patch: Patch, entry: Entry) -> LowRank:
    if entry.kind != "low-rank":
        raise CheckpointError(
            f"{patch.path} changes {entry.tensor} as a whole, and not by a product of low rank.",
            "Give a patch of low rank, as `demur distill` makes it without --full.",
        )
    return LowRank(*(_read(patch, f"{entry.tensor}.{part}") for part in ("up", "down")))


def _read(patch: Patch, name: str) -> NDArray[Any]:
    part = patch.parts[name]
    return np.frombuffer(b"".join(stream(part)), "<f4").reshape(part.shape)
