"""Prompts from a user's own file or hub data set: the column is found, or named.

demur align MODEL --harmful mine.csv --benign org/name:train
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from demur.errors import PromptError
from demur.prompts.hub import hub_address, read_hub
from demur.prompts.split import block_of
from demur.prompts.tables import Row, Table, describe, read_table
from demur.prompts.types import Kind, Prompt

log = logging.getLogger(__name__)

# In the order in which they are preferred: in JailbreakBench, `Goal` is the request and
# `Behavior` its short title; in many sets `text` stands beside a better name.
COLUMNS = (
    "prompt",
    "forbidden_prompt",
    "goal",
    "behavior",
    "behaviour",
    "instruction",
    "question",
    "query",
    "request",
    "text",
    "input",
    "user",
    "messages",
    "conversations",
    "conversation",
    "chat",
)
HARMFUL_COLUMNS = ("harmful", "harmful_prompt", "unsafe")
BENIGN_COLUMNS = ("benign", "twin", "harmless", "safe", "benign_prompt")
HAZARD_COLUMNS = ("hazard", "hazard_category", "semanticcategory", "category")


@dataclass(frozen=True)
class Loaded:
    """What a source held.

    Attributes:
        prompts: the prompts, in order.
        columns: the columns that they were taken from.
        empty: how many rows were left out because they held no prompt.
    """

    prompts: tuple[Prompt, ...]
    columns: tuple[str, ...]
    empty: int


def load_prompts(
    source: str | PathLike[str], kind: Kind, column: str | None = None
) -> tuple[Prompt, ...]:
    """Return the prompts of a file or a hub data set; see `read_prompts`."""
    return read_prompts(source, kind, column).prompts


def load_pairs(source: str | PathLike[str]) -> tuple[Prompt, ...]:
    """Return the pairs of a file or a hub data set; see `read_pairs`."""
    return read_pairs(source).prompts


def read_prompts(source: str | PathLike[str], kind: Kind, column: str | None = None) -> Loaded:
    """Read prompts from a file (CSV, TSV, JSON, JSON lines, Parquet, text) or a hub data set.

    Args:
        source: a path, or a hub id such as `org/name`, `org/name:split` or
            `hf://org/name@config:split`. A path that exists is never taken for a hub id.
        kind: what the prompts are.
        column: the column that holds them; without it, a column of a well-known name is taken,
            else the only one that holds text. Of a chat, the first turn of the user is taken.

    Raises:
        PromptError: the source cannot be found or read, has no such column or several that could
            be meant, holds a prompt that is no text, or holds no prompt.
    """
    return prompts_of(_table(source), kind, column)


def prompts_of(table: Table, kind: Kind, column: str | None = None) -> Loaded:
    """Return the prompts in the rows of a table that was read already; see `read_prompts`."""
    preferred = (*(HARMFUL_COLUMNS if kind == "harmful" else BENIGN_COLUMNS), *COLUMNS)
    chosen = _named(table, column) if column else _found(table, preferred)
    hazard = None if kind == "ordinary" else _known(table, HAZARD_COLUMNS)
    name = _source_name(table)
    prompts: list[Prompt] = []
    for where, row in table.rows:
        text = _text(row.get(chosen), table, where, chosen)
        if text:
            category = _hazard(row, hazard)
            prompts.append(Prompt(text, kind, category, "", "", block_of(text), name))
    return _loaded(table, prompts, (chosen,), len(table.rows) - len(prompts))


def read_pairs(source: str | PathLike[str]) -> Loaded:
    """Read pairs from a file or data set with a column `harmful` and a column `benign`.

    Returns:
        Harmful prompts and their twins in turn; rows in which either is empty are left out.

    Raises:
        PromptError: as `read_prompts`; or one of the two columns is missing.
    """
    table = _table(source)
    harmful, benign = _known(table, HARMFUL_COLUMNS), _known(table, BENIGN_COLUMNS)
    if not harmful or not benign:
        columns = ", ".join(table.columns)
        raise PromptError(
            f"'{table.name}' has no two columns 'harmful' and 'benign' (it has: {columns}).",
            "Name the columns so, or give the two sides as two files.",
        )
    hazard, contrast = _known(table, HAZARD_COLUMNS), _known(table, ("contrast",))
    name = _source_name(table)
    prompts: list[Prompt] = []
    for where, row in table.rows:
        first = _text(row.get(harmful), table, where, harmful)
        second = _text(row.get(benign), table, where, benign)
        if first and second:
            block, kind = block_of(first), _hazard(row, contrast)
            pair = f"{name}/{block_of(first + chr(0) + second)}"
            category = _hazard(row, hazard)
            prompts.append(Prompt(first, "harmful", category, kind, pair, block, name))
            prompts.append(Prompt(second, "twin", category, kind, pair, block, name))
    empty = len(table.rows) - len(prompts) // 2
    return _loaded(table, prompts, (harmful, benign), empty)


def _table(source: str | PathLike[str]) -> Table:
    address = hub_address(source) if isinstance(source, str) else None
    return read_hub(address) if address else read_table(Path(fspath(source)).expanduser())


def _source_name(table: Table) -> str:
    """Return the name for records: of a file without its folders, which are nobody's business."""
    return table.name if hub_address(table.name) else Path(table.name).name


