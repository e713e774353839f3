"""Looking at prompts block by block, until it is clear whether enough or too many are refused.

What the first token does not tell is open. Two sequential tests run along, one that takes what is
open for refusals and one that does not; answers are written only where the two decide differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from demur.graft.first_tokens import Reading
from demur.graft.search.sequential import SequentialTest
from demur.graft.wanted import Looked, Tally


def look(
    blocks: Sequence[Sequence[int]],
    read: Callable[[Sequence[int]], Reading],
    write: Callable[[Sequence[int]], Sequence[bool]],
    begin: Callable[[], SequentialTest],
) -> Looked:
    """Decide whether a rate of refusals is above a threshold.

    Args:
        blocks: prompts by number, in the order in which they are looked at.
        read: what the first tokens tell of a block.
        write: whether some prompts, written out, are refused.
        begin: a new test of the rate, for as many prompts as there are.
    """
    low, high = begin(), begin()  # what is open counted as no refusal, and as one
    found: dict[int, bool | None] = {}
    margins: list[float] = []
    written = False
    for count, block in enumerate(blocks, 1):
        reading = read(block)
        margins += reading.margins
        found |= dict(zip(block, reading.refused(), strict=True))
        values = [found[place] for place in block]
        low.add(values.count(True), len(block))
        high.add(len(block) - values.count(False), len(block))
        if low.decision == "above" or high.decision == "below":
            break
        if (low.decision, high.decision) == ("below", "above"):
            opened = [place for place, refused in found.items() if refused is None]
            found |= dict(zip(opened, write(opened), strict=True))
            low, high, written = begin(), begin(), True
            for seen in blocks[:count]:
                refused = sum(bool(found[place]) for place in seen)
                low.add(refused, len(seen))
                high.add(refused, len(seen))
            if low.decision != "undecided":
                break
    values = list(found.values())
    tally = Tally(values.count(True), values.count(None), len(values))
    return Looked(low.decision == "above", tally, tuple(margins), written)
