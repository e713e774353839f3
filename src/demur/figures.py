"""Numbers as readers see them: percentages with intervals, sizes, durations, hashes, clean text."""

from __future__ import annotations

import math
import re

from demur.stats import Difference, Mean, Rate

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
ARROW = "\N{RIGHTWARDS ARROW}"
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def percent(value: float) -> str:
    """Return `96.2 %`; rates that are nearly 0 or 1 but not quite are not rounded to them."""
    if math.isnan(value):
        return DASH
    if 0 < value < 0.0005:
        return f"<{SPACE}0.1{SPACE}%"
    if 0.9995 <= value < 1:
        return f">{SPACE}99.9{SPACE}%"
    return f"{100 * value:.1f}{SPACE}%"


def span(low: float, high: float) -> str:
    """Return the interval of a rate: `92.4-98.1 %`, with an en dash."""
    return f"{100 * low:.1f}{DASH}{100 * high:.1f}{SPACE}%"


def rate_text(value: Rate) -> str:
    """Return a rate with its interval in brackets."""
    return f"{percent(value.value)} ({span(value.low, value.high)})"


def counts(value: Rate) -> str:
    """Return `240 of 250`."""
    return f"{grouped(value.count)} of {grouped(value.n)}"


def grouped(value: int) -> str:
    """Return a count with its thousands grouped."""
    return f"{value:,}"


def signed(value: float, digits: int = 1) -> str:
    """Return a number with its sign, and no sign for zero."""
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return text
    return f"{MINUS if value < 0 else '+'}{text}"


def points(value: Difference) -> str:
    """Return a difference of rates in percentage points: `+93.2 (88.0 to 95.9)`."""
    low, high = signed(100 * value.low), signed(100 * value.high)
    return f"{signed(100 * value.value)} ({low} to {high})"


def p_text(value: float) -> str:
    """Return `p = 0.031`, or `p < 0.001`."""
    relation = f"<{SPACE}0.001" if value < 0.001 else f"={SPACE}{value:.3f}"
    return f"p{SPACE}{relation}"


def number(value: float) -> str:
    """Return a perplexity or a divergence with about three digits that matter."""
    if math.isnan(value):
        return DASH
    if value == 0:
        return "0"
    digits = 4 if abs(value) < 0.1 else 3 if abs(value) < 1 else 2
    return f"{value:.{digits}f}"


def mean_text(value: Mean, digits: int) -> str:
    """Return a mean with its interval in brackets."""
    return f"{value.value:.{digits}f} ({value.low:.{digits}f}{DASH}{value.high:.{digits}f})"


def duration(seconds: float) -> str:
    """Return `42 s`, `3 min 05 s` or `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f}{SPACE}s" if seconds < 10 else f"{whole}{SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{SPACE}min{SPACE}{whole % 60:02d}{SPACE}s"
    return f"{whole // 3600}{SPACE}h{SPACE}{whole % 3600 // 60:02d}{SPACE}min"


def size(count: int) -> str:
    """Return a number of bytes in binary units: `4.6 MiB`."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{count}{SPACE}bytes" if unit == "bytes" else f"{value:.1f}{SPACE}{unit}"
        value /= 1024
    return f"{value:.2f}{SPACE}GiB"


def parameters(count: int) -> str:
    """Return how many parameters a model has: `134.5 million`."""
    if count >= 10**9:
        return f"{count / 10**9:.2f}{SPACE}billion"
    if count >= 10**6:
        return f"{count / 10**6:.1f}{SPACE}million"
    return grouped(count)


def short(digest: str) -> str:
    """Return the first twelve digits of a hash."""
    return digest[:12]


def plain(text: str) -> str:
    """Return text without control characters and lone surrogates: fit to write as UTF-8."""
    kept = (letter for letter in text if letter in "\n\t" or ord(letter) >= 32)
    joined = "".join(letter for letter in kept if not 127 <= ord(letter) < 160)
    return joined.encode("utf-8", "replace").decode("utf-8")


def tidy(text: str) -> str:
    """Return text whose percent signs do not leave their numbers at the end of a line."""
    return re.sub(r"(?<=\d) %", f"{SPACE}%", text)
