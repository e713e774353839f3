"""The journal: every answer, verdict and measurement of a run, kept the moment it exists.

One SQLite file in the run folder. Rows are keyed by content: an answer by the hash of weights,
template, prompt and decoding settings; a verdict by the answer and the judge. What is in the
journal is never computed again, not even after `kill -9`: each batch is one transaction, in
write-ahead mode, so that a row is either wholly there or not at all.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from demur.errors import RunError

PATIENCE = 60.0  # seconds that one process waits for another to finish writing
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, prompt TEXT NOT NULL, settings TEXT NOT NULL,
    text TEXT NOT NULL, tokens TEXT NOT NULL, finished INTEGER NOT NULL,
    written TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS verdicts (
    answer TEXT NOT NULL, judge TEXT NOT NULL, verdict TEXT, reason TEXT NOT NULL,
    score REAL, harm TEXT, harm_score REAL,
    PRIMARY KEY (answer, judge)
);
CREATE TABLE IF NOT EXISTS arrays (
    key TEXT PRIMARY KEY, value BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS facts (
    key TEXT PRIMARY KEY, value TEXT NOT NULL,
    written TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"""


def content_key(*parts: object) -> str:
    """Return a short hash of anything that JSON can hold; equal content has an equal key."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Answer:
    """What a model said to one prompt.

    Attributes:
        key: content hash of model, template, prompt and decoding settings.
        prompt: the user's text.
        text: the answer, without special tokens.
        tokens: the answer's token ids, its end mark included where there is one.
        finished: whether the model itself ended the answer within the limit.
    """

    key: str
    prompt: str
    text: str
    tokens: tuple[int, ...]
    finished: bool


@dataclass(frozen=True)
class KeptVerdict:
    """A verdict as the journal holds it; fields as in `demur.judge.Verdict`.

    Attributes:
        answer: key of the answer; for an answer that came from elsewhere, the content hash of
            prompt and answer.
    """

    answer: str
    outcome: str | None
    reason: str
    score: float | None = None
    harm: str | None = None
    harm_score: float | None = None


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
    try:
        _enter_write_ahead_mode(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _enter_write_ahead_mode(connection: sqlite3.Connection) -> None:
    # SQLite does not wait its timeout out here when two processes open a new file at once.
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class Journal:
    """Rows that outlive the process; safe to open from several processes at once."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        """Open or create the journal at `path`.

        Args:
            writes: whether what is added is kept; another process may be the one that writes.

        Raises:
            RunError: the file cannot be written, or is not a journal.
        """
        self.path = path
        self.writes = writes
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.connection = _open(path)
        except (sqlite3.Error, OSError) as error:
            raise RunError(
                f"The journal {path} cannot be opened ({error}).",
                "Choose another run folder with --run, or delete this one if it is not needed.",
            ) from error

    def close(self) -> None:
        """Close the file; what was written stays."""
        self.connection.close()

    def _write(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        if not self.writes:
            return
        try:
            with self.connection:
                self.connection.execute("BEGIN IMMEDIATE")
                self.connection.executemany(statement, rows)
        except sqlite3.Error as error:
            raise RunError(
                f"The journal {self.path} cannot be written ({error}).",
                "Make room on the disk and run the same command again: it continues.",
            ) from error

    def answers(self, keys: Iterable[str]) -> dict[str, Answer]:
        """Return those of the answers with these keys that are already known."""
        found: dict[str, Answer] = {}
        wanted = list(keys)
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            marks = ",".join("?" * len(part))
            columns = "key, prompt, text, tokens, finished"
            query = f"SELECT {columns} FROM answers WHERE key IN ({marks})"
            for key, prompt, text, tokens, finished in self.connection.execute(query, part):
                found[key] = Answer(key, prompt, text, tuple(json.loads(tokens)), bool(finished))
        return found

    def add_answers(
        self, answers: Iterable[Answer], model: str, settings: Mapping[str, Any]
    ) -> None:
        """Keep a batch of answers in one transaction."""
        described = json.dumps(dict(settings), sort_keys=True)
        rows = [
            (a.key, model, a.prompt, described, a.text, json.dumps(a.tokens), int(a.finished))
            for a in answers
        ]
        self._write(
            "INSERT OR IGNORE INTO answers (key, model, prompt, settings, text, tokens, finished)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )

    def verdicts(self, judge: str, keys: Iterable[str]) -> dict[str, KeptVerdict]:
        """Return those of the verdicts of `judge` on the answers with these keys that are known."""
        found: dict[str, KeptVerdict] = {}
        wanted = list(keys)
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            marks = ",".join("?" * len(part))
            columns = "answer, verdict, reason, score, harm, harm_score"
            query = f"SELECT {columns} FROM verdicts WHERE judge = ? AND answer IN ({marks})"
            for row in self.connection.execute(query, [judge, *part]):
                found[row[0]] = KeptVerdict(*row)
        return found

    def add_verdicts(self, judge: str, verdicts: Iterable[KeptVerdict]) -> None:
        """Keep a batch of verdicts under the judge's name, in one transaction."""
        columns = "judge, answer, verdict, reason, score, harm, harm_score"
        self._write(
            f"INSERT OR REPLACE INTO verdicts ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(judge, *astuple(verdict)) for verdict in verdicts],
        )

    def arrays(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return those of the binary values with these keys that are known."""
        found: dict[str, bytes] = {}
        for key in keys:
            row = self.connection.execute("SELECT value FROM arrays WHERE key = ?", (key,))
            value = row.fetchone()
            if value is not None:
                found[key] = value[0]
        return found

    def add_arrays(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Keep a batch of binary values (key, bytes) in one transaction."""
        self._write("INSERT OR IGNORE INTO arrays (key, value) VALUES (?, ?)", rows)

    def fact(self, key: str) -> Any:
        """Return the JSON value kept under `key`, or None."""
        row = self.connection.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def keep_fact(self, key: str, value: Any) -> None:
        """Keep a JSON value under `key`, in place of what was there."""
        self._write(
            "INSERT OR REPLACE INTO facts (key, value) VALUES (?, ?)", [(key, json.dumps(value))]
        )

    def count(self, table: str) -> int:
        """Return the number of rows in `answers`, `verdicts`, `arrays` or `facts`."""
        if table not in {"answers", "verdicts", "arrays", "facts"}:
            raise ValueError(f"no such table: {table}")
        return int(self.connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])
