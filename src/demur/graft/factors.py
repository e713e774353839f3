"""A matrix as a few directions: its leading singular values, and its rank where that is low.

What fine-tuning by LoRA adds to a matrix has the adapter's rank, and nothing else but what rounding
left behind. `factorise` finds that out from a random sketch (Halko, Martinsson and Tropp 2011,
arXiv 0909.4061, algorithms 4.1 and 5.1) whose residual is checked, in the time of a few products,
where a full decomposition would take a thousand times that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 64  # directions kept of a matrix whose rank is not low
FIRST = 16  # columns of the first sketch
SPARE = 8  # columns beyond those wanted, and
POWERS = 2  # multiplications by the matrix and its transpose: together they make the sketch good
NOTHING = 1e-7  # of a matrix's norm: no more than its own numbers' rounding to float32
ROUNDING = 1.0  # of the unit roundoff: no more is left by rounding to nearest
UNIT_ROUNDOFF = {"F64": 2.0**-24, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}


@dataclass(frozen=True)
class Factors:
    """A matrix [rows, columns], or the best that a few directions make of it.

    Attributes:
        up: [rows, rank] float32, orthonormal columns.
        values: [rank] float32, singular values, the largest first.
        down: [rank, columns] float32, orthonormal rows.
        norm: Frobenius norm of the whole matrix.
        residual: Frobenius norm of what is left out.
        exact: whether that is no more than rounding: `rank` is then the matrix's own.
    """

    up: NDArray[Any]
    values: NDArray[Any]
    down: NDArray[Any]
    norm: float
    residual: float
    exact: bool

    @property
    def rank(self) -> int:
        """How many directions there are; 0 for a matrix of zeros."""
        return len(self.values)

    def energy(self, rank: int | None = None) -> float:
        """Return the share of the squared norm that the first `rank` directions hold, in [0, 1]."""
        if not self.norm:
            return 1.0
        return min(1.0, float((self.values[:rank].astype("f8") ** 2).sum()) / self.norm**2)


def rounding_norm(dtype: str, norm: float) -> float:
    """Return the Frobenius norm that rounding leaves at most in a matrix.

    Args:
        dtype: what it was rounded to, as safetensors names it.
        norm: its own Frobenius norm.
    """
    return ROUNDING * UNIT_ROUNDOFF[dtype] * norm


def factorise(
    matrix: NDArray[Any], tolerance: float = 0.0, most: int = MOST, seed: int = 0
) -> Factors:
    """Return the leading singular directions of a matrix, all of them where they are few.

    Args:
        matrix: [rows, columns].
        tolerance: Frobenius norm of what may be left out of a matrix that is called low-rank.
        most: at most so many directions; of a matrix with more, the first are kept.
        seed: of the sketch.
    """
    import numpy as np

    matrix = np.asarray(matrix, "f8")
    norm = float(np.linalg.norm(matrix))
    rows, columns = matrix.shape
    if norm <= tolerance:
        empty = np.zeros((rows, 0), "f4"), np.zeros(0, "f4"), np.zeros((0, columns), "f4")
        return Factors(*empty, norm, norm, True)
    smaller, widest = min(rows, columns), min(rows, columns, most + SPARE)
    generator = np.random.default_rng(seed)
    width = min(FIRST, widest)
    while True:
        whole = width == smaller
        draws = np.eye(columns) if whole else generator.standard_normal((columns, width))
        basis, coefficients = _sketch(matrix, draws, 0 if width < widest or whole else POWERS)
        if width == widest or _outside(norm, coefficients) <= tolerance:
            break
        width = min(2 * width, widest)
    # The coefficients are few and long: their decomposition through that of their transpose's R.
    orthonormal, triangle = np.linalg.qr(coefficients.T)
    left, values, right = np.linalg.svd(triangle.T)
    outside = 0.0 if width == smaller else _outside(norm, coefficients)
    # What is left out if the first 0, 1, 2, ... directions are kept.
    rest = np.append(np.cumsum(values[::-1] ** 2)[::-1], 0.0)
    left_out = np.sqrt(rest + outside**2)
    enough = np.flatnonzero(left_out <= max(tolerance, NOTHING * norm))
    exact = len(enough) > 0 and int(enough[0]) <= most
    rank = int(enough[0]) if exact else min(most, len(values))
    return Factors(
        np.ascontiguousarray((basis @ left)[:, :rank], "f4"),
        np.ascontiguousarray(values[:rank], "f4"),
        np.ascontiguousarray((right @ orthonormal.T)[:rank], "f4"),
        norm,
        float(left_out[rank]),
        exact,
    )


def _sketch(matrix: NDArray[Any], draws: NDArray[Any], powers: int) -> tuple[Any, Any]:
    """Return an orthonormal basis [rows, width] of the range, and the matrix in it."""
    import numpy as np

    basis, _ = np.linalg.qr(matrix @ draws)
    for _ in range(powers):
        other, _ = np.linalg.qr(matrix.T @ basis)
        basis, _ = np.linalg.qr(matrix @ other)
    return basis, basis.T @ matrix


def _outside(norm: float, coefficients: NDArray[Any]) -> float:
    """Return the Frobenius norm of what a basis leaves out, from that of what it holds."""
    return math.sqrt(max(0.0, norm**2 - float((coefficients**2).sum())))
