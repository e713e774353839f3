"""Where the decision stands in a map of states: on the request's tokens, then at the last token.

The state after the top layer at the last token is what the answer's first word is read from, so
that restoring it always restores most; what is of interest is from which layer on. Between the last
layer at which another place still restores `HALF` and the first from which the last token does, the
decision is carried over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demur.graft.tracing.effects import Cell

HALF = 0.5  # of what corruption takes from the margin


@dataclass(frozen=True)
class Decision:
    """Where a map of states says that refusal is decided.

    Attributes:
        arrived: the cell of the lowest layer from which on the last token restores half or more;
            None if not even the top layer's does.
        left: of the other places, the cell of the highest layer that still does; None if none does.
    """

    arrived: Cell | None
    left: Cell | None


def decision(states: Sequence[Cell], last: str) -> Decision:
    """Return where the decision stands.

    Args:
        states: the cells of a map of states.
        last: the name of the last token's place.
    """
    arrived: Cell | None = None
    for cell in sorted((each for each in states if each.place == last), key=lambda c: -c.layer):
        if not cell.share.value >= HALF:
            break
        arrived = cell
    others = [each for each in states if each.place != last and each.share.value >= HALF]
    left = max(others, key=lambda cell: (cell.layer, cell.share.value), default=None)
    return Decision(arrived, left)
