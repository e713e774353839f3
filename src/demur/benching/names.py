"""Which rows a bench makes, by their names."""

from __future__ import annotations

from collections.abc import Collection

from demur.errors import ConfigError


def in_order(wanted: Collection[str], known: Collection[str]) -> tuple[str, ...]:
    """Return the names of rows in the order of the table.

    Raises:
        ConfigError: there is no row of a name.
    """
    for name in wanted:
        if name not in known:
            raise ConfigError(f"There is no row '{name}'.", f"Choose among {', '.join(known)}.")
    return tuple(name for name in known if name in wanted)
