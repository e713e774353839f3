"""Keeping a graft's prompts apart from its donor's lessons.

The built-in prompts, or a user's own, are divided by the seed. A donor that demur distilled with
another seed was trained on prompts that this run would choose on and report from, and its graft
would look better than it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demur.checkpoint import read_patch
from demur.checkpoint.history import read_history
from demur.errors import ConfigError
from demur.grafting.config import GraftConfig

SOURCES = ("pairs", "harmful", "benign", "ordinary")


class TaughtTheTest(ConfigError):
    """The donor was trained on prompts that this run reports from."""


def require_apart(config: GraftConfig, donor: Path) -> None:
    """Check that no donor's lessons are among the prompts of validation and test.

    What is not said of a donor is not known: one that demur did not make passes.

    Args:
        donor: its patch, or its folder.

    Raises:
        TaughtTheTest: it was trained on prompts of the same sources, divided by another seed.
        CheckpointError: the patch, or what the folder says of itself, is damaged.
    """
    for recipe in _recipes(donor):
        same = all(recipe.get(name) == getattr(config, name) for name in SOURCES)
        seed = recipe.get("seed")
        if same and recipe.get("train_pairs") and seed != config.seed:
            raise TaughtTheTest(
                f"The donor {config.donor} was trained with the seed {seed}, and prompts that are "
                f"divided by the seed {config.seed} have its lessons among those to report from.",
                f"Give --seed {seed}.",
            )


def _recipes(donor: Path) -> list[Mapping[str, Any]]:
    if donor.is_file():
        return [read_patch(donor).manifest.recipe]
    return [entry.get("recipe") or {} for entry in read_history(donor)]
