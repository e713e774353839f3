"""Finished runs of `demur align` as sources: the model before and the model after.

The run's folder is only read. Its journal holds every answer; which of its models is the one
before and which the one after is told by the examples in `result.json`. What each request is comes
from the prompts that the run's configuration names.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from demur.errors import PromptError, RunError
from demur.measure.result import read_result
from demur.prompts.builtin import builtin_set
from demur.prompts.choose import gather
from demur.prompts.types import Prompt
from demur.study.source import Entry, EntryKind, Source

SIDES = ("before", "after")
_GATHERED = (
    *("pairs", "harmful", "harmful_column", "benign", "benign_column"),
    *("ordinary", "ordinary_column"),
)


@dataclass(frozen=True)
class _Row:
    """One answer as a journal has it."""

    key: str
    model: str
    prompt: str
    text: str
    finished: bool
    tokens: int
    opening: str


def is_run(path: Path) -> bool:
    """Return whether a folder is one that a run wrote, finished or not."""
    return (path / "journal.sqlite").is_file() and (path / "config.json").is_file()


def read_run(path: Path) -> tuple[Source, Source]:
    """Return the model before and the model after, named `<folder>, before` and `<folder>, after`.

    Raises:
        RunError: the run is not finished, or its files are damaged.
    """
    result = read_result(path)
    try:
        configuration = result["configuration"]
        examples = result["scorecard"]["examples"]
        tokens, model = int(configuration["answer_tokens"]), str(configuration["model"])
        weights = {
            side: result["hashes"][name]
            for side, name in zip(SIDES, ("base", "aligned"), strict=True)
        }
        rows = [row for row in _rows(path / "journal.sqlite") if row.tokens == tokens]
        before, after = (_model(rows, examples, side) for side in SIDES)
    except (KeyError, TypeError, ValueError, sqlite3.Error) as error:
        raise RunError(
            f"The run in {path} cannot be read ({type(error).__name__}: {error}).",
            "Give its `demur align` command again, and then this one.",
        ) from error
    if before == after:  # nothing was changed, or the examples do not tell the two apart
        found = list(dict.fromkeys(row.model for row in rows))
        before, after = found[0], found[-1]
    kinds, note = _kinds(configuration)
    sources = [
        Source(
            f"{path.resolve().name}, {side}",
            "run",
            f"{Path(model).name if Path(model).exists() else model}, {side} aligning; answers of at"
            f" most {tokens} tokens.",
            _entries(rows, chosen, kinds),
            note,
            f"{weights[side]}/{chosen}",
        )
        for side, chosen in zip(SIDES, (before, after), strict=True)
    ]
    for source in sources:
        if not source.entries:
            raise RunError(
                f"The journal of the run in {path} holds no answer to a prompt that is known.",
                "Run `demur study` where the run was made, so that its prompt files are found.",
            )
    return sources[0], sources[1]


def _rows(path: Path) -> list[_Row]:
    columns = "key, model, prompt, text, finished, settings"
    query = f"SELECT {columns} FROM answers ORDER BY rowid"
    address = f"{path.resolve().as_uri()}?mode=ro"
    if not path.with_name(f"{path.name}-wal").exists():  # else reading would leave files behind
        address += "&immutable=1"
    found = _fetch(address, query)
    rows = []
    for key, model, prompt, text, finished, settings in found:
        said = json.loads(settings)
        rows.append(
            _Row(key, model, prompt, text, bool(finished), said["tokens"], said.get("opening", ""))
        )
    return rows


def _fetch(address: str, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(address, uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def _model(rows: list[_Row], examples: list[Mapping[str, Any]], side: str) -> str:
    """Return the journal's name of the model that gave most of the examples' answers of a side.

    Raises:
        ValueError: no model gave any.
    """
    said = {(each["prompt"], each[f"answer_{side}"]) for each in examples}
    hits: dict[str, int] = {}
    for row in rows:
        hits[row.model] = hits.get(row.model, 0) + (
            not row.opening and (row.prompt, row.text) in said
        )
    best = max(hits.values(), default=0)
    if not best:
        raise ValueError("its journal does not hold the answers of its result")
    found = [model for model, count in hits.items() if count == best]
    return found[0] if side == "before" else found[-1]


def _kinds(configuration: Mapping[str, Any]) -> tuple[dict[str, EntryKind], tuple[str, ...]]:
    """Return the kind of each test prompt of a run, and a note where its own files are gone."""
    try:
        prompts = _test_prompts(
            int(configuration.get("seed", 0)), *(configuration.get(name) for name in _GATHERED)
        )
    except PromptError as error:
        note = f"The run's own prompts are not found ({error.cause}): built-in ones alone count."
        return {p.text: _kind(p) for p in builtin_set().prompts}, (note,)
    return {p.text: _kind(p) for p in prompts}, ()


@lru_cache
def _test_prompts(seed: int, *chosen: Any) -> tuple[Prompt, ...]:
    """Return the test split; runs mostly share it, and dividing the built-in set takes seconds."""
    return gather(seed=seed, **dict(zip(_GATHERED, chosen, strict=True))).of("test")


def _kind(prompt: Prompt) -> EntryKind:
    return "harmful" if prompt.kind == "harmful" else "benign"


def _entries(rows: list[_Row], model: str, kinds: Mapping[str, EntryKind]) -> tuple[Entry, ...]:
    return tuple(
        Entry(
            row.prompt,
            row.text,
            kinds[row.prompt],
            "prefill" if row.opening else "direct",
            row.key,
            finished=row.finished,
        )
        for row in rows
        if row.model == model and row.prompt in kinds
    )
