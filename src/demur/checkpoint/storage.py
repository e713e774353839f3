"""Files and folders that appear whole or not at all, and copies that cost little.

Everything is written to a hidden sibling, brought to the disk, and renamed. Whatever goes wrong
on the way, the sibling is removed; what the disk says becomes a `CheckpointError`.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from demur.errors import CheckpointError

COPY_BYTES = 1 << 22
FICLONE = 0x40049409  # linux/fs.h
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_KERNEL_COPY = (
    errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM,
)  # fmt: skip
NO_CLONE = (*NO_KERNEL_COPY, errno.ENOTTY, errno.ETXTBSY, errno.EISDIR)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses while `path` is written into a `CheckpointError`."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise _no_room(path, "the disk is full") from error
        raise CheckpointError(
            f"{error.filename or path} could not be read or written: {error.strerror}.",
            "Choose a place where you may write, and try again.",
        ) from error


def require_empty(output: Path) -> None:
    """Check that a folder can be made at `output`.

    Raises:
        CheckpointError: there is a file, or a folder that holds something.
    """
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise CheckpointError(
            f"{output} exists and is not a folder.", "Choose another output folder, or delete it."
        )
    if output.is_dir() and any(output.iterdir()):
        raise CheckpointError(
            f"The output folder {output} is not empty.", "Choose another one, or delete it."
        )


def require_room(path: Path, count: int) -> None:
    """Check that the disk that will hold `path` has room for `count` more bytes.

    Raises:
        CheckpointError: it has not.
    """
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < count:
        raise _no_room(path, f"it needs {count / 1e9:.2f} GB and {free / 1e9:.2f} GB are free")


def _no_room(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"There is no room on the disk for {path}: {reason}.",
        "Free some space, or choose an output on another disk.",
    )


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write; when the block ends well it replaces `path`, otherwise it is gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(output: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends well it becomes `output`.

    A process that is killed leaves `output` absent or whole; so does a machine that loses power
    if it is `durable`, that is, if the disk is waited for.

    Raises:
        CheckpointError: `output` is taken, as in `require_empty`.
    """
    require_empty(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(output)
    temporary.mkdir()
    try:
        yield temporary
        if durable:
            for path in sorted(temporary.rglob("*")):
                _sync(path)
            _sync(temporary)
        require_empty(output)
        if output.exists():
            output.rmdir()
        os.rename(temporary, output)
        if durable:
            _sync(output.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes to a new file, sharing blocks where the file system can."""
    with source.open("rb") as reader, target.open("xb") as writer:
        copy_range(reader, writer, 0, os.fstat(reader.fileno()).st_size)


def clone_file(source: Path, target: Path) -> bool:
    """Make a new file that shares all blocks with another, where the file system can do that.

    Returns False, and makes no file, where it cannot.
    """
    if sys.platform != "linux":
        return False
    import fcntl

    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), FICLONE, reader.fileno())
        except OSError as error:
            target.unlink()
            if error.errno in NO_CLONE:
                return False
            raise
    return True


def copy_range(reader: IO[bytes], writer: IO[bytes], start: int, count: int) -> None:
    """Append `count` bytes of one file, from `start` on, to another."""
    writer.flush()
    done = _kernel_copy(reader, writer, start, count)
    reader.seek(start + done)
    writer.seek(0, os.SEEK_END)
    while done < count:
        chunk = reader.read(min(COPY_BYTES, count - done))
        if not chunk:
            raise CheckpointError(
                f"{reader.name} became shorter while it was copied.",
                "Wait until nothing writes to it, and try again.",
            )
        writer.write(chunk)
        done += len(chunk)


def _kernel_copy(reader: IO[bytes], writer: IO[bytes], start: int, count: int) -> int:
    """Copy inside the kernel as far as it can be done; return how many bytes were copied."""
    if not hasattr(os, "copy_file_range"):
        return 0
    done = 0
    end = os.fstat(writer.fileno()).st_size
    while done < count:
        try:
            copied = os.copy_file_range(
                reader.fileno(), writer.fileno(), count - done, start + done, end + done
            )
        except OSError as error:
            if error.errno in NO_KERNEL_COPY:
                break
            raise
        if copied == 0:
            break
        done += copied
    return done


def _sibling(path: Path) -> Path:
    return path.absolute().with_name(f".{path.absolute().name}.{secrets.token_hex(4)}.partial")


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
