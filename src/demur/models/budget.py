"""What asking endpoints may cost: a cap on requests, tokens or dollars that is never passed.

Before a request is sent, the most that it can cost is set aside (the reply's limit of tokens, and
a generous estimate of the request's own); when the reply is there, what it really cost takes that
place. So no reply carries the bill over the cap, however many requests are under way at once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from demur.errors import ConfigError, EndpointError

MILLION = 1_000_000


@dataclass(frozen=True)
class Caps:
    """The most that may be spent; None where there is no limit.

    Attributes:
        requests: how many requests may be answered.
        tokens: how many tokens, of requests and replies together.
        dollars: how much money; it needs the two prices.
        price_in, price_out: dollars a million tokens of requests and of replies.

    Raises:
        ConfigError: a value is not positive, or a cap in dollars has no prices.
    """

    requests: int | None = None
    tokens: int | None = None
    dollars: float | None = None
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name.startswith("price") else 1e-12
            if value is not None and not (math.isfinite(value) and value >= least):
                flag = "--" + (name if name.startswith("price") else f"max-{name}")
                raise ConfigError(
                    f"{flag.replace('_', '-')} is {value}, which is no amount.",
                    "Give a positive number.",
                )
        if self.dollars is not None and (self.price_in is None or self.price_out is None):
            raise ConfigError(
                "A cap in dollars cannot be kept without prices.",
                "Give --price-in and --price-out as well, in dollars a million tokens.",
            )


@dataclass(frozen=True)
class Spent:
    """What has been spent: answered requests, and the tokens that their replies report."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.requests + other.requests,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.dollars + other.dollars,
        )

    def __sub__(self, other: Spent) -> Spent:
        return Spent(
            self.requests - other.requests,
            self.tokens_in - other.tokens_in,
            self.tokens_out - other.tokens_out,
            self.dollars - other.dollars,
        )


def spent_from(values: Mapping[str, float] | None) -> Spent:
    """Return what `asdict` of a `Spent` kept, or nothing spent."""
    known = values or {}
    return Spent(
        int(known.get("requests", 0)),
        int(known.get("tokens_in", 0)),
        int(known.get("tokens_out", 0)),
        float(known.get("dollars", 0.0)),
    )


class Budget:
    """Counts what is spent, and refuses what would pass a cap; several threads may use it."""

    def __init__(self, caps: Caps | None = None, spent: Spent | None = None) -> None:
        """Begin with `spent`: what earlier tries of the same run have cost already."""
        self.caps = caps or Caps()
        self.spent = spent or Spent()
        self._aside = Spent()
        self._changed = threading.Condition()

    def cost(self, tokens_in: int, tokens_out: int) -> Spent:
        """Return one request of so many tokens, with its price where prices are known."""
        price_in, price_out = self.caps.price_in or 0.0, self.caps.price_out or 0.0
        dollars = (price_in * tokens_in + price_out * tokens_out) / MILLION
        return Spent(1, tokens_in, tokens_out, dollars)

    def set_aside(self, tokens_in: int, tokens_out: int) -> Spent:
        """Set the greatest likely cost of one request aside, and return it.

        Raises:
            EndpointError: it might pass a cap.
        """
        wanted = self.cost(tokens_in, tokens_out)
        with self._changed:
            while passed := self._passed(self.spent + self._aside + wanted):
                if not self._aside.requests:
                    cap, unit = passed
                    raise EndpointError(
                        f"The spending cap of {cap:g} {unit} is reached: {self.sentence()}.",
                        f"What came back is kept; raise --max-{unit} and give the same command "
                        "again: only what is missing is asked.",
                    )
                self._changed.wait()  # what is under way may cost less than was set aside for it
            self._aside += wanted
        return wanted

    def _passed(self, total: Spent) -> tuple[float, str] | None:
        """Return a cap that `total` is above, with its unit."""
        tokens = total.tokens_in + total.tokens_out
        for unit, cap, needed in (
            ("requests", self.caps.requests, total.requests),
            ("tokens", self.caps.tokens, tokens),
            ("dollars", self.caps.dollars, total.dollars),
        ):
            if cap is not None and needed > cap:
                return cap, unit
        return None

    def settle(self, aside: Spent, real: Spent | None) -> None:
        """Replace what was set aside by what it cost; None where nothing was answered."""
        with self._changed:
            self._aside -= aside
            if real is not None:
                self.spent += real
            self._changed.notify_all()

    def sentence(self) -> str:
        """Return what has been spent, in words."""
        spent = self.spent
        text = f"{spent.requests:,} requests, {spent.tokens_in + spent.tokens_out:,} tokens"
        if self.caps.price_in is not None or self.caps.price_out is not None:
            text += f", {spent.dollars:.4f} dollars"
        return text
