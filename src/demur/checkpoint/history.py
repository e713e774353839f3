"""`demur.json` of a model folder: what demur changed in this model, oldest first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.errors import CheckpointError

PROVENANCE = "demur.json"


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the patches and grafts that a model carries.

    Raises:
        CheckpointError: the file is there and is not such a list.
    """
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


def write_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write the list into a folder; an empty one needs no file."""
    if history:
        text = json.dumps({"patches": list(history)}, indent=2, ensure_ascii=False)
        (folder / PROVENANCE).write_text(text + "\n", "utf-8")
