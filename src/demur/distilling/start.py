"""The patch that training begins from, if the user named one: read, and checked against the run."""

from __future__ import annotations

from demur.checkpoint import LowRank, read_patch
from demur.checkpoint.factors import read_factors
from demur.distilling.config import DistillConfig
from demur.errors import ConfigError
from demur.treating.apart import require_apart


def require_start(config: DistillConfig) -> None:
    """Check what can be checked before any work: that the patch is there, and whose it may be.

    Raises:
        TaughtTheTest: its lessons are among the prompts that this run reports from.
        CheckpointError: there is no such patch.
    """
    if config.from_patch is not None:
        require_apart(config, read_patch(config.begun_at).path, f"patch {config.from_patch}")


def read_start(config: DistillConfig, base_hash: str) -> dict[str, LowRank] | None:
    """Return the change that training begins from, by the tensors' names on disk.

    Args:
        base_hash: the `checkpoint_hash` of the student.

    Raises:
        ConfigError: the patch is another model's, or of a higher rank than what is trained.
        CheckpointError: it is damaged, or not of low rank.
    """
    if config.from_patch is None:
        return None
    patch = read_patch(config.begun_at)
    if patch.manifest.base_hash != base_hash:
        raise ConfigError(
            f"The patch {config.from_patch} was made for {patch.manifest.base_name}, whose weights "
            f"are not those of {config.model}.",
            "Give a patch of this very model; `demur graft` takes refusals over from a relative.",
        )
    changes = read_factors(patch)
    highest = max(len(change.down) for change in changes.values())
    if highest > config.rank:
        raise ConfigError(
            f"The patch {config.from_patch} has a rank of {highest}, and what is trained one of "
            f"{config.rank}.",
            f"Give --rank {highest}.",
        )
    return changes
