"""Grafting on disk: parts of a donor's tensors put into a copy of the recipient, out of core.

    parts = [part for module in chosen for part in module.disk]
    grafted = graft_checkpoint(recipient, donor, parts, Path("out"))

The recipient is read once, and of the donor only what is taken. Nothing is computed but a change of
dtype where the two differ. `donor_changes` gives the same change to `make_patch`, so that it can be
taken back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demur.checkpoint.arithmetic import BIT_TYPES, round_to_bits, to_float64
from demur.checkpoint.copying import copy_model, files_of
from demur.checkpoint.header import TensorRange
from demur.checkpoint.history import read_history, write_history
from demur.checkpoint.index import (
    BLOCK_BYTES,
    NONFINITE_BITS,
    Blocks,
    Checkpoint,
    combined_hash,
    open_checkpoint,
)
from demur.checkpoint.manifest import demur_version
from demur.checkpoint.places import Places, Stretches, read_part, stretches, write_part
from demur.checkpoint.quantised import require_plain
from demur.checkpoint.rewrite import Rewrite
from demur.checkpoint.stamps import steady
from demur.checkpoint.storage import require_empty, require_room, whole_folder, writing
from demur.errors import CheckpointError


@dataclass(frozen=True)
class Grafted:
    """What came out.

    Attributes:
        folder: the new model.
        tensors: how many tensors hold something of the donor's now.
        parameters: how many numbers were taken from the donor.
        share: that as a share of the model's parameters, in [0, 1].
        base_hash: the recipient's checkpoint hash.
        checkpoint_hash: the new model's.
        converted: pairs of dtypes, the donor's and the recipient's, where numbers were rounded or
            widened.
        left_out: files that were not copied because they would still hold the old weights.
        shared: whether the copy shares what did not change with the recipient, on disk.
    """

    folder: Path
    tensors: int
    parameters: int
    share: float
    base_hash: str
    checkpoint_hash: str
    converted: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]
    shared: bool

    @property
    def sentence(self) -> str:
        """The summary for a user."""
        text = (
            f"Put {self.parameters:,} numbers of the donor ({self.share:.2%} of the parameters)"
            f" into {self.tensors} tensors of {self.folder}."
        )
        if self.converted:
            kinds = ", ".join(f"{theirs} to {ours}" for theirs, ours in self.converted)
            text += f" They were converted from {kinds}, rounded to nearest."
        if self.left_out:
            text += f" Left out {', '.join(self.left_out)}, which demur does not change."
        return text


@dataclass(frozen=True)
class _Taken:
    """A part of one tensor, in the recipient and in the donor."""

    tensor: TensorRange
    here: Stretches
    source: TensorRange
    there: Stretches


def graft_checkpoint(
    recipient: Path,
    donor: Path,
    parts: Sequence[Places],
    output: Path,
    *,
    donor_parts: Sequence[Places] | None = None,
    recipient_name: str | None = None,
    donor_name: str | None = None,
    durable: bool = True,
) -> Grafted:
    """Write the recipient with parts of the donor's to `output`, a folder that is new or empty.

    Args:
        recipient: its model folder; it is only read.
        donor: the donor's.
        parts: which places of which tensors to take.
        donor_parts: the same places in the donor, in the same order, where it names its tensors
            otherwise or lays them out otherwise.
        recipient_name, donor_name: how to call them in the new model's `demur.json`; by default
            the names of their folders.
        durable: wait until the disk has it all, so that not even a loss of power harms it.

    Raises:
        CheckpointError: a part is not there or does not fit, either model is quantised where it
            would be changed, the donor's numbers are not finite in the recipient's dtype, a file
            changes while it is read, the output is taken, or the disk has no room. Nothing is left
            behind then, nor when the process is killed but for a hidden folder beside `output`.
    """
    require_empty(output)
    checkpoint, source = open_checkpoint(recipient), open_checkpoint(donor)
    taken = _match(checkpoint, source, parts, donor_parts)
    files, left_out = files_of(checkpoint)
    require_room(output, sum(path.stat().st_size for path in files))
    history = read_history(recipient)
    shards = sorted({one.source.shard for of_one in taken.values() for one in of_one})
    with writing(output), whole_folder(output, durable=durable) as folder, steady(shards):
        if open_checkpoint(donor) != source:
            raise CheckpointError(
                f"The weights in {donor} were replaced while they were read.",
                "Wait until nothing writes to them, and try again.",
            )
        rewrites = {name: _taking(of_one) for name, of_one in taken.items()}
        copied = copy_model(checkpoint, files, folder, rewrites, durable=durable)
        base, result = combined_hash(copied.base), combined_hash(copied.result)
        graft = {
            "demur": demur_version(),
            "graft": {
                "donor": donor_name or donor.resolve().name,
                "parts": [_described(part) for part in parts],
                "tensors": {name: copied.result[name] for name in taken},
            },
            "base": {"name": recipient_name or recipient.resolve().name, "hash": base},
            "result": {"hash": result},
        }
        write_history(folder, [*history, graft])
    pieces = [one for of_one in taken.values() for one in of_one]
    parameters = sum(one.here.elements for one in pieces)
    kinds = {(one.source.dtype, one.tensor.dtype) for one in pieces}
    return Grafted(
        folder=output,
        tensors=len(taken),
        parameters=parameters,
        share=parameters / checkpoint.parameters,
        base_hash=base,
        checkpoint_hash=result,
        converted=tuple(sorted((theirs, ours) for theirs, ours in kinds if theirs != ours)),
        left_out=left_out,
        shared=copied.shared,
    )


def donor_changes(
    recipient: Path,
    donor: Path,
    parts: Sequence[Places],
    *,
    donor_parts: Sequence[Places] | None = None,
) -> Mapping[str, Rewrite]:
    """Return the same graft as changes for `make_patch`, which reads the donor block by block.

    Raises:
        CheckpointError: a part is not there or does not fit, or either model is quantised where it
            would be changed; when a patch is made of it, also what `graft_checkpoint` raises for
            numbers that are not finite.
    """
    taken = _match(open_checkpoint(recipient), open_checkpoint(donor), parts, donor_parts)
    return {name: _taking(of_one) for name, of_one in taken.items()}


def _match(
    recipient: Checkpoint,
    donor: Checkpoint,
    parts: Sequence[Places],
    donor_parts: Sequence[Places] | None,
) -> dict[str, list[_Taken]]:
    """Return by tensor, in the order of the recipient's files, what is taken."""
    theirs = parts if donor_parts is None else donor_parts
    if not parts or len(parts) != len(theirs):
        raise CheckpointError(
            f"There is nothing to graft: {len(parts)} parts of the recipient and {len(theirs)} of"
            " the donor are given.",
            "Give at least one part, and as many of each.",
        )
    require_plain(recipient, [part.tensor for part in parts], "recipient")
    require_plain(donor, [part.tensor for part in theirs], "donor")
    found: dict[str, list[_Taken]] = {}
    for ours, other in zip(parts, theirs, strict=True):
        tensor, source = recipient.tensor(ours.tensor), donor.tensor(other.tensor)
        one = _Taken(tensor, stretches(ours, recipient), source, stretches(other, donor))
        if one.here.elements != one.there.elements or (
            donor_parts is None and tensor.shape != source.shape
        ):
            raise CheckpointError(
                f"{ours.tensor} is {list(tensor.shape)} in {recipient.folder}, and {other.tensor}"
                f" is {list(source.shape)} in the donor {donor.folder}.",
                "Give a donor of the same family and size.",
            )
        found.setdefault(ours.tensor, []).append(one)
    return {name: found[name] for name in recipient.tensors if name in found}


