"""Rivals that add a vector: what alignment gave the donor goes onto the recipient's weights.

The vector is donor less base. It is never subtracted, and its scale is at least 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from demur.errors import ConfigError
from demur.graft.rivals.relatives import Relatives, open_relatives
from demur.models.changes.noise import generator_for
from demur.models.changes.scaling import Lazy
from demur.models.edits import require_scale

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from demur.checkpoint.changes import Dense

Thinned = Literal["recipient", "donor"]


def chat_vector(
    recipient: Path,
    donor: Path,
    base: Path,
    scale: float = 1.0,
    tensors: Collection[str] | None = None,
) -> Mapping[str, Dense]:
    """Return recipient + scale * (donor - base).

    Task arithmetic (Ilharco et al. 2023, arXiv 2212.04089) with a chat model's vector (Huang et
    al., ACL 2024, arXiv 2310.04799).

    Args:
        recipient, donor, base: checkpoint folders.
        scale: at least 0.
        tensors: the names that may be changed; by default all.

    Raises:
        ConfigError: the scale is negative.
        CheckpointError: the three are not relatives (`open_relatives`), a named tensor is not
            there, or the donor has nothing to give.
    """
    return resta(recipient, donor, base, scale, drop=0.0, tensors=tensors)


def resta(
    recipient: Path,
    donor: Path,
    base: Path,
    scale: float = 1.0,
    *,
    drop: float = 0.3,
    thinned: Thinned = "recipient",
    seed: int = 0,
    tensors: Collection[str] | None = None,
) -> Mapping[str, Dense]:
    """Return RESTA's sum of the base, the thinned fine-tuning and the safety vector.

    Bhardwaj et al., ACL 2024 (arXiv 2402.11746): base + DARE(recipient - base) + scale * (donor -
    base). DARE (Yu et al., ICML 2024, arXiv 2311.03099) sets each number of a change to 0 with
    probability `drop` and divides the others by 1 - drop, which leaves its mean as it was. The
    paper's safety vector is that of an aligned model against one that harmful data had unaligned;
    here it is the donor's against the base. `drop` = 0.3 is a choice of ours.

    Args:
        recipient, donor, base: checkpoint folders.
        scale: of the safety vector, at least 0.
        drop: DARE's probability, from 0 to below 1; at 0 this is `chat_vector`.
        thinned: whose change DARE thins: what the recipient learnt, as in the paper, or what the
            donor gives.
        seed: of what is dropped; a tensor's depends on it and on the tensor's name alone.
        tensors: the names that may be changed; by default all.

    Raises:
        ConfigError: the scale is negative, or `drop` is no such probability.
        CheckpointError: as for `chat_vector`.
    """
    require_scale(scale)
    if not 0 <= drop < 1:
        raise ConfigError(
            f"The share to drop, {drop:g}, is not from 0 to below 1.", "Give one such as 0.3."
        )
    relatives = open_relatives(recipient, donor, base)
    names = set(relatives.aligned)
    if drop and thinned == "recipient":
        names |= relatives.taught
    return _Resta(relatives, relatives.ordered(names, tensors), scale, drop, thinned, seed)


class _Resta(Lazy):
    def __init__(
        self,
        relatives: Relatives,
        names: Collection[str],
        scale: float,
        drop: float,
        thinned: Thinned,
        seed: int,
    ) -> None:
        super().__init__(names)
        self.relatives, self.scale, self.drop = relatives, scale, drop
        self.thinned, self.seed = thinned, seed

    def make(self, name: str) -> Dense:
        generator = generator_for(self.seed, name)

        def rule(own: Any, other: Any, common: Any) -> Any:
            vector = other - common
            if self.drop and self.thinned == "donor":
                return own + self.scale * dare(vector, self.drop, generator)
            result = own + self.scale * vector
            if self.drop:
                learnt = own - common
                result += dare(learnt, self.drop, generator) - learnt
            return result

        return self.relatives.combined(name, rule)


def dare(change: NDArray[Any], drop: float, generator: Generator) -> NDArray[Any]:
    """Return a change with a random share of its numbers dropped and the others rescaled.

    Args:
        change: float64, any shape; it is only read.
        drop: the probability of each number to become 0, from 0 to below 1.
        generator: gives one number for each of the change's, in order.
    """
    kept = generator.random(change.shape) >= drop
    result: NDArray[Any] = change * (kept / (1 - drop))
    return result


def lox(
    recipient: Path,
    donor: Path,
    base: Path,
    *,
    rank: int = 6,
    extrapolation: float = 1.25,
    tensors: Collection[str] | None = None,
) -> Mapping[str, Dense]:
    """Return recipient + (donor - base) + extrapolation * (its leading directions).

    LoX (Perin et al., COLM 2025, arXiv 2506.15606) goes beyond an aligned model, along the `rank`
    leading singular directions of what alignment changed in each matrix, before somebody
    fine-tunes it. Here the model has been fine-tuned already, so that the extrapolated donor's
    vector is added to it; tensors that are no matrices get the plain vector.

    Args:
        recipient, donor, base: checkpoint folders.
        rank: directions of each matrix, at least 1.
        extrapolation: how far beyond the donor along them, at least 0.
        tensors: the names that may be changed; by default all.

    Raises:
        ConfigError: the rank or the extrapolation makes no sense.
        CheckpointError: as for `chat_vector`.
    """
    require_scale(extrapolation)
    if rank < 1:
        raise ConfigError(f"The rank {rank} is below 1.", "Give a rank of at least 1.")
    relatives = open_relatives(recipient, donor, base)
    names = relatives.ordered(relatives.aligned, tensors)
    return _Lox(relatives, names, rank, extrapolation)


class _Lox(Lazy):
    def __init__(
        self, relatives: Relatives, names: Collection[str], rank: int, extrapolation: float
    ) -> None:
        super().__init__(names)
        self.relatives, self.rank, self.extrapolation = relatives, rank, extrapolation

    def make(self, name: str) -> Dense:
        from demur.checkpoint.changes import Dense

        sum_of = self.relatives.combined(name, lambda own, other, common: own + other - common)
        if not self.relatives.is_matrix(name):
            return sum_of
        beyond = leading(self.relatives.given(name), self.rank)
        return Dense(sum_of.values + self.extrapolation * beyond)


def leading(matrix: NDArray[Any], rank: int) -> NDArray[Any]:
    """Return the best approximation of a matrix by one of rank `rank` (Eckart and Young 1936)."""
    import numpy as np

    rows, columns = matrix.shape
    if rows < columns:
        return leading(matrix.T, rank).T
    # The eigenvectors of the smaller Gram matrix are the singular vectors of that side.
    _, vectors = np.linalg.eigh(matrix.T @ matrix)
    right = vectors[:, -rank:]
    result: NDArray[Any] = (matrix @ right) @ right.T
    return result
