"""What configurations share: the groups of `--help`, and how a senseless choice is told."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cyclopts import Group, Parameter

from demur.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MODEL, PATH, PROMPTS, TRAINING, BUDGET, MEASURING = (
    Parameter(group=Group.create_ordered(title))
    for title in ("Model", "Path", "Prompts", "Training", "Budget", "Measuring")
)


def require(config: object, name: str, wanted: str, met: bool) -> None:
    """Check a choice of a configuration, whose fields are named as their flags are.

    Raises:
        ConfigError: it does not meet what is wanted of it.
    """
    if not met:
        flag, value = f"--{name.replace('_', '-')}", getattr(config, name)
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        raise ConfigError(
            f"{flag} is {shown}, but must be {wanted}.",
            f"Give another value, or leave {flag} out.",
        )


def as_json(config: DataclassInstance) -> dict[str, Any]:
    """Return every choice of a configuration as JSON can hold it."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(config).items()
    }
