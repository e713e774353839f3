"""Demur's own cache: folders that are built once, appear whole, and are shared by all runs.

A folder is built beside its place under a file lock and renamed into it. Two runs that want the
same folder build it once; what a killed run left behind is swept away by the next that builds.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demur.errors import ModelError


def cache_root(cache: Path | None = None) -> Path:
    """Return the cache folder: `cache`, $DEMUR_CACHE, $XDG_CACHE_HOME/demur, ~/.cache/demur."""
    if cache is not None:
        return cache.expanduser()
    if chosen := os.environ.get("DEMUR_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "demur"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def no_room(where: Path | str, error: OSError | None = None) -> ModelError:
    """Return the error for a full disk at `where`."""
    detail = f" ({error.strerror})" if error is not None and error.strerror else ""
    return ModelError(
        f"There is no room left on the disk that holds {where}{detail}.",
        "Free some space, or put the caches elsewhere with DEMUR_CACHE and HF_HOME.",
    )


def require_room(folder: Path, size: int) -> None:
    """Raise unless the disk under `folder`, which need not exist yet, holds `size` bytes more.

    Raises:
        ModelError: there is less room.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise ModelError(
            f"The model takes {_gigabytes(size)} in {folder}, but its disk has "
            f"{_gigabytes(free)} left.",
            "Free some space, or put the caches elsewhere with DEMUR_CACHE and HF_HOME.",
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`, which `build` fills if it is not there yet.

    `build` is given an empty folder to write into. Only when it returns, and everything is on
    disk, does the folder get its name; if it raises, nothing remains.

    Raises:
        ModelError: the cache cannot be written, or its disk is full.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(folder.name + ".lock")):
            if folder.is_dir():
                return folder
            for left in folder.parent.glob(f".{folder.name}.*"):
                shutil.rmtree(left, ignore_errors=True)
            half = folder.with_name(f".{folder.name}.{os.getpid()}")
            half.mkdir()
            try:
                build(half)
                _sync(half)
                half.rename(folder)
                _sync_one(folder.parent)
            finally:
                shutil.rmtree(half, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_room(folder.parent, error) from error
        raise ModelError(
            f"The cache folder {folder.parent} cannot be written ({error.strerror or error}).",
            "Make it writable, or choose another with DEMUR_CACHE.",
        ) from error
    return folder


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a transformers model and its tokenizer into `folder`, the weights as safetensors.

    Raises:
        ModelError: the disk is full or cannot be written.
    """
    from safetensors import SafetensorError

    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except SafetensorError as error:
        if f"os error {errno.ENOSPC}" in str(error):
            raise no_room(folder.parent) from error
        raise ModelError(
            f"The weights cannot be written to {folder.parent} ({error}).",
            "Choose another cache with DEMUR_CACHE.",
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path`; the kernel lets go of it even when the process is killed."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sync(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        _sync_one(path)
    _sync_one(folder)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
