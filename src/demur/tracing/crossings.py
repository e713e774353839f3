"""Modules put over between two models, block by block, kept in the journal as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from demur.console import Narrator
from demur.graft.margin import RefusalMargin
from demur.graft.openings import Openings
from demur.graft.tracing.crossing import (
    Block,
    Crossing,
    Donated,
    attributed,
    blocks_of,
    crossing_of,
)
from demur.graft.tracing.effects import Agreement, agreement, mean_of
from demur.models.anatomy import Anatomy
from demur.models.chat_model import ChatModel
from demur.run.journal import Journal, content_key
from demur.tracing.config import TraceConfig
from demur.tracing.findings import CrossFindings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

SIDES = ("harmful", "benign")


@dataclass(frozen=True)
class Asked:
    """What both models are asked.

    Attributes:
        harmful, benign: requests and their twins, in the same order.
        harmful_openings, benign_openings: of each.
    """

    harmful: tuple[str, ...]
    benign: tuple[str, ...]
    harmful_openings: tuple[Openings, ...]
    benign_openings: tuple[Openings, ...]


class Crossings:
    """Puts modules of one model into another, one block at a time."""

    def __init__(
        self,
        into: ChatModel,
        out_of: ChatModel,
        anatomy: Anatomy,
        asked: Asked,
        config: TraceConfig,
    ) -> None:
        self.into, self.out_of, self.anatomy, self.config = into, out_of, anatomy, config
        self.requests = {
            side: [into.encode(text) for text in getattr(asked, side)] for side in SIDES
        }
        self.openings = {
            "harmful": list(asked.harmful_openings),
            "benign": list(asked.benign_openings),
        }
        self.blocks = blocks_of(anatomy, config.modules, config.window)
        self.key = content_key(
            "crossing",
            into.identity,
            out_of.identity,
            self.requests,
            [
                [[opening.refusing, opening.complying] for opening in self.openings[side]]
                for side in SIDES
            ],
        )

    def margin(self, chat: ChatModel, side: str, rows: int = 0) -> RefusalMargin:
        """Return the margin of one side's requests, of either model."""
        return RefusalMargin(chat.model, self.requests[side], self.openings[side], rows=rows)

    def trace(self, direction: str, journal: Journal, narrator: Narrator) -> CrossFindings:
        """Return all effects; those that the journal has are not measured again."""
        seed = self.config.seed
        before = {side: self._margins(self.into, "before", side, journal) for side in SIDES}
        whole = {side: self._margins(self.out_of, "whole", side, journal) for side in SIDES}
        donated = Donated(self.into.model, self.out_of.model, self.anatomy)
        slopes = self._slopes(donated, journal, narrator)
        singles = [Block(m.kind, m.layer, m.layer, (m,)) for m in self.anatomy.modules]
        first = tuple(
            crossing_of(block, slopes["harmful"][:, number], slopes["benign"][:, number], seed)
            for number, block in enumerate(singles)
        )
        blocks: tuple[Crossing, ...] = ()
        agreed: Agreement | None = None
        if not self.config.fast:
            exact = self._exact(donated, before, journal, narrator)
            blocks = tuple(
                crossing_of(block, exact["harmful"][number], exact["benign"][number], seed)
                for number, block in enumerate(self.blocks)
            )
            sign = -1 if direction == "back" else 1  # what is taken away is what counts there
            agreed = agreement(
                [sign * each.selectivity.value for each in blocks],
                [sign * each for each in self._summed(slopes, self.blocks)],
            )
        return CrossFindings(
            direction,
            mean_of(before["harmful"], seed),
            mean_of(before["benign"], seed),
            mean_of(whole["harmful"], seed),
            mean_of(whole["benign"], seed),
            blocks,
            first,
            agreed,
        )

    def _summed(self, slopes: dict[str, Values], blocks: Sequence[Block]) -> list[float]:
        """Return the first-order selectivity of blocks, the sum of that of their modules."""
        places = {module.name: number for number, module in enumerate(self.anatomy.modules)}
        away = slopes["harmful"].mean(0) - slopes["benign"].mean(0)
        return [float(sum(away[places[m.name]] for m in block.modules)) for block in blocks]

    def _margins(self, chat: ChatModel, what: str, side: str, journal: Journal) -> Values:
        margin = self.margin(chat, side)
        return _kept(journal, content_key(self.key, what, side), lambda: margin().numpy())

    def _slopes(self, donated: Donated, journal: Journal, narrator: Narrator) -> dict[str, Values]:
        """Return (requests, modules) effects to first order, a request at a time."""
        found: dict[str, Values] = {}
        modules = self.anatomy.modules
        with narrator.progress("first-order effects of all modules", len(SIDES)) as advance:
            for side in SIDES:
                key = content_key(self.key, "slopes", side, [m.name for m in modules])
                margin = self.margin(self.into, side, rows=1)  # so that requests are told apart
                flat = _kept(journal, key, partial(attributed, donated, modules, margin))
                found[side] = flat.reshape(-1, len(modules))
                advance(1)
        return found

    def _exact(
        self,
        donated: Donated,
        before: dict[str, Values],
        journal: Journal,
        narrator: Narrator,
    ) -> dict[str, list[Values]]:
        """Return of each block the (requests,) changes of the margins."""
        keys = [content_key(self.key, "block", [m.name for m in b.modules]) for b in self.blocks]
        known = journal.arrays(keys)
        margins = {side: self.margin(self.into, side) for side in SIDES}
        if len(known) < len(set(keys)):
            for each in margins.values():
                each.remember([layer.block for layer in self.anatomy.layers])
        found: dict[str, list[Values]] = {side: [] for side in SIDES}
        with narrator.progress("modules put over", len(self.blocks)) as advance:
            for key, block in zip(keys, self.blocks, strict=True):
                after = _kept(journal, key, partial(_both, donated, block, margins))
                for side, values in zip(SIDES, after.reshape(len(SIDES), -1), strict=True):
                    found[side].append(values - before[side])
                advance(1)
        return found


def _both(donated: Donated, block: Block, margins: dict[str, RefusalMargin]) -> Values:
    import numpy as np

    with donated(block):
        return np.stack([margins[side].from_layer(block.first).numpy() for side in SIDES])


def _kept(journal: Journal, key: str, make: Callable[[], Values]) -> Values:
    """Return flat float64 values from the journal, made and kept there first if need be."""
    import numpy as np

    known = journal.arrays([key]).get(key)
    if known is None:
        known = np.asarray(make(), np.float64).tobytes()
        journal.add_arrays([(key, known)])
    return np.frombuffer(known, np.float64)
