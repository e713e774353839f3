"""Task arithmetic: the way from a model to an aligned relative, taken in part or whole.

Ilharco et al. 2023 (arXiv 2212.04089): a task vector is what fine-tuning added to the weights, and
`base + scale * (donor - base)` takes it over. Here the donor is an aligned model of the same shape.
The scale is never negative: a task vector taken away would take refusals away. Tensors are read
one at a time, when they are asked for, so that neither model need fit into memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from demur.errors import CheckpointError
from demur.models.changes.scaling import Lazy
from demur.models.edits import require_scale

if TYPE_CHECKING:
    from demur.checkpoint.changes import Dense
    from demur.checkpoint.index import Checkpoint

COMPUTED = ("F64", "F32", "F16", "BF16")


def task_arithmetic(
    base: Path, donor: Path, scale: float = 1.0, tensors: Collection[str] | None = None
) -> Mapping[str, Dense]:
    """Return `scale * (donor - base)` as new values of every tensor in which the two differ.

    Args:
        base, donor: checkpoint folders.
        scale: 0 for the base, 1 for the donor.
        tensors: the names to take over; by default all.

    Raises:
        ConfigError: the scale is negative.
        CheckpointError: the donor is not of the base's names and shapes, a named tensor is not
            there, both are the same, or what differs is not stored as floating numbers.
    """
    from demur.checkpoint.index import open_checkpoint, tensor_hash

    require_scale(scale)
    ours, theirs = open_checkpoint(base), open_checkpoint(donor)
    require_same_shape(ours, theirs)
    names = list(ours.tensors)
    if tensors is not None:
        for name in tensors:
            ours.tensor(name)
        names = [name for name in names if name in set(tensors)]
    differing = [name for name in names if tensor_hash(ours, name) != tensor_hash(theirs, name)]
    if not differing:
        raise CheckpointError(
            f"{donor} has the same weights as {base} in all {len(names)} tensors asked for.",
            "Give a donor that was aligned, or name other tensors.",
        )
    require_computed(differing, ours, theirs)
    return _Between(ours, theirs, scale, differing)


class _Between(Lazy):
    def __init__(
        self, base: Checkpoint, donor: Checkpoint, scale: float, names: Collection[str]
    ) -> None:
        super().__init__(names)
        self.base, self.donor, self.scale = base, donor, scale

    def make(self, name: str) -> Dense:
        from demur.checkpoint.changes import Dense
        from demur.checkpoint.index import read_tensor

        own = read_tensor(self.base, name).astype("float64")
        other = read_tensor(self.donor, name).astype("float64")
        return Dense(own + self.scale * (other - own) if self.scale != 1 else other)


def require_computed(names: Iterable[str], *checkpoints: Checkpoint) -> None:
    """Check that tensors are stored as numbers that can be computed with.

    Raises:
        CheckpointError: one is not.
    """
    for name in names:
        kinds = {one.tensors[name].dtype for one in checkpoints}
        if not kinds <= set(COMPUTED):
            raise CheckpointError(
                f"{name} differs and is stored as {' and '.join(sorted(kinds))}, which cannot be "
                "computed with.",
                "Use all models in F32, F16 or BF16.",
            )


def require_same_shape(base: Checkpoint, donor: Checkpoint) -> None:
    """Check that a donor has the tensors of the base, in their shapes.

    Raises:
        CheckpointError: it has not.
    """
    missing = [name for name in base.tensors if name not in donor.tensors]
    extra = [name for name in donor.tensors if name not in base.tensors]
    if missing or extra:
        sides = [
            f"{who} {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
            for who, names in (("it lacks", missing), ("only it has", extra))
            if names
        ]
        raise CheckpointError(
            f"The donor {donor.folder} has other tensors than {base.folder}: {'; '.join(sides)}.",
            "Give a donor of the same family and size.",
        )
    for name, tensor in base.tensors.items():
        if tensor.shape != donor.tensors[name].shape:
            raise CheckpointError(
                f"{name} is {list(tensor.shape)} in {base.folder} and "
                f"{list(donor.tensors[name].shape)} in the donor {donor.folder}.",
                "Give a donor of the same family and size.",
            )
