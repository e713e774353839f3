"""One run, one folder: its configuration, its lock, its journal, and folders that appear whole.

A run is started again by giving the same command: the folder's name carries the hash of the
resolved configuration, so that the same choices find the same folder and others never mix.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from demur.errors import RunError
from demur.run.journal import Journal, content_key

PATCH = "patch.safetensors"  # the change alone, in the folder of a run that makes one


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def room_on_disk(where: Path) -> Iterator[None]:
    """Turn the system's "no space left" into an error with a remedy.

    Raises:
        RunError: the disk filled up inside the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"There is no room left on the disk of {where}.",
                "Make room and run the same command again: it continues.",
            ) from error
        raise


def require_room(where: Path, needed: int) -> None:
    """Check before the work that `needed` bytes are free.

    Raises:
        RunError: they are not.
    """
    existing = where
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise RunError(
            f"The run needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {existing}.",
            "Make room, or choose another place with --run.",
        )


@contextmanager
def folder_that_appears_whole(target: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder; it takes the target's name when the block succeeds.

    What had the name before stays until then; when the block fails it stays for good.

    Raises:
        RunError: the disk filled up inside the block.
    """
    temporary = target.with_name(f".{target.name}.partial")
    former = target.with_name(f".{target.name}.former")
    if former.exists() and not target.exists():  # killed between the two renames below
        os.rename(former, target)
    for leftover in (temporary, former):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with room_on_disk(target):
            yield temporary
            for path in [*sorted(temporary.rglob("*")), temporary]:
                _to_disk(path)
        if target.exists():
            os.rename(target, former)
        os.rename(temporary, target)
        _to_disk(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if target.exists():
            shutil.rmtree(former, ignore_errors=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RunFolder:
    """An open run: locked against a second process, with its journal.

    Attributes:
        path: the folder.
        configuration: what it was opened for.
        follows: whether it is another process's run, which this one takes a part in.
        journal: its journal.
    """

    def __init__(
        self, path: Path, configuration: Mapping[str, Any], *, follows: bool = False
    ) -> None:
        """Open or create the run at `path` for exactly this configuration.

        Args:
            follows: a process that was launched with the one whose run it is: it takes no lock,
                and what it adds to the journal is not kept.

        Raises:
            RunError: another process works in it, it belongs to another configuration, or it
                cannot be written.
        """
        self.path = path
        self.configuration = dict(configuration)
        self.follows = follows
        self._lock: IO[str] | None = None
        if follows:
            self._check(configuration)
            self.journal = Journal(path / "journal.sqlite", writes=False)
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = (path / ".lock").open("a+")
        except OSError as error:
            raise RunError(
                f"The run folder {path} cannot be written ({error.strerror}).",
                "Choose another one with --run.",
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            if not isinstance(error, BlockingIOError):
                raise RunError(
                    f"The run folder {path} cannot be locked ({error.strerror}).",
                    "Choose a folder on another file system with --run.",
                ) from error
            raise RunError(
                f"Another process is at work in {path}.",
                "Wait for it, or give this run a folder of its own with --run.",
            ) from error
        self._lock = lock
        with ExitStack() as undone:
            undone.callback(lock.close)
            self.sweep("config.json")
            self._check(configuration)
            self.journal = Journal(path / "journal.sqlite")
            undone.pop_all()

    def _check(self, configuration: Mapping[str, Any]) -> None:
        file = self.path / "config.json"
        if file.exists():
            try:
                known = dict(json.loads(file.read_text(encoding="utf-8")))
            except (OSError, TypeError, ValueError) as error:
                raise RunError(
                    f"{file} is not a run's configuration ({error}).",
                    "Choose another run folder with --run, or delete this one.",
                ) from error
            wanted = json.loads(json.dumps(dict(configuration)))
            if known != wanted:
                keys = {*known, *wanted}
                differing = sorted(k for k in keys if known.get(k) != wanted.get(k))
                raise RunError(
                    f"{self.path} holds a run of another configuration "
                    f"(different: {', '.join(differing)}).",
                    "Choose another folder with --run, or leave --run out.",
                )
            return
        with room_on_disk(self.path):
            write_atomically(file, json.dumps(dict(configuration), indent=2, sort_keys=True) + "\n")

    def sweep(self, *names: str) -> None:
        """Remove the half-written files and folders that a killed process left beside their places.

        The lock keeps all others out, so that nobody is writing them still; what is not meant for
        one of these places is left alone.

        Args:
            names: of the files and folders that the run itself writes, relative to its folder.
        """
        for name in () if self.follows else names:
            place = self.path / name
            for half in place.parent.glob(f".{glob.escape(place.name)}.*.partial"):
                if half.is_dir():
                    shutil.rmtree(half, ignore_errors=True)
                else:
                    half.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the journal and let the next process in."""
        self.journal.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def default_folder(name: str, configuration: Mapping[str, Any]) -> Path:
    """Return `runs/<model>-<hash of the configuration>` below the current folder."""
    short = name.rstrip("/").split("/")[-1].removesuffix(".gguf") or "model"
    return Path("runs") / f"{short}-{content_key(dict(configuration))[:8]}"
