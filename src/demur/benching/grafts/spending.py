"""What making a row takes: forward passes and seconds, kept while they are spent.

    with spending(chat.model, journal, "spent/open"):
        ...
    spent(journal, "spent/open").passes

A run that was killed and goes on has spent what it spent before, up to a few passes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from demur.run.journal import Journal

EVERY = 20  # passes between two notes


@dataclass(frozen=True)
class Spent:
    """Forward passes of the model, and seconds by the clock."""

    passes: int = 0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.passes + other.passes, self.seconds + other.seconds)


def spent(journal: Journal, key: str) -> Spent:
    """Return what was spent under a key so far."""
    return Spent(*(journal.fact(key) or (0, 0.0)))


@contextmanager
def spending(model: Any, journal: Journal, key: str) -> Iterator[None]:
    """Count what is spent inside the block, on top of what is known under `key`."""
    before, passes, begun = spent(journal, key), 0, time.monotonic()

    def keep() -> None:
        now = Spent(before.passes + passes, before.seconds + time.monotonic() - begun)
        journal.keep_fact(key, [now.passes, now.seconds])

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1
        if passes % EVERY == 0:
            keep()

    hook = model.register_forward_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()
        keep()
