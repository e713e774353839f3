"""A whole `demur align` that is killed again and again, and runs that meet: nothing is lost.

Every start is a process of its own that imports all that it needs, which takes most of the time.
"""

from __future__ import annotations

import json
import random
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demur.checkpoint.manifest import read_patch
from demur.run.folder import RunFolder
from tests.small_run import ENVIRONMENT, demur, prepare, without_cost
from tests.tiny import tiny_llama

KILLS = 10
SEED = 0
PREFILL = ("--prefill", "4")
OPTIONS = shlex.split(
    "--pairs pairs.jsonl --ordinary ordinary.jsonl --train-pairs 24 --train-ordinary 8 "
    "--test-pairs 6 --test-ordinary 4 --validation-pairs 4 --checkpoints 3 --epochs 3 --batch 8 "
    "--learning-rate 0.02 --text-tokens 600 --answer-tokens 8 --own-tokens 8 --longest 300 "
    "--device cpu --dtype float32"
)
LOOKED = "  prompts: "  # said before anything is written
LOCKED = "  run folder: "
CLOSING = "Refused, before"
PATIENCE = 300.0

# Rows that are written although they are there; facts such as the seconds of a stage may be.
WATCH = """
CREATE TABLE again (name TEXT NOT NULL);
CREATE TRIGGER again_answers BEFORE INSERT ON answers
    WHEN EXISTS (SELECT 1 FROM answers WHERE key = NEW.key)
    BEGIN INSERT INTO again VALUES ('answer ' || NEW.prompt); END;
CREATE TRIGGER again_arrays BEFORE INSERT ON arrays
    WHEN EXISTS (SELECT 1 FROM arrays WHERE key = NEW.key)
    BEGIN INSERT INTO again VALUES ('array ' || NEW.key); END;
CREATE TRIGGER again_measurements BEFORE INSERT ON facts
    WHEN NEW.key NOT GLOB '*[^0-9a-f]*' AND EXISTS (SELECT 1 FROM facts WHERE key = NEW.key)
    BEGIN INSERT INTO again VALUES ('measurement ' || NEW.key); END;
"""

HALF = """
import os, signal, sys
from pathlib import Path
from demur.run.folder import RunFolder

run = Path(sys.argv[2])
with RunFolder(run, {"model": "tiny"}):
    kill = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1] == "config":
        (run / "config.json").unlink()
        from demur.run.folder import write_atomically
        os.replace = kill
        write_atomically(run / "config.json", "half")
    elif sys.argv[1] == "text":
        from demur.report.files import write_text
        os.replace = kill
        write_text(run / "result.json", "half")
    elif sys.argv[1] == "patch":
        from demur.checkpoint.storage import whole_file
        with whole_file(run / "patch.safetensors") as file:
            file.write(b"half")
            file.flush()
            kill()
    else:
        from demur.checkpoint.storage import whole_folder
        with whole_folder(run / "model") as folder:
            (folder / "model.safetensors").write_bytes(b"half")
            kill()
"""


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run: its folder, and how long its work took once it had looked about."""

    run: Path
    seconds: float


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, whose answers count as answers, and few prompts."""
    folder = tmp_path_factory.mktemp("place")
    prepare(folder, pairs=60, ordinary=40)
    tiny_llama(folder / "tiny", tie_word_embeddings=False, initializer_range=0.1)
    return folder


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = copy_of(place, tmp_path_factory.mktemp("whole") / "here")
    with started(folder) as process:
        wait_for(process, LOOKED)
        begun = time.monotonic()
        wait_for(process, CLOSING)
        seconds = time.monotonic() - begun
        assert process.wait(PATIENCE) == 0
    run = run_in(folder)
    with closing(sqlite3.connect(run / "journal.sqlite")) as connection:
        (lessons,) = connection.execute("SELECT value FROM facts WHERE key = 'lessons'").fetchone()
    assert json.loads(lessons)["refuse"] > 0
    assert json.loads(lessons)["keep"] > 0
    return Whole(run, seconds)


