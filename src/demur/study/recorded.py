"""Recorded answers as sources: a file with the columns prompt, response and, if there are several,
model; one source a model.

A column that says what each request is (`kind`: harmful or benign, or words for them) makes
security known, a column of people's verdicts (`human_label_refused`: true or false) lets them
judge. Of several answers to one prompt the first is taken, so that answers are independent; what
is left out is counted in the source's notes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demur.errors import PromptError
from demur.prompts.columns import (
    KIND,
    LABEL,
    MODEL,
    PROMPT,
    RESPONSE,
    cell_text,
    column,
    kind_of,
    optional_column,
)
from demur.prompts.tables import read_table
from demur.study.source import Entry, EntryKind, Source


@dataclass(frozen=True)
class Columns:
    """The columns as the user named them; None for those to be found."""

    prompt: str | None = None
    response: str | None = None
    model: str | None = None
    kind: str | None = None
    label: str | None = None


@dataclass
class _Gathered:
    """The rows of one model while they are read."""

    entries: dict[str, Entry] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)


def read_recorded(
    path: Path,
    columns: Columns | None = None,
    *,
    kind: EntryKind = "unknown",
    kinds: Mapping[str, EntryKind] | None = None,
) -> tuple[Source, ...]:
    """Return the sources in a file (CSV, TSV, JSON, JSON lines, Parquet), named after its models.

    Args:
        path: the file.
        columns: their names, where they are not well-known ones.
        kind: what all requests are, where neither the file nor `kinds` says it.
        kinds: what requests are, by `prompt_key` of their text; stands above the file's own column.

    Raises:
        PromptError: the file cannot be read, is empty, lacks a column, or holds what is no text.
    """
    columns = columns or Columns()
    table = read_table(path)
    prompt = column(table, columns.prompt, PROMPT, "prompt")
    response = column(table, columns.response, RESPONSE, "response")
    model = optional_column(table, columns.model, MODEL)
    said = optional_column(table, columns.kind, KIND)
    label = optional_column(table, columns.label, LABEL)
    gathered: dict[str, _Gathered] = defaultdict(_Gathered)
    for where, row in table.rows:
        request, answer = (
            cell_text(row.get(each), table, where, each) for each in (prompt, response)
        )
        name = cell_text(row.get(model), table, where, model) if model else ""
        one = gathered[name or path.stem]
        if not request:
            one.notes["rows without a prompt left out"] += 1
            continue
        found = _kind(request, row.get(said) if said else None, kinds or {}, kind)
        _add(one, Entry(request, answer, found, label=_label(row, label)))
    sources = [_source(name, path, one) for name, one in gathered.items() if one.entries]
    if not sources:
        raise PromptError(
            f"'{path}' holds no answer: the column '{prompt}' is empty in every row.",
            "Give a file with prompts and answers, or name its columns.",
        )
    return tuple(sources)


def _add(one: _Gathered, entry: Entry) -> None:
    """Keep an entry, unless its prompt has one; contradictions between the two are noted."""
    known = one.entries.setdefault(entry.prompt, entry)
    if known is entry:
        return
    if entry.answer != known.answer:
        one.notes["further answers to a prompt left out"] += 1
        return
    one.notes["repeated rows left out"] += 1
    kind, label = known.kind, known.label
    if kind != entry.kind:
        one.notes["repeated rows that disagree on what the request is: taken as unknown"] += 1
        kind = "unknown"
    if label != entry.label:
        one.notes["repeated rows whose labels contradict each other: taken as undecided"] += 1
        label = "undecided"
    one.entries[entry.prompt] = Entry(entry.prompt, entry.answer, kind, label=label)


def _source(name: str, path: Path, one: _Gathered) -> Source:
    entries = tuple(one.entries.values())
    if all(entry.label in (None, "undecided") for entry in entries):  # nobody was asked
        entries = tuple(Entry(e.prompt, e.answer, e.kind) for e in entries)
    notes = tuple(f"{count:,} {what}." for what, count in one.notes.items())
    return Source(name, "recorded", f"Recorded answers in {path.name}.", entries, notes)


def _kind(
    request: str, said: Any, kinds: Mapping[str, EntryKind], otherwise: EntryKind
) -> EntryKind:
    known = kinds.get(prompt_key(request))
    return known or (kind_of(said) if isinstance(said, str) else None) or otherwise


def prompt_key(prompt: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of a prompt without space around it."""
    from demur.prompts.types import text_key

    return text_key(prompt.strip())


def read_kinds(path: Path) -> dict[str, EntryKind]:
    """Return what requests are, by `prompt_key`, from a file with `kind` and `prompt` or `sha256`.

    Raises:
        PromptError: the file cannot be read, lacks a column, or has a kind that is neither harmful
            nor benign.
    """
    table = read_table(path)
    kind = column(table, None, KIND, "kind")
    digest = optional_column(table, None, ("sha256",))
    prompt = None if digest else column(table, None, PROMPT, "prompt")
    found: dict[str, EntryKind] = {}
    for where, row in table.rows:
        said = kind_of(cell_text(row.get(kind), table, where, kind))
        if said is None:
            raise PromptError(
                f"'{table.name}', {where}: the kind is neither harmful nor benign.",
                "Write one of the two.",
            )
        key = (
            cell_text(row.get(digest), table, where, digest)[:16]
            if digest
            else prompt_key(cell_text(row.get(prompt or ""), table, where, prompt or ""))
        )
        found[key] = said if found.get(key, said) == said else "unknown"
    return found


def _label(row: Mapping[str, Any], named: str | None) -> str | None:
    """Return people's verdict; a row without one in a labelled file is one they did not call."""
    if named is None:
        return None
    value = row.get(named)
    if isinstance(value, str):
        value = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            value.strip().lower()
        )
    return "undecided" if value is None else "refused" if value else "complied"
