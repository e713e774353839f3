"""Columns of recorded answers: what they are usually called, and what stands in them.

table = read_table(path)
prompt = column(table, None, PROMPT, "prompt")
texts = [cell_text(row.get(prompt), table, where, prompt) for where, row in table.rows]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from demur.errors import PromptError
from demur.prompts.tables import Table, describe

RequestKind = Literal["harmful", "benign", "unknown"]

PROMPT = ("prompt", "instruction", "question", "request", "query", "goal", "behavior", "input")
RESPONSE = ("response", "answer", "completion", "output", "generation", "reply")
MODEL = ("model", "model_name", "generator")
KIND = ("kind", "prompt_kind", "prompt_type", "type")
LABEL = ("human_label_refused", "label_refused", "refused")
KINDS: Mapping[str, RequestKind] = {
    **dict.fromkeys(("harmful", "unsafe", "toxic", "adversarial", "malicious"), "harmful"),
    **dict.fromkeys(("benign", "safe", "harmless", "twin", "ordinary"), "benign"),
}


def column(
    table: Table, named: str | None, known: Sequence[str], what: str, remedy: str = ""
) -> str:
    """Return the column that the user named, or else the first of the known ones.

    Args:
        what: what the column holds, in the singular, for the error.
        remedy: what the error advises; by default to name or rename the column.

    Raises:
        PromptError: there is none.
    """
    found = optional_column(table, named, known)
    if found is None:
        raise PromptError(
            f"'{table.name}' has no column of {what}s (its columns: {', '.join(table.columns)}).",
            remedy or f"Name it with --{what}-column, or call it '{what}'.",
        )
    return found


def optional_column(table: Table, named: str | None, known: Sequence[str]) -> str | None:
    """Return the column that the user named, or else the first of the known ones, or None.

    Raises:
        PromptError: the table lacks the column that was named.
    """
    if named is not None and named not in table.columns:
        raise PromptError(
            f"'{table.name}' has no column '{named}'.",
            f"Name one of its columns: {', '.join(table.columns)}.",
        )
    lower = {each.strip().lower(): each for each in reversed(table.columns)}
    return named or next((lower[name] for name in known if name in lower), None)


def cell_text(value: Any, table: Table, where: str, named: str) -> str:
    """Return the text of a cell without space around it; the empty text for an empty cell.

    Raises:
        PromptError: the cell holds what is no text.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PromptError(
            f"'{table.name}', {where}: what is in '{named}' is {describe(value)}.",
            "It must be a text: correct it, or name another column.",
        )
    return value.encode("utf-8", "replace").decode("utf-8").strip()


def kind_of(said: str) -> RequestKind | None:
    """Return what a word says of a request, or None; XSTest's `contrast_...` types are harmful."""
    word = said.strip().lower()
    if word.startswith("contrast_"):
        return "harmful"
    return KINDS.get(word)
