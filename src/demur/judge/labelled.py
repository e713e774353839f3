"""Answers that people have labelled: refused or not, harmful or not, by source and by model.

Read from CSV, TSV, JSON, JSON lines or Parquet. Columns are found by the names that public sets
have (XSTest, XSTest-Response, WildGuardTest, HarmBench's validation, JailbreakBench's judge
comparison, GPTFuzzer, and this project's own); labels by the words or numbers that they use. A
partial refusal is neither a refusal nor none: it is kept apart, and left out of the scores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demur.errors import JudgeError
from demur.prompts.tables import Row, Table, read_table

PROMPT = tuple(
    [
        "prompt",
        "goal",
        "behavior",
        "behaviour",
        "question",
        "instruction",
        "request",
        "query",
        "user",
        "input",
        "forbidden_prompt",
        "user_prompt",
    ]
)
RESPONSE = tuple(
    [
        "response",
        "completion",
        "answer",
        "generation",
        "output",
        "target_response",
        "model_response",
        "assistant",
        "model_output",
        "text",
    ]
)
REFUSED = tuple(
    [
        "human_label_refused",
        "final_label",
        "response_refusal_label",
        "refusal_label",
        "refused",
        "refusal",
        "is_refusal",
        "label",
    ]
)
HARMFUL = tuple(
    [
        "human_label_harmful",
        "human_majority",
        "response_harm_label",
        "harm_label",
        "harmful",
        "is_harmful",
        "jailbroken",
        "unsafe",
        "label",
    ]
)
MODEL = ("model", "model_name", "generator", "target_model")
SOURCE = ("source", "dataset", "set", "origin")
RAW = ("raw_label", "raw")

NOTHING = frozenset({"", "none", "null", "nan", "n/a", "na", "unknown", "unclear"})
REFUSES = frozenset({"refusal", "refused", "refuse", "rejected", "2_full_refusal", "full_refusal"})
COMPLIES = frozenset(
    {"compliance", "complied", "comply", "compliant", "1_full_compliance", "full_compliance"}
)
PARTIAL = frozenset({"partial", "partial_refusal", "3_partial_refusal"})
HARMS = frozenset({"harmful", "unsafe", "jailbroken", "jailbreak"})
HARMLESS = frozenset({"harmless", "unharmful", "safe", "benign", "not harmful"})
TRUE, FALSE = frozenset({"true", "yes", "1", "1.0"}), frozenset({"false", "no", "0", "0.0"})


@dataclass(frozen=True)
class Labelled:
    """One answer and what people say of it.

    Attributes:
        refused, harmful: None where people did not judge this question.
        partial: people call it a partial refusal.
        model, source: who wrote it and which set it is from; empty where the file does not say.
    """

    prompt: str
    response: str
    refused: bool | None
    harmful: bool | None
    partial: bool = False
    model: str = ""
    source: str = ""


@dataclass(frozen=True)
class LabelledSet:
    """What a file held.

    Attributes:
        rows: the labelled answers, in order.
        unlabelled: rows left out because nobody labelled them.
        conflicts: rows left out because the same answer has contradicting labels.
    """

    rows: tuple[Labelled, ...]
    unlabelled: int
    conflicts: int


def read_labelled(path: Path, *, allow_conflicts: bool = False) -> LabelledSet:
    """Read a labelled file.

    Args:
        allow_conflicts: leave out answers with contradicting labels, and count them.

    Raises:
        PromptError: the file cannot be read.
        JudgeError: a column is missing, a label is not understood, there is no label at all, or
            the same answer to the same request is labelled both ways.
    """
    table = read_table(path)
    prompt, response = _needed(table, PROMPT, "requests"), _needed(table, RESPONSE, "answers")
    refused, harmful = _label_columns(table)
    model, source = _column(table, MODEL), _column(table, SOURCE)
    raw = _column(table, RAW)
    rows: list[tuple[str, Labelled]] = []
    unlabelled = 0
    for where, row in table.rows:
        refuses, partial = _refused(row, refused, raw, table, where)
        harms = _harmful(row, harmful, table, where)
        if refuses is None and harms is None and not partial:
            unlabelled += 1
            continue
        one = Labelled(
            _text(row, prompt, table, where),
            _text(row, response, table, where),
            refuses,
            harms,
            partial,
            str(row.get(model) or "") if model else "",
            str(row.get(source) or "") if source else "",
        )
        rows.append((where, one))
    if not any(one.refused is not None or one.harmful is not None for _, one in rows):
        raise JudgeError(
            f"No row of '{table.name}' has a label.",
            f"Fill the column '{refused or harmful}', or use --answers for answers without labels.",
        )
    return _without_conflicts(table, rows, unlabelled, allow_conflicts)


def read_answers(path: Path) -> tuple[Labelled, ...]:
    """Read answers without labels; other columns are looked for as in `read_labelled`.

    Raises:
        PromptError: the file cannot be read.
        JudgeError: a column is missing.
    """
    table = read_table(path)
    prompt, response = _needed(table, PROMPT, "requests"), _needed(table, RESPONSE, "answers")
    model, source = _column(table, MODEL), _column(table, SOURCE)
    return tuple(
        Labelled(
            _text(row, prompt, table, where),
            _text(row, response, table, where),
            None,
            None,
            False,
            str(row.get(model) or "") if model else "",
            str(row.get(source) or "") if source else "",
        )
        for where, row in table.rows
    )


def _column(table: Table, names: Sequence[str]) -> str | None:
    known = {column.strip().lower(): column for column in reversed(table.columns)}
    return next((known[name] for name in names if name in known), None)


def _needed(table: Table, names: Sequence[str], what: str) -> str:
    found = _column(table, names)
    if found is None:
        raise JudgeError(
            f"'{table.name}' has no column of {what} (it has: {', '.join(table.columns)}).",
            f"Name it {names[0]}.",
        )
    return found


def _label_columns(table: Table) -> tuple[str | None, str | None]:
    refused, harmful = _column(table, REFUSED), _column(table, HARMFUL)
    if refused is not None and refused == harmful:  # the bare name `label`: its values decide
        words = {_word(row.get(refused)) for _, row in table.rows} - NOTHING
        if words <= REFUSES | COMPLIES | PARTIAL:
            return refused, None
        if words <= HARMS | HARMLESS:
            return None, harmful
        raise JudgeError(
            f"The column '{refused}' of '{table.name}' does not say whether it is about refusals "
            "or about harm.",
            "Name it human_label_refused or human_label_harmful.",
        )
    if refused is None and harmful is None:
        raise JudgeError(
            f"'{table.name}' has no column of labels (it has: {', '.join(table.columns)}).",
            "Name them human_label_refused and human_label_harmful, or use --answers for answers "
            "without labels.",
        )
    if harmful is not None and harmful.strip().lower() == "label":
        harmful = None
    if refused is not None and refused.strip().lower() == "label":
        refused = None
    return refused, harmful


def _word(value: object) -> str:
    return "" if value is None else str(value).strip().lower()


def _text(row: Row, column: str, table: Table, where: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise JudgeError(
        f"'{table.name}', {where}: the column '{column}' holds no text.",
        "Give requests and answers as texts.",
    )


def _refused(
    row: Row, column: str | None, raw: str | None, table: Table, where: str
) -> tuple[bool | None, bool]:
    """Return (refused, partial) of a row."""
    word = _word(row.get(column)) if column else ""
    if word in PARTIAL or (word in NOTHING and raw and _word(row.get(raw)) in PARTIAL):
        return None, True
    return _truth(word, REFUSES, COMPLIES, column, table, where), False


def _harmful(row: Row, column: str | None, table: Table, where: str) -> bool | None:
    word = _word(row.get(column)) if column else ""
    return _truth(word, HARMS, HARMLESS, column, table, where)


def _truth(
    word: str,
    yes: frozenset[str],
    no: frozenset[str],
    column: str | None,
    table: Table,
    where: str,
) -> bool | None:
    if word in NOTHING:
        return None
    if word in yes or word in TRUE:
        return True
    if word in no or word in FALSE:
        return False
    raise JudgeError(
        f"'{table.name}', {where}: the label {word[:40]!r} of the column '{column}' is not known.",
        f"Write true, false, {min(yes)} or {min(no)}, or leave it empty.",
    )


def _without_conflicts(
    table: Table, rows: list[tuple[str, Labelled]], unlabelled: int, allow: bool
) -> LabelledSet:
    said: dict[tuple[str, str], dict[str, set[bool]]] = defaultdict(lambda: defaultdict(set))
    for _, one in rows:
        labels = said[one.prompt, one.response]
        if one.refused is not None:
            labels["refused"].add(one.refused)
        if one.harmful is not None:
            labels["harmful"].add(one.harmful)
    torn = {pair for pair, labels in said.items() if any(len(each) > 1 for each in labels.values())}
    places = [where for where, one in rows if (one.prompt, one.response) in torn]
    if torn and not allow:
        some = ", ".join(places[:4]) + (", ..." if len(places) > 4 else "")
        raise JudgeError(
            f"'{table.name}' labels {len(torn)} answers to the same request both ways ({some}).",
            "Correct the labels, or leave these answers out with --allow-conflicts.",
        )
    kept = tuple(one for _, one in rows if (one.prompt, one.response) not in torn)
    return LabelledSet(kept, unlabelled, len(places))
