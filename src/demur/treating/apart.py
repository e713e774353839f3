"""Keeping a run's prompts apart from the lessons of what it takes over: a donor, or a patch.

The built-in prompts, or a user's own, are divided by the seed. What demur distilled with another
seed was trained on prompts that this run would choose on and report from, and whatever is made of
it would look better than it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demur.checkpoint import read_patch
from demur.checkpoint.history import read_history
from demur.errors import ConfigError
from demur.treating.config import TreatmentConfig

SOURCES = ("pairs", "harmful", "benign", "ordinary")


class TaughtTheTest(ConfigError):
    """What is taken over was trained on prompts that this run reports from."""


def require_apart(config: TreatmentConfig, taken: Path, called: str) -> None:
    """Check that no lessons of what is taken over are among the prompts of validation and test.

    What is not said of it is not known: what demur did not make passes.

    Args:
        taken: a patch, or a model's folder.
        called: what it is to the user, for the error, such as `donor org/name`.

    Raises:
        TaughtTheTest: it was trained on prompts of the same sources, divided by another seed.
        CheckpointError: the patch, or what the folder says of itself, is damaged.
    """
    for recipe in _recipes(taken):
        same = all(recipe.get(name) == getattr(config, name) for name in SOURCES)
        seed = recipe.get("seed")
        if same and recipe.get("train_pairs") and seed != config.seed:
            raise TaughtTheTest(
                f"The {called} was trained with the seed {seed}, and prompts that are "
                f"divided by the seed {config.seed} have its lessons among those to report from.",
                f"Give --seed {seed}.",
            )


def _recipes(taken: Path) -> list[Mapping[str, Any]]:
    if taken.is_file():
        return [read_patch(taken).manifest.recipe]
    return [entry.get("recipe") or {} for entry in read_history(taken)]
