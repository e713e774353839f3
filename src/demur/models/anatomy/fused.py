"""Where each projection lies in a matrix that holds several: places along its output.

Sizes are read off the shapes. The order is in the code of each class and nowhere else, so that
the classes whose order was looked up, and is proved by the tests, are named here; others are
refused, since a wrong guess would go unseen.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from demur.models.anatomy.types import Kind

# One after another, all queries first.
BLOCKS = ("GPT2Attention", "MptAttention", "Phi3Attention")
# For each key its queries, itself and its value: Falcon's three layouts are this one with as many
# keys as heads, one, or some in between.
GROUPS = ("BloomAttention", "FalconAttention", "GPTNeoXAttention")


class Places(NamedTuple):
    """Those i of `outer` places with start <= i % period < stop, as in `Part`."""

    period: int
    start: int
    stop: int


class Unclear(Exception):
    """The layout is not known; the text says why."""


def gate_and_up(outer: int, *, interleaved: bool = False) -> dict[Kind, Places]:
    """Return the halves of a fused MLP, the gate first, or its stripes."""
    half = outer // 2
    if interleaved:
        return {"gate": Places(2, 0, 1), "up": Places(2, 1, 2)}
    return {"gate": Places(outer, 0, half), "up": Places(outer, half, outer)}


def queries_keys_values(attention: Any, outer: int, inner: int, heads: int) -> dict[Kind, Places]:
    """Return where queries, keys and values lie.

    Args:
        attention: the module, for its class.
        outer: places of the fused matrix.
        inner: what the output projection takes in: all heads together.
        heads: how many heads ask.

    Raises:
        Unclear: the class is not known, or the sizes do not fit.
    """
    size = inner // heads
    keys = (outer // size - heads) // 2 if size else 0
    if keys < 1 or heads % keys or size * heads != inner or size * (heads + 2 * keys) != outer:
        raise Unclear(f"its {outer} places are not queries, keys and values of {heads} heads")
    classes = {one.__name__ for one in type(attention).__mro__}
    if classes & set(BLOCKS):
        period, asking, other = outer, heads * size, keys * size
    elif classes & set(GROUPS):
        period, asking, other = outer // keys, heads // keys * size, size
    else:
        raise Unclear(f"the order that {type(attention).__name__} gives it is not known")
    return {
        "q": Places(period, 0, asking),
        "k": Places(period, asking, asking + other),
        "v": Places(period, asking + other, asking + 2 * other),
    }
