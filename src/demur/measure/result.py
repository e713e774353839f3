"""`result.json`: what a run came to, for machines; written last, so that it marks a whole run."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demur.errors import RunError
from demur.measure.scorecard import Scorecard

FILE = "result.json"
FORMAT = 1


def write_result(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write `result.json` into a run folder, whole or not at all; no number is NaN in it.

    Raises:
        RunError: the folder cannot be written to, or has no room.
    """
    from demur.checkpoint.manifest import plain
    from demur.report import files

    text = json.dumps(plain(result), indent=2, ensure_ascii=False, allow_nan=False)
    return files.write_text(folder / FILE, text + "\n")


def read_result(folder: Path) -> dict[str, Any]:
    """Return what `write_result` wrote into a run folder.

    Raises:
        RunError: there is no such folder, its run is not finished, or the file is damaged.
    """
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        if (folder / "journal.sqlite").exists():
            raise RunError(
                f"The run in {folder} is not finished: it has no {FILE}.",
                "Give its `demur align` command again: it continues.",
            ) from error
        raise RunError(
            f"{folder} is not a run folder: it has no {FILE}.",
            "Name a folder that `demur align` wrote, such as runs/smollm2-135m-0a1b2c3d.",
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise _damaged(path, f"it is no result of format {FORMAT}")
    return found


def scorecard_of(result: Mapping[str, Any]) -> Scorecard:
    """Return the scorecard in a result.

    Raises:
        RunError: it is damaged.
    """
    try:
        card: Scorecard = _restore(Scorecard, result["scorecard"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(Path(FILE), f"its scorecard lacks {error}") from error
    return card


def _restore(kind: Any, value: Any) -> Any:
    """Return `value`, as JSON has it, as the type `kind`; null is NaN where a number belongs."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)
        return kind(**{each.name: _restore(hints[each.name], value[each.name]) for each in fields})
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        return tuple(_restore(inner, item) for item in value)
    if isinstance(kind, types.UnionType):
        inner = next(each for each in typing.get_args(kind) if each is not type(None))
        return None if value is None else _restore(inner, value)
    if kind is float:
        return float("nan") if value is None else float(value)
    return kind(value)


def _damaged(path: Path, why: str) -> RunError:
    return RunError(
        f"{path} is damaged ({why}).", "Delete it and give the run's `demur align` command again."
    )
