"""Changes at another scale, and changes that are made when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from demur.errors import CheckpointError
from demur.models.edits import require_scale

if TYPE_CHECKING:
    from pathlib import Path

    from demur.checkpoint.changes import Dense, LowRank
    from demur.checkpoint.index import Checkpoint


class Lazy(Mapping[str, Any]):
    """A mapping whose values are made when they are asked for, one tensor at a time."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = dict.fromkeys(names)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(name)
        return self.make(name)

    @abstractmethod
    def make(self, name: str) -> Any:
        """Return the change of the tensor `name`."""


def scaled(
    folder: Path, changes: Mapping[str, LowRank | Dense], scale: float
) -> Mapping[str, LowRank | Dense]:
    """Return changes at another scale, W + scale * (changed W - W), each as it is asked for.

    Args:
        folder: the checkpoint that the changes are of.

    Raises:
        ConfigError: the scale is negative.
        CheckpointError: when it is asked for, a change does not fit its tensor in `folder`.
    """
    from demur.checkpoint.index import open_checkpoint

    require_scale(scale)
    return _Scaled(open_checkpoint(folder), changes, scale)


class _Scaled(Lazy):
    def __init__(
        self, base: Checkpoint, changes: Mapping[str, LowRank | Dense], scale: float
    ) -> None:
        super().__init__(list(changes))
        self.base, self.changes, self.scale = base, changes, scale

    def make(self, name: str) -> LowRank | Dense:
        from demur.checkpoint.changes import Dense, LowRank

        change = self.changes[name]
        if self.scale == 1:
            return change
        if isinstance(change, LowRank):
            return LowRank(change.up * self.scale, change.down)
        before, after = before_and_after(self.base, name, change)
        return Dense(before + self.scale * (after - before))


def before_and_after(base: Checkpoint, name: str, change: Dense) -> tuple[Any, Any]:
    """Return a tensor's values and a dense change's, both float64, in the tensor's shape.

    Raises:
        CheckpointError: the change does not fit the tensor.
    """
    import numpy as np

    from demur.checkpoint.arithmetic import BIT_TYPES, to_float64
    from demur.checkpoint.index import read_tensor

    tensor = base.tensor(name)
    values = np.ascontiguousarray(change.values)
    if values.dtype == BIT_TYPES.get(tensor.dtype):  # the tensor's own bits
        values = to_float64(values, tensor.dtype)
    if values.dtype.kind != "f" or values.shape != tensor.shape:
        raise CheckpointError(
            f"The new values, {values.dtype} {list(values.shape)}, do not fit {name}, which is "
            f"{tensor.dtype} {list(tensor.shape)}.",
            "Check that the changes were made for this model.",
        )
    return read_tensor(base, name).astype(np.float64), values.astype(np.float64)
