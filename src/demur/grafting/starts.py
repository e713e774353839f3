"""Grafts that an earlier run found for a relative, to begin with: distil once, graft everywhere.

    demur graft ./another --donor runs/aligned/patch.safetensors --start runs/first

What carries refusal lies in the donor, so that siblings take much the same of it. The graft that
was kept for one, and its finalists, are measured anew on the search prompts of the next, at the
scale that suits it, and confirmed on its validation prompts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demur.errors import ConfigError
from demur.graft.candidate import Candidate

FILE = "graft.json"  # `record` writes it
MOST = 3  # sets and ranks that are tried


def read_starts(run: str | None) -> tuple[Candidate, ...]:
    """Return what a run of `demur graft` kept, and its finalists; none where there is no run.

    Raises:
        ConfigError: the folder holds no finished graft.
    """
    if run is None:
        return ()
    path = Path(run) / FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = [content["chosen"], *content.get("finalists", ())]
        return first_of([_candidate(one) for one in found])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{run} holds no finished graft to begin with ({FILE} cannot be read).",
            "Give the run folder of a finished `demur graft`, or leave --start out.",
        ) from error


def first_of(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the first candidate of each set of modules and rank, `MOST` in all; swaps are none."""
    found: dict[tuple[frozenset[str], int | None], Candidate] = {}
    for one in candidates:
        if one.kind == "delta" and one.modules:
            found.setdefault((one.modules, one.rank), one)
    return tuple(found.values())[:MOST]


def _candidate(value: dict[str, Any]) -> Candidate:
    names = ("modules", "scale", "rank", "kind")
    return Candidate.from_json({name: value[name] for name in names})
