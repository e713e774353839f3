"""A recipient, an aligned donor and their common base, compared and read tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import CheckpointError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.checkpoint.changes import Dense
    from demur.checkpoint.index import Checkpoint

BLOCK_ELEMENTS = 1 << 22

Rule = Callable[[Any, Any, Any], Any]
"""New values from those of the recipient, the donor and the base; float64, any shape."""


@dataclass(frozen=True)
class Relatives:
    """Three checkpoints with the same tensors, opened.

    Attributes:
        recipient: what is to refuse again.
        donor: aligned.
        base: what both were made from.
    """

    recipient: Checkpoint
    donor: Checkpoint
    base: Checkpoint

    @cached_property
    def taught(self) -> frozenset[str]:
        """Names of the tensors in which the recipient differs from the base."""
        return _differing(self._hashes["recipient"], self._hashes["base"])

    @cached_property
    def aligned(self) -> frozenset[str]:
        """Names of the tensors in which the donor differs from the base."""
        return _differing(self._hashes["donor"], self._hashes["base"])

    @cached_property
    def _hashes(self) -> dict[str, dict[str, str]]:
        from demur.checkpoint.index import tensor_hashes

        return {who: tensor_hashes(getattr(self, who)) for who in ("recipient", "donor", "base")}

    def ordered(self, names: Collection[str], among: Collection[str] | None) -> list[str]:
        """Return names in the order of the recipient's files.

        Args:
            among: the names that may be changed; by default all.

        Raises:
            CheckpointError: there is no such tensor, or nothing is left.
        """
        if among is not None:
            for name in among:
                self.recipient.tensor(name)
        wanted = set(names) if among is None else set(names) & set(among)
        found = [name for name in self.recipient.tensors if name in wanted]
        if not found:
            raise CheckpointError(
                f"Nothing of {self.recipient.folder} is to be changed by {self.donor.folder}.",
                "Give models that differ from their base in these tensors, or name others.",
            )
        return found

    def is_matrix(self, name: str) -> bool:
        """Return whether a tensor has two dimensions."""
        return len(self.recipient.tensor(name).shape) == 2

    def learnt(self, name: str) -> NDArray[Any]:
        """Return what fine-tuning added in the recipient, float64."""
        change: NDArray[Any] = _values(self.recipient, name) - _values(self.base, name)
        return change

    def given(self, name: str) -> NDArray[Any]:
        """Return what alignment added in the donor, float64."""
        change: NDArray[Any] = _values(self.donor, name) - _values(self.base, name)
        return change

    def combined(self, name: str, rule: Rule) -> Dense:
        """Return new values of a tensor, computed place by place, in blocks."""
        import numpy as np

        from demur.checkpoint.changes import Dense
        from demur.checkpoint.index import read_tensor

        flat = [
            read_tensor(one, name).reshape(-1) for one in (self.recipient, self.donor, self.base)
        ]
        result = np.empty(flat[0].size)
        for start in range(0, result.size, BLOCK_ELEMENTS):
            block = slice(start, start + BLOCK_ELEMENTS)
            result[block] = rule(*(values[block].astype("f8") for values in flat))
        return Dense(result.reshape(self.recipient.tensor(name).shape))


def open_relatives(recipient: Path, donor: Path, base: Path) -> Relatives:
    """Return three checkpoint folders as relatives.

    Raises:
        CheckpointError: a folder holds no checkpoint, they are not of one shape, the donor has the
            weights of the base, or what differs is not stored as floating numbers.
    """
    from demur.checkpoint.index import open_checkpoint
    from demur.models.changes.arithmetic import require_computed, require_same_shape

    mine, theirs, common = (open_checkpoint(folder) for folder in (recipient, donor, base))
    require_same_shape(mine, theirs)
    require_same_shape(mine, common)
    found = Relatives(mine, theirs, common)
    if not found.aligned:
        raise CheckpointError(
            f"{donor} has the same weights as {base}.", "Give a donor that was aligned."
        )
    require_computed(sorted(found.aligned | found.taught), mine, theirs, common)
    return found


def _values(checkpoint: Checkpoint, name: str) -> NDArray[Any]:
    from demur.checkpoint.index import read_tensor

    values: NDArray[Any] = read_tensor(checkpoint, name).astype("f8")
    return values


def _differing(left: dict[str, str], right: dict[str, str]) -> frozenset[str]:
    return frozenset(name for name in left if left[name] != right[name])
