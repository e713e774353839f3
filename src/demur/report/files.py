"""Text files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from demur.errors import RunError


def write_text(path: Path, text: str) -> Path:
    """Write `text` to `path` through a temporary sibling, and return the path.

    Raises:
        RunError: the folder cannot be written to, or has no room.
    """
    sibling = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with sibling.open("w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(sibling, path)
        finally:
            sibling.unlink(missing_ok=True)
    except OSError as problem:
        raise RunError(
            f"{path} could not be written: {problem.strerror}.",
            "Make room or choose another folder, and write it again.",
        ) from problem
    return path
