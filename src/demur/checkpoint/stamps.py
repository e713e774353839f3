"""Whether files are still what they were: told by their stamps, without reading them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demur.errors import CheckpointError

# File systems tell times apart only so finely, and clocks of network disks differ.
SETTLED_NANOSECONDS = 2_000_000_000


@dataclass(frozen=True)
class Stamp:
    """What a file system says about a file's content; times are in nanoseconds.

    `touched` also moves when only the file's name or permissions change.
    """

    device: int
    inode: int
    size: int
    modified: int
    touched: int

    @property
    def content(self) -> tuple[int, ...]:
        """What differs once the content was replaced or written to."""
        return self.device, self.inode, self.size, self.modified

    def settled(self, now: int) -> bool:
        """Whether any later writing would give another stamp."""
        return max(self.modified, self.touched) < now - SETTLED_NANOSECONDS


def stamp_of(path: Path) -> Stamp:
    """Return a file's stamp; links are followed.

    Raises:
        CheckpointError: the file cannot be found.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions."
        ) from error
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@contextmanager
def steady(paths: Sequence[Path]) -> Iterator[None]:
    """Check at the end of the block that no file changed since its beginning.

    Raises:
        CheckpointError: one did; whatever else went wrong in the block is then its consequence.
    """
    before = {path: stamp_of(path).content for path in paths}
    try:
        yield
    except (CheckpointError, OSError) as error:  # a file that has gone is not found by its reader
        _require_same(before, error)
        raise
    _require_same(before, None)


def _require_same(before: dict[Path, tuple[int, ...]], cause: Exception | None) -> None:
    for path, content in before.items():
        if not path.exists() or stamp_of(path).content != content:
            raise CheckpointError(
                f"{path} changed while it was read.",
                "Wait until nothing writes to it, and try again.",
            ) from cause
