"""Answers that a run has recorded: read from its folder again, to be judged by other judges.

A finished `demur align` says which answers were given before and after, and to which prompts. Of
any other folder with a journal, the answers are grouped by the model that gave them and by how
they were written.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.errors import RunError
from demur.run.journal import content_key

JOURNAL = "journal.sqlite"


@dataclass(frozen=True)
class Recording:
    """Answers of one model to one set of prompts.

    Attributes:
        title: what the prompts are.
        side: `before` or `after`, or which model.
        prompts, answers: in the same order.
    """

    title: str
    side: str
    prompts: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """How answers were written: the most tokens, and the opening put into the model's mouth."""

    tokens: int
    opening: str


def recorded_answers(folder: Path) -> dict[tuple[str, Settings], dict[str, str]]:
    """Return a journal's answers: by (model, settings), then by prompt.

    Raises:
        RunError: there is no journal, or it cannot be read.
    """
    path = folder / JOURNAL
    if not path.is_file():
        raise RunError(
            f"{folder} is not a run folder: it has no {JOURNAL}.",
            "Name a folder that demur wrote, or a file of answers.",
        )
    found: dict[tuple[str, Settings], dict[str, str]] = defaultdict(dict)
    try:
        # read only, and without the files that SQLite lays beside a journal in use: the run that is
        # judged again stays as it is
        log = path.with_name(path.name + "-wal")
        in_use = log.exists() and log.stat().st_size > 0
        how = "mode=ro" if in_use else "immutable=1"
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True)
        try:
            rows = connection.execute(
                "SELECT model, settings, prompt, text FROM answers ORDER BY written, key"
            ).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise RunError(
            f"The journal {path} cannot be read ({error}).", "Name another run folder."
        ) from error
    for model, settings, prompt, text in rows:
        written = json.loads(settings)
        key = Settings(int(written.get("tokens", 0)), str(written.get("opening", "")))
        found[model, key][prompt] = text
    return dict(found)


def identity_of(weights: str, template: str | None, about: Mapping[str, Any], dtype: str) -> str:
    """Return a model's key in journals, as `ChatModel.identity` makes it."""
    return content_key(weights, template, about.get("system"), about.get("thinking"), dtype)


def pick(
    answers: Mapping[tuple[str, Settings], Mapping[str, str]],
    model: str,
    settings: Settings,
    prompts: Sequence[str],
    title: str,
    side: str,
) -> Recording:
    """Return one model's answers to these prompts.

    Raises:
        RunError: some of them are not in the journal.
    """
    known = answers.get((model, settings), {})
    missing = sum(prompt not in known for prompt in prompts)
    if missing:
        raise RunError(
            f"The journal lacks {missing} of {len(prompts)} answers ({side}: {title}).",
            "The run was made by another version of demur or with other prompts; make it again.",
        )
    return Recording(title, side, tuple(prompts), tuple(known[prompt] for prompt in prompts))


def grouped(answers: Mapping[tuple[str, Settings], Mapping[str, str]]) -> tuple[Recording, ...]:
    """Return all answers of a journal, by model and by how they were written.

    Raises:
        RunError: there are none.
    """
    if not answers:
        raise RunError("The run has recorded no answers.", "Name a run that has.")
    models = list(dict.fromkeys(model for model, _ in answers))
    found = []
    for (model, settings), known in answers.items():
        opened = f', opened with "{settings.opening}"' if settings.opening else ""
        side = f"model {models.index(model) + 1} ({model[:8]})"
        title = f"answers of {settings.tokens} tokens{opened}"
        found.append(Recording(title, side, tuple(known), tuple(known.values())))
    return tuple(found)
