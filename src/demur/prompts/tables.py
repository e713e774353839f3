"""Files of prompts, read into rows: CSV, TSV, JSON, JSON lines, Parquet and plain text.

Whatever the format, a row is a mapping of column names to values; a format without columns (a
text file, a JSON list of strings) gives rows with the single column `prompt`.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.errors import PromptError

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".txt")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows with where they stand in the source, for messages (`line 3`, `row 3`)."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, Row], ...]


def read_table(path: Path) -> Table:
    """Read a file into rows by the ending of its name.

    Raises:
        PromptError: the file is missing, empty, unreadable, or of an unknown kind.
    """
    ending = path.suffix.lower()
    if not path.exists():
        raise PromptError(f"There is no file '{path}'.", "Check the path.")
    if path.is_dir():
        raise PromptError(f"'{path}' is a folder.", "Name the file of prompts in it.")
    if ending not in ENDINGS:
        kinds = ", ".join(ENDINGS)
        cause = f"The ending of '{path}' is unknown."
        raise PromptError(cause, f"Give a file that ends in one of: {kinds}.")
    try:
        empty = path.stat().st_size == 0
        if ending == ".parquet" and not empty:
            return make_table(str(path), _parquet(path))
        text = "" if empty else decode(path.read_bytes(), str(path))
    except PermissionError as error:
        remedy = "Change its permissions, or copy it."
        raise PromptError(f"The file '{path}' may not be read.", remedy) from error
    if not text.strip():
        raise PromptError(f"The file '{path}' is empty.", "Put one prompt into each row.")
    if ending in (".csv", ".tsv"):
        rows = _delimited(text, str(path), "\t" if ending == ".tsv" else "")
    elif ending == ".json":
        rows = _json(text, str(path))
    elif ending == ".txt":
        lines = enumerate(text.splitlines(), start=1)
        rows = ((f"line {number}", {"prompt": line}) for number, line in lines)
    else:
        rows = _json_lines(text, str(path))
    return make_table(str(path), rows)


def make_table(name: str, rows: Iterator[tuple[str, Row]]) -> Table:
    """Gather rows and the names of their columns, in the order in which they first appear.

    Raises:
        PromptError: there is no row.
    """
    gathered = tuple(rows)
    if not gathered:
        raise PromptError(f"'{name}' holds no prompt.", "Put one prompt into each row.")
    columns = tuple(dict.fromkeys(column for _, row in gathered for column in row))
    return Table(name, columns, gathered)


def decode(data: bytes, name: str) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark.

    Raises:
        PromptError: the bytes are not UTF-8; says where, and how to convert them.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise PromptError(
            f"'{name}' is written in UTF-16, not in UTF-8.",
            f"Convert it with: iconv -f UTF-16 -t UTF-8 '{name}' > converted.",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptError(
            f"'{name}', line {line}: the byte 0x{data[error.start]:02x} is not UTF-8.",
            "Save the file in UTF-8; if it is from Windows, convert it with: "
            f"iconv -f WINDOWS-1252 -t UTF-8 '{name}' > converted.",
        ) from error


def _delimited(text: str, name: str, delimiter: str) -> Iterator[tuple[str, Row]]:
    """Read CSV or TSV; semicolons, as some spreadsheets write them, are understood."""
    first = text.lstrip().splitlines()[0]
    if not delimiter:
        delimiter = ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    start = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            remedy = "Check the quotes: a field that holds one must be quoted as a whole."
            cause = f"'{name}', line {max(start, reader.line_num)}: not readable: {error}."
            raise PromptError(cause, remedy) from error
        where, start = f"line {start}", reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            if header:
                yield where, {header[0]: ""}
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            if len(header) == 1 and len(header[0].split()) > 3:  # a prompt, so there is no header
                header = ["prompt"]
                yield where, {"prompt": cells[0]}
            continue
        if len(cells) > len(header):
            raise PromptError(
                f"'{name}', {where}: {len(cells)} fields, but the header has {len(header)}.",
                "Put quotes around fields that hold the delimiter.",
            )
        yield where, dict(zip(header, cells, strict=False))


def _json(text: str, name: str) -> Iterator[tuple[str, Row]]:
    """Read a JSON list, an object that holds one, or an object of columns."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and "\n" in text.strip():  # JSON lines under another ending
            yield from _json_lines(text, name)
            return
        raise _not_json(name, error.lineno, error) from error
    if isinstance(value, dict):
        lists = {key: item for key, item in value.items() if isinstance(item, list)}
        if len(lists) == 1:
            key, items = next(iter(lists.items()))
            if items and isinstance(items[0], dict):
                value = items
            else:
                value = [{key: item} for item in items]
        elif lists and len({len(item) for item in lists.values()}) == 1:
            value = [
                dict(zip(lists, values, strict=True))
                for values in zip(*lists.values(), strict=True)
            ]
        else:
            found = ", ".join(lists) or "none"
            raise PromptError(
                f"'{name}' is an object without one list of prompts (lists found: {found}).",
                "Give a list, or an object that holds one.",
            )
    if not isinstance(value, list):
        raise PromptError(f"'{name}' holds no list.", "Give a JSON list of prompts.")
    for number, item in enumerate(value, start=1):
        yield f"row {number}", _row(item, name, f"row {number}")


def _json_lines(text: str, name: str) -> Iterator[tuple[str, Row]]:
    # Not splitlines(): a JSON text may hold U+2028 and its like inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise _not_json(name, number, error) from error
            yield f"line {number}", _row(value, name, f"line {number}")


def _not_json(name: str, line: int, error: json.JSONDecodeError) -> PromptError:
    cause = f"'{name}', line {line}: not readable as JSON: {error.msg} at column {error.colno}."
    return PromptError(cause, "Correct that line.")


def _row(value: object, name: str, where: str) -> Row:
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"prompt": value}
    raise PromptError(
        f"'{name}', {where}: neither a text nor an object, but {describe(value)}.",
        "Give each prompt as a text, or as an object with a column for it.",
    )


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        cause = f"'{path}' is not readable as Parquet."
        raise PromptError(cause, "Download or write the file again.") from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"row {number}", row


def describe(value: object) -> str:
    """Return what kind of value this is, in a newcomer's words."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bytes):
        return "raw bytes"
    return "a text" if isinstance(value, str) else f"a {type(value).__name__}"
