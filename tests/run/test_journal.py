"""The journal keeps what it was given: through kill -9, from two processes, under content keys."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demur.errors import RunError
from demur.run.journal import Answer, Journal, KeptVerdict, content_key

SOURCE = str(Path(__file__).resolve().parents[2] / "src")
WRITER = """
import sys
from pathlib import Path
from demur.run.journal import Answer, Journal, KeptVerdict

journal = Journal(Path(sys.argv[1]))
name, batches = sys.argv[2], int(sys.argv[3])
for batch in range(batches):
    journal.add_answers(
        [
            Answer(f"{name}-{batch}-{row}", "a prompt", "x" * 2000, (1, 2, batch), True)
            for row in range(10)
        ],
        "a model",
        {},
    )
    print(batch, flush=True)
"""


def answer(key: str, text: str = "Yes.") -> Answer:
    return Answer(key, "Can you?", text, (5, 6, 2), True)


def writer(path: Path, name: str, batches: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(batches)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
    )


def test_content_key_depends_on_content_alone():
    assert content_key({"a": 1, "b": [2, "é"]}, None) == content_key({"b": [2, "é"], "a": 1}, None)
    keys = {
        content_key("a", "b"),
        content_key("ab"),
        content_key(["a", "b"]),
        content_key("b", "a"),
        content_key("a", None, "b"),
    }
    assert len(keys) == 5
    assert all(len(key) == 32 for key in keys)


def test_answers_come_back_as_they_were(tmp_path):
    path = tmp_path / "deep" / "journal.sqlite"
    journal = Journal(path)
    first = Answer("k1", "Why “so”?\n", "Därum\x00.", (1, 22, 333), False)
    many = [answer(f"k{number}") for number in range(2, 1205)]
    journal.add_answers([first, *many], "model", {"tokens": 8})
    journal.close()
    journal = Journal(path)
    found = journal.answers(["k1", "absent", *(one.key for one in many)])
    assert found == {one.key: one for one in (first, *many)}
    assert journal.count("answers") == 1204


def test_the_first_answer_under_a_key_stays(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    journal.add_answers([answer("k", "first")], "model", {})
    journal.add_answers([answer("k", "second"), answer("l")], "model", {})
    assert journal.answers(["k"])["k"].text == "first"
    assert journal.count("answers") == 2


def test_verdicts_arrays_and_facts(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    journal.add_verdicts(
        "judge-1", [KeptVerdict("k", "refused", "sorry"), KeptVerdict("l", "complied", "")]
    )
    journal.add_verdicts("judge-1", [KeptVerdict("k", "complied", "later", 0.25)])
    journal.add_verdicts("judge-2", [KeptVerdict("k", None, "unsafe", None, "harmful", 0.9)])
    assert journal.verdicts("judge-1", ["k", "m"]) == {
        "k": KeptVerdict("k", "complied", "later", 0.25)
    }
    assert journal.verdicts("judge-2", ["k"])["k"].harm == "harmful"
    assert journal.count("verdicts") == 3
    journal.add_arrays([("a", b"\x00\x01"), ("b", b"")])
    assert journal.arrays(["b", "a", "c"]) == {"a": b"\x00\x01", "b": b""}
    assert journal.fact("base") is None
    journal.keep_fact("base", {"hash": "ab", "sizes": [1, 2.5]})
    journal.keep_fact("base", {"hash": "cd"})
    assert journal.fact("base") == {"hash": "cd"}
    assert journal.count("facts") == 1
    with pytest.raises(ValueError, match="no such table"):
        journal.count("sqlite_master")


def test_a_batch_that_fails_leaves_nothing(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    with pytest.raises(RunError, match="cannot be written") as caught:
        journal.add_verdicts(
            "judge", [KeptVerdict("good", "refused", ""), KeptVerdict("bad", "refused", None)]
        )
    assert "run the same command again" in caught.value.remedy
    journal.add_verdicts("judge", [KeptVerdict("bad", "complied", "")])
    assert journal.count("verdicts") == 1


def test_what_is_no_journal_is_an_error(tmp_path):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"this is a text, and no data base at all. " * 100)
    with pytest.raises(RunError, match="cannot be opened"):
        Journal(path)
    with pytest.raises(RunError, match="cannot be opened"):
        Journal(path / "below" / "journal.sqlite")


def test_rows_survive_a_kill_in_the_middle_of_writing(tmp_path):
    path = tmp_path / "journal.sqlite"
    process = writer(path, "killed", 1_000_000)
    assert process.stdout is not None
    said = -1
    for line in process.stdout:
        said = int(line)
        if said >= 20:
            break
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split("\n")
    process.wait()
    said = max([said, *(int(line) for line in rest[:-1])])
    journal = Journal(path)
    assert journal.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    count = journal.count("answers")
    assert count % 10 == 0  # a batch is there wholly or not at all
    assert count // 10 >= said + 1
    keys = [f"killed-{batch}-{row}" for batch in range(count // 10) for row in range(10)]
    found = journal.answers(keys)
    assert len(found) == count
    assert all(len(one.text) == 2000 for one in found.values())


def test_two_processes_write_at_once(tmp_path):
    path = tmp_path / "journal.sqlite"
    processes = [writer(path, name, 30) for name in ("one", "two")]
    reading = Journal(path)
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert reading.count("answers") == 600


def test_opening_waits_while_another_process_creates_the_journal(tmp_path):
    path = tmp_path / "journal.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    other.execute("CREATE TABLE unrelated (x)")
    import threading

    threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
    begun = time.monotonic()
    assert Journal(path).count("facts") == 0
    assert time.monotonic() - begun > 0.2
