"""What judging a candidate costs: forward passes, tokens, seconds.

with metered(chat.model) as meter:
    ...
meter.cost.seconds
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cost:
    """What some work has cost.

    Attributes:
        passes: forward passes of the model.
        tokens: tokens that these were given, padding included, as far as layers were computed: a
            pass that begins halfway up counts half.
        seconds: by the clock.
    """

    passes: int = 0
    tokens: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.passes + other.passes, self.tokens + other.tokens, self.seconds + other.seconds
        )


class Meter:
    """Counts what a model is given, for as long as `metered` is open; `depth` is the share of its
    layers that the passes compute, to be set by who lets them begin later.
    """

    def __init__(self) -> None:
        self.depth = 1.0
        self._passes, self._tokens, self._begun = 0, 0.0, time.monotonic()

    @property
    def cost(self) -> Cost:
        """What has been counted so far."""
        return Cost(self._passes, self._tokens, time.monotonic() - self._begun)

    def count(self, _: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """See one pass: a forward pre-hook."""
        ids = args[0] if args else kwargs.get("input_ids")
        self._passes += 1
        self._tokens += 0 if ids is None else self.depth * ids.numel()


@contextmanager
def metered(model: Any) -> Iterator[Meter]:
    """Count the model's passes."""
    meter = Meter()
    hook = model.register_forward_pre_hook(meter.count, with_kwargs=True)
    try:
        yield meter
    finally:
        hook.remove()