def _loaded(
    table: Table, prompts: Sequence[Prompt], columns: tuple[str, ...], empty: int
) -> Loaded:
    if not prompts:
        named = " and ".join(f"'{column}'" for column in columns)
        cause = f"'{table.name}' holds no prompt: every row is empty in the column {named}."
        raise PromptError(cause, "Put prompts into it, or name another column.")
    if empty:
        log.warning("%s: left out %d empty rows of %d", table.name, empty, len(table.rows))
    return Loaded(tuple(prompts), columns, empty)


def _named(table: Table, column: str) -> str:
    """Return the column that the user named; capital letters count only where they must."""
    if column in table.columns:
        return column
    same = [name for name in table.columns if name.lower() == column.lower()]
    if len(same) == 1:
        return same[0]
    columns = ", ".join(table.columns) or "none"
    cause = f"'{table.name}' has no column '{column}'."
    raise PromptError(cause, f"Name one of its columns: {columns}.")


def _known(table: Table, names: Sequence[str]) -> str | None:
    """Return the first column whose name is among the known ones, or None."""
    for name in names:
        same = [column for column in table.columns if column.strip().lower() == name]
        if len(same) > 1:
            raise _ambiguous(table, same)
        if same:
            return same[0]
    return None


def _found(table: Table, preferred: Sequence[str]) -> str:
    """Return the column of a known name, or else the only one that holds text."""
    known = _known(table, preferred)
    if known:
        return known
    texts = [
        column
        for column in table.columns
        if any(isinstance(row.get(column), str) and row[column].strip() for _, row in table.rows)
    ]
    if len(texts) == 1:
        return texts[0]
    if texts:
        raise _ambiguous(table, texts)
    columns = ", ".join(table.columns) or "none"
    raise PromptError(
        f"'{table.name}' has no column of text (its columns: {columns}).",
        "Give a file with a column 'prompt'.",
    )


def _ambiguous(table: Table, columns: Sequence[str]) -> PromptError:
    cause = f"Several columns of '{table.name}' could hold the prompts: {', '.join(columns)}."
    return PromptError(cause, "Say which one with the column option.")


def _hazard(row: Row, column: str | None) -> str:
    value = row.get(column) if column else None
    return value.strip() if isinstance(value, str) else ""


def _text(value: Any, table: Table, where: str, column: str) -> str:
    """Return the prompt in a cell; the empty text if there is none."""
    content = _first_user_turn(value) if isinstance(value, list | tuple) else value
    if content is None:
        return ""
    if not isinstance(content, str):
        cause = f"'{table.name}', {where}: the prompt in '{column}' is {describe(content)}."
        raise PromptError(cause, "Prompts must be text: correct it, or name another column.")
    if any("\ud800" <= sign <= "\udfff" for sign in content):
        cause = f"'{table.name}', {where}: the prompt in '{column}' holds half of a character."
        raise PromptError(cause, "Remove the lone surrogate escape such as \\ud800.")
    return content.strip()


def _first_user_turn(turns: Sequence[Any]) -> Any:
    """Return what the user says first in a chat; the value itself if it is no chat."""
    if not all(isinstance(turn, dict) for turn in turns):
        return turns
    for turn in turns:
        if turn.get("role", turn.get("from")) in ("user", "human"):
            content = turn.get("content", turn.get("value"))
            if isinstance(content, list):  # parts, as models that see images take them
                parts = [part.get("text") for part in content if isinstance(part, dict)]
                return "\n".join(part for part in parts if isinstance(part, str))
            return content
    return None
