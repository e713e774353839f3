"""Rivals that look at where a matrix's fine-tuning points: into the alignment subspace, or not.

Of each matrix, V = donor - base is what alignment changed and D = recipient - base what
fine-tuning changed. Both methods here project D onto the columns of V and compare it with its
projection: where the cosine is below a threshold, fine-tuning has left the subspace, and the
matrix is treated. Matrices in which either has changed nothing are not looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from demur.errors import ConfigError
from demur.graft.rivals.relatives import Relatives, open_relatives
from demur.models.changes.scaling import Lazy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.checkpoint.changes import Dense

SMALLEST = 1e-3  # of the largest singular value: what is below is taken for rounding
THRESHOLD = 0.35

Projector = Literal["published", "orthogonal"]


def project(
    alignment: NDArray[Any], change: NDArray[Any], projector: Projector = "published"
) -> NDArray[Any]:
    """Return the part of a change that lies in the columns of an alignment.

    Args:
        alignment: V, (rows, columns) float64.
        change: D, likewise.
        projector: `published` is V V^T D / |V|, which Safe LoRA uses (Hsu et al. 2024, equation 2
            and below it) because it is quick; it is no projection, and its size goes with V's.
            `orthogonal` is V (V^T V)^-1 V^T D, the projection that it stands for, over those
            singular directions of V that are above `SMALLEST` of the largest.
    """
    import numpy as np

    rows, columns = alignment.shape
    if projector == "orthogonal":
        basis = column_space(alignment)
        result: NDArray[Any] = basis @ (basis.T @ change)
        return result
    norm = float(np.linalg.norm(alignment))
    if not norm:
        return np.zeros_like(change)
    if rows < columns:
        result = (alignment @ alignment.T) @ change
    else:
        result = alignment @ (alignment.T @ change)
    return result / norm


def column_space(matrix: NDArray[Any]) -> NDArray[Any]:
    """Return orthonormal columns, (rows, rank), that span those of a matrix; see `SMALLEST`."""
    import numpy as np

    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    return left[:, values > SMALLEST * values.max(initial=0.0)]


def cosine(left: NDArray[Any], right: NDArray[Any]) -> float:
    """Return the cosine between two matrices as vectors; 0 where one of them is 0."""
    import numpy as np

    sizes = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float((left * right).sum()) / sizes if sizes else 0.0


def alignment_cosines(
    recipient: Path,
    donor: Path,
    base: Path,
    *,
    projector: Projector = "published",
    tensors: Collection[str] | None = None,
) -> dict[str, float]:
    """Return the cosine between each matrix's fine-tuning and its projection, by name.

    Raises:
        CheckpointError: the three are not relatives (`open_relatives`), or there is no matrix in
            which both recipient and donor differ from the base.
    """
    relatives = open_relatives(recipient, donor, base)
    return _cosines(relatives, projector, tensors)


def _cosines(
    relatives: Relatives, projector: Projector, tensors: Collection[str] | None
) -> dict[str, float]:
    both = [name for name in relatives.aligned & relatives.taught if relatives.is_matrix(name)]
    found = {}
    for name in relatives.ordered(both, tensors):
        change = relatives.learnt(name)
        found[name] = cosine(change, project(relatives.given(name), change, projector))
    return found


def strays(cosines: Mapping[str, float], threshold: float, number: int | None) -> tuple[str, ...]:
    """Return the names of the matrices that are treated, in the order given.

    Args:
        cosines: from `alignment_cosines`.
        threshold: those below it are, unless `number` is given:
        number: so many of the lowest are, whatever their cosines.

    Raises:
        ConfigError: the number is negative.
    """
    if number is None:
        return tuple(name for name, value in cosines.items() if value < threshold)
    if number < 0:
        raise ConfigError(f"The number of matrices, {number}, is negative.", "Give 0 or more.")
    lowest = set(sorted(cosines, key=cosines.__getitem__)[:number])
    return tuple(name for name in cosines if name in lowest)


class Selective(Lazy):
    """Changes of those matrices that left the subspace; none, if none has.

    Attributes:
        cosines: of every matrix that was looked at.
        chosen: names of those that are treated, in the model's order.
    """

    def __init__(
        self,
        relatives: Relatives,
        names: Collection[str],
        cosines: Mapping[str, float],
        chosen: tuple[str, ...],
    ) -> None:
        super().__init__(names)
        self.relatives, self.cosines, self.chosen = relatives, cosines, chosen


def safe_lora(
    recipient: Path,
    donor: Path,
    base: Path,
    *,
    threshold: float = THRESHOLD,
    number: int | None = None,
    projector: Projector = "published",
    tensors: Collection[str] | None = None,
) -> SafeLoRA:
    """Return the donor with the recipient's fine-tuning on it, projected where it strays.

    Safe LoRA (Hsu et al., NeurIPS 2024, arXiv 2405.16833): W = donor + C D where cos(D, C D) is
    below the threshold, and donor + D elsewhere. In the paper fine-tuning began from the aligned
    model. Here it began from the base, from which projecting would only take something away: put
    onto the donor, it is the paper's sum.

    The paper adapts projections by LoRA and tunes the threshold for each model; 0.35 is that of
    SafeMERGE's code.

    Args:
        recipient, donor, base: checkpoint folders.
        threshold: a cosine; above 1 every matrix is projected, below -1 none.
        number: project so many of the lowest cosines instead (the paper's other way to choose).
        projector: see `project`.
        tensors: the names that may be changed; by default all.

    Raises:
        ConfigError: the number is negative.
        CheckpointError: as `alignment_cosines`.
    """
    relatives = open_relatives(recipient, donor, base)
    cosines = _cosines(relatives, projector, tensors)
    chosen = strays(cosines, threshold, number)
    names = relatives.ordered(relatives.aligned, tensors)
    return SafeLoRA(relatives, names, cosines, chosen, projector)


class SafeLoRA(Selective):
    """The changes of `safe_lora`."""

    def __init__(
        self,
        relatives: Relatives,
        names: Collection[str],
        cosines: Mapping[str, float],
        chosen: tuple[str, ...],
        projector: Projector,
    ) -> None:
        super().__init__(relatives, names, cosines, chosen)
        self.projector = projector

    def make(self, name: str) -> Dense:
        """Return the new values of the tensor `name`."""
        from demur.checkpoint.changes import Dense

        if name not in self.chosen:
            return self.relatives.combined(name, lambda own, other, common: own + other - common)
        given, learnt = self.relatives.given(name), self.relatives.learnt(name)
        kept = project(given, learnt, self.projector)
        began = self.relatives.combined(name, lambda own, other, common: other)
        return Dense(began.values + kept)


def safe_merge(
    recipient: Path,
    donor: Path,
    base: Path,
    *,
    threshold: float = THRESHOLD,
    number: int | None = None,
    share: float = 0.2,
    projector: Projector = "published",
    tensors: Collection[str] | None = None,
) -> SafeMerge:
    """Return a mixture of recipient and donor in those matrices whose fine-tuning strays.

    SafeMERGE (Djuhera et al. 2025, arXiv 2503.17239), with its linear merge: W = base + (1 - share)
    D + share V where cos(D, C D) is below the threshold; all else stays as the recipient has it.
    Threshold and share are the defaults of its code; there D and V are LoRA adapters on one
    instruct model.

    Args:
        recipient, donor, base: checkpoint folders.
        threshold: a cosine; above 1 every matrix is merged.
        number: merge so many of the lowest cosines instead.
        share: of the donor, from 0 to 1.
        projector: see `project`.
        tensors: the names that may be changed; by default all.

    Raises:
        ConfigError: the share is not from 0 to 1, or the number is negative.
        CheckpointError: as `alignment_cosines`.
    """
    if not 0 <= share <= 1:
        raise ConfigError(
            f"The donor's share {share:g} is not from 0 to 1.", "Give one such as 0.2."
        )
    relatives = open_relatives(recipient, donor, base)
    cosines = _cosines(relatives, projector, tensors)
    return SafeMerge(relatives, cosines, strays(cosines, threshold, number), share)


class SafeMerge(Selective):
    """The changes of `safe_merge`."""

    def __init__(
        self,
        relatives: Relatives,
        cosines: Mapping[str, float],
        chosen: tuple[str, ...],
        share: float,
    ) -> None:
        super().__init__(relatives, chosen, cosines, chosen)
        self.share = share

    def make(self, name: str) -> Dense:
        """Return the new values of the tensor `name`."""
        # base + (1 - share) (recipient - base) + share (donor - base), without the base.
        return self.relatives.combined(
            name, lambda own, other, common: own + self.share * (other - own)
        )
