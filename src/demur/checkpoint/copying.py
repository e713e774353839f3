"""A model folder copied with some tensors rewritten, and hashed, all in one pass over it.

Every tensor is read once: hashed, written to its place in the copy, and rewritten on the way if
it is to change. Where the file system can share blocks, only what changes is written; where the
hashes are known already, only what changes is hashed. What was rewritten is read back and checked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from demur.checkpoint.foreign import PICKLE_SUFFIXES
from demur.checkpoint.header import TensorRange, read_header
from demur.checkpoint.history import PROVENANCE
from demur.checkpoint.index import (
    BLOCK_BYTES,
    THREADS,
    Blocks,
    Checkpoint,
    Digest,
    blocks_of,
    known_hashes,
    new_digest,
    open_checkpoint,
)
from demur.checkpoint.rewrite import Rewrite
from demur.checkpoint.stamps import steady
from demur.checkpoint.storage import clone_file, copy_file
from demur.errors import CheckpointError

FLUSH_SECONDS = 0.05
COPIED_FOLDERS = ("additional_chat_templates",)
OTHER_WEIGHTS = (*PICKLE_SUFFIXES, ".bin.index.json", ".gguf", ".h5", ".msgpack", ".onnx")


@dataclass(frozen=True)
class Copied:
    """What was read and what was written.

    Attributes:
        base: hash of every tensor of the model that was copied.
        result: hash of every tensor of the copy.
        shared: whether unchanged parts share their blocks on disk with the original.
    """

    base: Mapping[str, str]
    result: Mapping[str, str]
    shared: bool


class UnexpectedBaseError(Exception):
    """A tensor that is to change is not what the rewrite was made for."""


def files_of(checkpoint: Checkpoint) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files of a model folder that a copy holds, and the names of those it leaves out.

    Other weights, such as pickled ones, are left out: they would still be the old ones.
    """
    files, left_out = [], []
    for path in sorted(checkpoint.folder.iterdir()):
        if path.is_dir() and path.name in COPIED_FOLDERS:
            files += sorted(inner for inner in path.iterdir() if inner.is_file())
        if not path.is_file() or path.name == PROVENANCE:
            continue
        stray = path.suffix == ".safetensors" and not path.name.startswith("adapter_")
        if path not in checkpoint.shards and (stray or path.name.endswith(OTHER_WEIGHTS)):
            left_out.append(path.name)
        else:
            files.append(path)
    return files, tuple(left_out)


def copy_model(
    checkpoint: Checkpoint,
    files: Sequence[Path],
    folder: Path,
    rewrites: Mapping[str, Rewrite],
    *,
    expected: Mapping[str, str] | None = None,
    durable: bool = True,
) -> Copied:
    """Copy a model's files into an empty folder, with some tensors rewritten.

    Args:
        checkpoint: the model.
        files: its files, as `files_of` gives them.
        folder: where the copy goes.
        rewrites: by name, what becomes of the tensors that change.
        expected: by name, the hashes that tensors which change must have.
        durable: have the disk write while the copy goes on, for who waits for it in the end.

    Raises:
        UnexpectedBaseError: a tensor has not the expected hash.
        CheckpointError: a file changed while it was read, ends early, or does not come back as
            it was written.
    """
    known = known_hashes(checkpoint)
    with steady(files):
        if open_checkpoint(checkpoint.folder) != checkpoint:
            raise CheckpointError(
                f"The weights in {checkpoint.folder} were replaced while they were read.",
                "Wait until nothing writes to them, and try again.",
            )
        for path in files:
            if path not in checkpoint.shards:
                target = folder / path.relative_to(checkpoint.folder)
                target.parent.mkdir(exist_ok=True)
                copy_file(path, target)
        run = _Run(checkpoint, folder, rewrites, known, expected or {})
        shared = [run.begin(shard) for shard in checkpoint.shards]
        with _flushing([folder / shard.name for shard in checkpoint.shards], durable):
            run.copy_all()
    result = run.base | run.result
    return Copied(run.base, result, all(shared))


