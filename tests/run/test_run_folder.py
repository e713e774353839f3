"""A run folder lets one process in, knows its configuration, and writes things whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from demur.errors import RunError
from demur.run.folder import (
    RunFolder,
    default_folder,
    folder_that_appears_whole,
    require_room,
    room_on_disk,
    write_atomically,
)

SOURCE = str(Path(__file__).resolve().parents[2] / "src")
HOLDER = """
import sys
from pathlib import Path
from demur.run.folder import RunFolder

with RunFolder(Path(sys.argv[1]), {"model": "tiny"}):
    print("held", flush=True)
    sys.stdin.read()
"""


def fill_and_fail(target: Path, error: BaseException) -> None:
    with folder_that_appears_whole(target) as folder:
        assert list(folder.iterdir()) == []
        (folder / "half").write_text("half")
        raise error


def test_the_lock_keeps_another_process_out(tmp_path):
    path = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunError, match="Another process is at work"):
        RunFolder(path, {"model": "tiny"})
    holder.kill()
    holder.wait()
    with RunFolder(path, {"model": "tiny"}) as folder:  # the lock died with its holder
        folder.journal.keep_fact("a", 1)


def test_the_lock_holds_within_a_process_and_ends_with_the_block(tmp_path):
    with RunFolder(tmp_path, {}), pytest.raises(RunError, match="Another process"):
        RunFolder(tmp_path, {})
    RunFolder(tmp_path, {}).close()


def test_the_same_configuration_continues(tmp_path):
    configuration = {"model": "tiny", "strengths": (0.8, 1.2), "seed": 0}
    with RunFolder(tmp_path / "run", configuration) as folder:
        folder.journal.keep_fact("a", 1)
    with RunFolder(tmp_path / "run", dict(reversed(configuration.items()))) as folder:
        assert folder.journal.fact("a") == 1
    assert json.loads((tmp_path / "run" / "config.json").read_text())["strengths"] == [0.8, 1.2]


def test_another_configuration_is_named(tmp_path):
    RunFolder(tmp_path, {"model": "tiny", "seed": 0, "rank": 4}).close()
    with pytest.raises(RunError, match=r"different: more, rank, seed\)") as caught:
        RunFolder(tmp_path, {"model": "tiny", "seed": 1, "more": True})
    assert "--run" in caught.value.remedy
    RunFolder(tmp_path, {"model": "tiny", "seed": 0, "rank": 4}).close()  # the lock is free again


@pytest.mark.parametrize("content", [b"{", b"[1, 2]", b"\xff\xfe"])
def test_a_damaged_configuration_is_an_error(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RunError, match="is not a run's configuration"):
        RunFolder(tmp_path, {})


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder(tmp_path / "file", {})


def test_no_room_for_the_configuration(tmp_path, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="no room left"):
        RunFolder(tmp_path, {})
    monkeypatch.undo()
    assert not list(tmp_path.glob("*config.json*"))
    RunFolder(tmp_path, {}).close()


def test_write_atomically_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_atomically(file, "old")

    def broken(*arguments: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="broken"):
        write_atomically(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert file.read_text() == "old"


def test_room_on_disk_translates_a_full_disk_only(tmp_path):
    for number in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(RunError, match="no room left") as caught, room_on_disk(tmp_path):
            raise OSError(number, "full")
        assert "it continues" in caught.value.remedy
    with pytest.raises(FileNotFoundError), room_on_disk(tmp_path):
        (tmp_path / "absent").read_text()


def test_require_room_looks_at_the_disk_of_a_folder_to_come(tmp_path, monkeypatch):
    asked = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=3_000_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    require_room(tmp_path / "runs" / "a", 3_000_000_000)
    with pytest.raises(RunError, match=r"needs 4\.0 GB, and 3\.0 GB are free"):
        require_room(tmp_path / "runs" / "a", 4_000_000_000)
    assert asked == [tmp_path, tmp_path]


def test_a_folder_appears_whole_and_replaces_the_former_one(tmp_path):
    target = tmp_path / "deep" / "model"
    for text in ("one", "two"):
        with folder_that_appears_whole(target) as folder:
            assert target.exists() == (text == "two")
            (folder / "inner").mkdir()
            (folder / "inner" / text).write_text(text)
    assert [path.name for path in target.parent.iterdir()] == ["model"]
    assert [path.name for path in (target / "inner").iterdir()] == ["two"]


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_a_folder_that_fails_never_appears(tmp_path, error):
    target = tmp_path / "model"
    with pytest.raises(type(error)):
        fill_and_fail(target, error)
    assert list(tmp_path.iterdir()) == []
    with folder_that_appears_whole(target) as folder:
        (folder / "whole").write_text("whole")
    with pytest.raises(type(error)):
        fill_and_fail(target, error)
    assert (target / "whole").read_text() == "whole"


def test_a_full_disk_while_a_folder_is_filled(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(RunError, match="no room left"), folder_that_appears_whole(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_kill_are_cleared_or_put_back(tmp_path):
    target = tmp_path / "model"
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".model.partial" / "half").write_text("half")
    (tmp_path / ".model.former").mkdir()
    (tmp_path / ".model.former" / "whole").write_text("whole")
    with pytest.raises(ValueError):
        fill_and_fail(target, ValueError("again"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (target / "whole").read_text() == "whole"


def test_default_folder_follows_name_and_configuration():
    first = default_folder("org/tiny-chat", {"seed": 0})
    assert first.parent == Path("runs")
    assert first.name.startswith("tiny-chat-")
    assert first == default_folder("org/tiny-chat/", {"seed": 0})
    assert first != default_folder("org/tiny-chat", {"seed": 1})
    assert default_folder("/a/b/model.gguf", {}).name.startswith("model-")
