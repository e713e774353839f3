"""Random noise of a treatment's size: what is left of its effect if only its size counts.

Each tensor that the treatment changes gets Gaussian noise of the same Frobenius norm, before
rounding: of the same rank where the change is of low rank (a random matrix of full rank spreads
the same norm over all directions and does less), or of full rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from demur.models.changes.scaling import Lazy, before_and_after

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.random import Generator

    from demur.checkpoint.changes import Dense, LowRank


def norm(change: LowRank) -> float:
    """Return the Frobenius norm of up @ down, without making the product."""
    import numpy as np

    up, down = change.up.astype(np.float64), change.down.astype(np.float64)
    return float(np.sqrt(max(0.0, float(((up.T @ up) * (down @ down.T)).sum()))))


def generator_for(seed: int, name: str) -> Generator:
    """Return the random numbers of one tensor, which depend on the seed and its name alone."""
    import numpy as np

    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def noise(
    folder: Path,
    changes: Mapping[str, LowRank | Dense],
    seed: int,
    *,
    full_rank: bool = False,
) -> Mapping[str, LowRank | Dense]:
    """Return noise in place of each change; made when it is asked for, one tensor at a time.

    Args:
        folder: the checkpoint that the changes are of.
        changes: the treatment's.
        seed: another seed, another noise; a tensor's noise depends on its name and nothing else.
        full_rank: give dense noise for low-rank changes, too.

    Raises:
        CheckpointError: when a dense change is asked for, whose tensor is not there or is stored
            in a type that cannot be read as numbers.
    """
    return _Noise(folder, changes, seed, full_rank)


class _Noise(Lazy):
    def __init__(
        self, folder: Path, changes: Mapping[str, LowRank | Dense], seed: int, full_rank: bool
    ) -> None:
        super().__init__(list(changes))
        self.folder, self.changes, self.seed, self.full_rank = folder, changes, seed, full_rank

    def make(self, name: str) -> LowRank | Dense:
        import numpy as np

        from demur.checkpoint.changes import Dense, LowRank
        from demur.checkpoint.index import open_checkpoint, read_tensor

        change = self.changes[name]
        generator = generator_for(self.seed, name)
        if isinstance(change, LowRank) and not self.full_rank:
            up = generator.standard_normal(change.up.shape)
            down = generator.standard_normal(change.down.shape)
            size = norm(LowRank(up, down))
            return LowRank((up * (norm(change) / size)).astype("float32"), down.astype("float32"))
        checkpoint = open_checkpoint(self.folder)
        if isinstance(change, LowRank):
            wanted = norm(change)
            base = read_tensor(checkpoint, name).astype(np.float64)
        else:
            base, changed = before_and_after(checkpoint, name, change)
            wanted = float(np.linalg.norm(changed - base))
        drawn = generator.standard_normal(base.shape)
        return Dense(base + drawn * (wanted / np.linalg.norm(drawn)))