def copy_of(place: Path, folder: Path) -> Path:
    return Path(shutil.copytree(place, folder))


def run_in(folder: Path) -> Path:
    """Return the only run folder below `folder`."""
    (found,) = (folder / "runs").iterdir()
    return found


@contextmanager
def started(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a whole run in a process of its own, which does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demur", "align", "tiny", *OPTIONS, *(options or PREFILL)],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], beginning: str) -> str:
    """Read what the process says up to the line that begins so, and return that line."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(beginning):
            return line
    raise AssertionError("".join(said))


def ended_before(process: subprocess.Popen[str], moment: float) -> bool:
    """Kill the process `moment` seconds after it has looked about; return whether it was done."""
    wait_for(process, LOOKED)
    try:
        code = process.wait(moment)
    except subprocess.TimeoutExpired:
        assert moment < PATIENCE, "the run does not end"
        process.send_signal(signal.SIGKILL)
        code = process.wait(PATIENCE)
        assert code in (0, -signal.SIGKILL)
        return code == 0  # it ended in the very moment
    assert code == 0, process.stderr and process.stderr.read()
    return True


def stamps(run: Path, scratch: Path) -> dict[str, str]:
    """Return when each answer was written, from a copy: the journal stays as the kill left it."""
    for path in run.glob("journal.sqlite*"):
        shutil.copy(path, scratch / path.name)
    with closing(sqlite3.connect(scratch / "journal.sqlite")) as connection:
        made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'answers'").fetchone()
        found = connection.execute("SELECT key, written FROM answers") if made else ()
        stamped = dict(found)
    for path in scratch.glob("journal.sqlite*"):
        path.unlink()
    return stamped


def watch(journal: Path) -> None:
    """Let the journal itself note what is written a second time, from now on."""
    with closing(sqlite3.connect(journal)) as connection:
        connection.executescript(WATCH)


def written_again(journal: Path) -> list[str]:
    with closing(sqlite3.connect(journal)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM again")]


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def result(run: Path) -> dict[str, Any]:
    """Return what a run came to, without what it took and on which day it was."""
    found = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return without_cost(found, "created")


def weights(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "model").glob("*.safetensors")}


def assert_same(run: Path, other: Path) -> None:
    """Check that two runs of one configuration came to the same, and left the same files."""
    assert result(run) == result(other)
    assert weights(run) == weights(other) != {}
    first, second = (read_patch(each / "patch.safetensors").manifest for each in (run, other))
    assert first.result_hash == second.result_hash
    assert first.hash == second.hash
    assert names(run) == names(other)
    config, known = ((each / "config.json").read_bytes() for each in (run, other))
    assert config == known
    assert answers(run) == answers(other) != []


def answers(run: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(run / "journal.sqlite")) as connection:
        return list(connection.execute("SELECT key, prompt, text FROM answers ORDER BY key"))


def leave_halves(run: Path, whole: Path) -> None:
    """Leave beside each place what a kill in the middle of writing it leaves there."""
    files = result(whole)["files"].values()
    for place in (*(run / name for name in (*files, "config.json")), run / "model" / "README.md"):
        half = place.with_name(f".{place.name}.1234.partial")
        if place.name == "model":
            half.mkdir(exist_ok=True)
            (half / "model.safetensors").write_bytes(b"half")
        elif half.parent.exists():
            half.write_bytes(b"half")


def go_to_the_end(
    folder: Path, whole: Path, scratch: Path, moments: Iterator[float], kills: int
) -> int:
    """Start one run again and again until it is done; kill it at most `kills` times.

    Once its result is written it is killed no more: there would be little left to disturb.

    Args:
        whole: the run folder of an uninterrupted run.
        scratch: an empty folder.
        moments: seconds from looking about to the next kill.

    Returns:
        How often it was killed.
    """
    known: dict[str, str] = {}
    watched, killed = False, 0
    while True:
        kill = killed < kills and not list(folder.glob("runs/*/result.json"))
        with started(folder) as process:
            done = ended_before(process, next(moments) if kill else PATIENCE)
        killed += not done
        if not list(folder.glob("runs/*")):
            continue
        run = run_in(folder)
        now = stamps(run, scratch)
        assert known.items() <= now.items()
        known = now
        if done:
            break
        print(f"killed with {len(known)} answers, after: {last_line(run)}")
        if known and not watched:
            watch(run / "journal.sqlite")
            watched = True
        leave_halves(run, whole)
    assert not watched or written_again(run / "journal.sqlite") == []
    return killed


def last_line(run: Path) -> str:
    log = run / "run.log"
    return log.read_text(encoding="utf-8").splitlines()[-1] if log.exists() else "nothing said"


def test_killed_at_ten_random_moments_a_run_comes_to_the_same(
    place: Path, whole: Whole, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    generator = random.Random(SEED)
    moments = iter(lambda: generator.uniform(0.0, whole.seconds), None)
    killed, runs = 0, 0
    while killed < KILLS:  # a run that is done before its next moment is followed by a new one
        folder = copy_of(place, tmp_path / f"run {runs}")
        killed += go_to_the_end(folder, whole.run, scratch, moments, KILLS - killed)
        runs += 1
        assert_same(run_in(folder), whole.run)


def test_two_runs_at_once_and_a_second_process_that_is_refused(
    place: Path, whole: Whole, tmp_path: Path
) -> None:
    folder = copy_of(place, tmp_path / "here")
    with started(folder) as first, started(folder, "--prefill", "2") as second:
        runs = [
            folder / wait_for(process, LOCKED).removeprefix(LOCKED).strip()
            for process in (first, second)
        ]
        for process in (first, second):
            process.send_signal(signal.SIGSTOP)
        refused = demur(folder, "align", "tiny", *OPTIONS, *PREFILL)
        for process in (first, second):
            process.send_signal(signal.SIGCONT)
        for process in (first, second):
            assert process.wait(PATIENCE) == 0, process.stderr and process.stderr.read()
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "Traceback" not in refused.stderr
    *_, cause, remedy = refused.stderr.splitlines()
    assert cause == f"error: Another process is at work in {runs[0].relative_to(folder)}."
    assert remedy == "Wait for it, or give this run a folder of its own with --run."
    assert runs[0] != runs[1]
    assert_same(runs[0], whole.run)
    # How many answers are forced open plays no part in what is learnt, nor in the other figures.
    assert weights(runs[1]) == weights(whole.run)
    figures, known = (result(run)["scorecard"]["comparisons"] for run in (runs[1], whole.run))
    assert figures[:3] == known[:3]
    assert [each["after"]["n"] for each in (figures[3], known[3])] == [2, 4]
    assert names(runs[1]) == names(whole.run)


@pytest.mark.parametrize(
    ("what", "left", "own"),
    [
        ("config", ".config.json.*.partial", ()),
        ("text", ".result.json.*.partial", ("result.json",)),
        ("patch", ".patch.safetensors.*.partial", ("patch.safetensors", "model")),
        ("folder", ".model.*.partial", ("patch.safetensors", "model")),
    ],
)
def test_the_next_start_sweeps_what_a_kill_left_half_written(
    tmp_path: Path, what: str, left: str, own: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    killed = subprocess.run(
        [sys.executable, "-c", HALF, what, str(run)],
        env=ENVIRONMENT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(run.glob(left))) == 1
    (run / ".other.0a1b2c3d.partial").mkdir()  # of a `demur apply` into this folder, say
    with RunFolder(run, {"model": "tiny"}) as folder:
        folder.sweep(*own)
    assert {path.name for path in run.iterdir()} == {
        ".lock", "config.json", "journal.sqlite", ".other.0a1b2c3d.partial",
    }  # fmt: skip