class _Run:
    """One copying: what it reads and writes, and the hashes so far."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        folder: Path,
        rewrites: Mapping[str, Rewrite],
        known: Mapping[str, str],
        expected: Mapping[str, str],
    ) -> None:
        self.checkpoint, self.folder, self.rewrites = checkpoint, folder, rewrites
        self.known, self.expected = known, expected
        self.base: dict[str, str] = dict(known)
        self.result: dict[str, str] = {}
        self.stopped = threading.Event()
        self._jobs: list[tuple[TensorRange, bool]] = []

    def begin(self, shard: Path) -> bool:
        """Lay out the copy of a shard and list its tensors; return whether it shares blocks."""
        target = self.folder / shard.name
        header = read_header(shard)
        shared = clone_file(shard, target)
        if not shared:
            with shard.open("rb") as reader, target.open("xb") as writer:
                first = min((one.start for one in header.tensors), default=None)
                writer.write(reader.read() if first is None else reader.read(first))
                writer.truncate(shard.stat().st_size)
        self._jobs += [(tensor, shared) for tensor in header.tensors]
        return shared

    def copy_all(self) -> None:
        """Copy every tensor, on a few threads; the first error stops them all."""
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            try:
                futures = [pool.submit(self._copy, *job) for job in self._jobs]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            finally:
                self.stopped.set()
                pool.shutdown(cancel_futures=True)

    def _copy(self, tensor: TensorRange, shared: bool) -> None:
        own = self.checkpoint.tensors.get(tensor.name) == tensor  # or another shard's counts
        rewrite = self.rewrites.get(tensor.name) if own else None
        hashed = own and tensor.name not in self.known
        if rewrite is None and shared and not hashed:
            return
        target = self.folder / tensor.shard.name
        with (
            tensor.shard.open("rb", buffering=0) as reader,
            target.open("r+b", buffering=0) as writer,
        ):
            digest = new_digest(tensor.dtype, tensor.shape) if hashed else None
            step = rewrite.step if rewrite else BLOCK_BYTES
            blocks = self._hashing(blocks_of(tensor, step, reader), digest)
            if rewrite is None:
                for offset, block in blocks:
                    if not shared:
                        _write(writer, tensor.start + offset, block)
            else:
                found = self._write_all(tensor, rewrite.run(blocks), writer)
                if rewrite.careful is not None and found != rewrite.result:
                    blocks = self._hashing(blocks_of(tensor, step, reader), None)
                    found = self._write_all(tensor, rewrite.careful(blocks), writer)
                self.result[tensor.name] = found
            if digest is not None:
                self.base[tensor.name] = digest.hexdigest()
        if own and self.expected.get(tensor.name, "") not in ("", self.base[tensor.name]):
            raise UnexpectedBaseError(tensor.name)

    def _hashing(self, blocks: Blocks, digest: Digest | None) -> Blocks:
        for offset, block in blocks:
            if self.stopped.is_set():
                return
            if digest is not None:
                digest.update(block)
            yield offset, block

    def _write_all(self, tensor: TensorRange, blocks: Iterator[Any], writer: IO[bytes]) -> str:
        """Write what becomes of a tensor, and return its hash once it was read back."""
        digest = new_digest(tensor.dtype, tensor.shape)
        position = tensor.start
        for block in blocks:
            data = memoryview(block).cast("B")
            digest.update(data)
            _write(writer, position, data)
            position += len(data)
        found = new_digest(tensor.dtype, tensor.shape)
        for _ in self._hashing(blocks_of(tensor, BLOCK_BYTES, writer), found):
            pass
        if found.hexdigest() != digest.hexdigest() and not self.stopped.is_set():
            raise CheckpointError(
                f"{tensor.name} does not come back from the disk as it was written.",
                "Check the disk, or choose an output on another one.",
            )
        return found.hexdigest()


def _write(file: IO[bytes], start: int, data: memoryview) -> None:
    file.seek(start)
    while data:
        data = data[file.write(data) :]


@contextmanager
def _flushing(paths: Iterable[Path], durable: bool) -> Iterator[None]:
    """Have the disk begin to write while files still grow, instead of all at the end."""
    if not durable:
        yield
        return
    finished = threading.Event()
    errors: list[OSError] = []

    def flush() -> None:
        try:
            while not finished.wait(FLUSH_SECONDS):
                for path in paths:
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
        except OSError as error:  # the kernel says it once
            errors.append(error)

    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
    if errors:
        raise errors[0]