def _taking(pieces: Sequence[_Taken]) -> Rewrite:
    """Return a rewrite that sets the pieces of one tensor to the donor's numbers."""
    kind = BIT_TYPES[pieces[0].tensor.dtype]

    def run(blocks: Blocks) -> Iterator[Any]:
        with ExitStack() as stack:
            files = [
                stack.enter_context(one.source.shard.open("rb", buffering=0)) for one in pieces
            ]
            for offset, block in blocks:
                bits = np.frombuffer(block, kind)
                place = offset // kind.itemsize
                for one, file in zip(pieces, files, strict=True):
                    first, last = (one.here.before(at) for at in (place, place + len(bits)))
                    if first < last:
                        values = read_part(
                            file, one.source, one.there, first, last, BIT_TYPES[one.source.dtype]
                        )
                        write_part(bits, one.here, place, _converted(values, one))
                yield bits

    return Rewrite(BLOCK_BYTES, run)


def _converted(values: Any, one: _Taken) -> Any:
    """Return the donor's numbers as bits of the recipient's dtype."""
    ours, theirs = one.tensor.dtype, one.source.dtype
    if ours != theirs:
        values = round_to_bits(to_float64(values, theirs), ours)
    marker = values.dtype.type(NONFINITE_BITS[ours])
    if ((values & marker) == marker).any():
        raise CheckpointError(
            f"{one.source.name} of the donor holds numbers that are NaN, infinite or beyond the"
            f" range of {ours}.",
            "Use a donor whose weights are sound, or a recipient in a wider dtype.",
        )
    return values


def _described(part: Places) -> dict[str, Any]:
    whole = part.start == 0 and part.stop == part.period
    places = (
        {}
        if whole
        else {"dim": part.dim, "period": part.period, "start": part.start, "stop": part.stop}
    )
    return {"tensor": part.tensor, **places}
