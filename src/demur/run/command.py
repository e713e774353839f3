"""The command that makes a run again, from its configuration.

words = ["demur", config.verb, config.model, *options(config)]
shlex.join(words)
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def options(config: DataclassInstance, *, repeated: bool = False) -> list[str]:
    """Return the words for every choice that is no default, each after its flag.

    Args:
        config: choices whose fields are named as their flags are.
        repeated: whether a flag takes one value, and is said again for the next.
    """
    words: list[str] = []
    for each in fields(config):
        value = getattr(config, each.name)
        if each.default is not MISSING and value != each.default:
            words += _option(each, value, repeated)
    return words


def _option(each: Field[Any], value: Any, repeated: bool) -> list[str]:
    flag = f"--{each.name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag]
    if not isinstance(value, tuple):
        return _said(flag, str(value))
    items = [str(item) for item in value]
    if not items and not repeated:
        items = ["1.0"]  # a strength of 1 is always tried, so that it stands for "no others"
    if repeated or not all(map(_plain, items)):
        return [word for item in items for word in _said(flag, item)]
    return [flag, *items]


def _said(flag: str, value: str) -> list[str]:
    return [flag, value] if _plain(value) else [f"{flag}={value}"]


def _plain(value: str) -> bool:
    """Return whether a value cannot be taken for a flag, nor for none."""
    return bool(value) and not value.startswith("-")
