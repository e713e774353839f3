"""The maps of one model, batch of pairs by batch, kept in the journal as they come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from demur.console import Narrator
from demur.graft.tracing.effects import agreement, by_pair, cells_of
from demur.graft.tracing.maps import attributed, exact
from demur.graft.tracing.pairs import DEVIATIONS, Pair, deviation, places_of
from demur.graft.tracing.places import Place
from demur.graft.tracing.runs import Runs
from demur.graft.tracing.targets import Target, targets_of
from demur.models.anatomy import Anatomy
from demur.models.chat_model import ChatModel
from demur.run.journal import Journal, content_key
from demur.tracing.config import TraceConfig
from demur.tracing.findings import MapFindings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNITS_CPU, UNITS_GPU = 4, 64  # corrupted rows of a batch of pairs, kept when it is done
ROWS_CPU, ROWS_GPU = 48, 512  # restored rows of a forward pass
WAYS = ("attributed", "exact")


class Maps:
    """Traces the pairs of one model.

    Attributes:
        places: where outputs are restored.
        targets: what is restored.
        scale: standard deviation of the noise; 0 where twins corrupt.
        clean, corrupted: (pairs,) margins, once `trace` is done.
        restored: of each way, (targets, layers, places, pairs) margins.
    """

    def __init__(
        self, chat: ChatModel, anatomy: Anatomy, pairs: Sequence[Pair], config: TraceConfig
    ) -> None:
        self.chat, self.anatomy, self.pairs, self.config = chat, anatomy, pairs, config
        self.places: tuple[Place, ...] = places_of(pairs, config.positions)
        self.targets: tuple[Target, ...] = targets_of(anatomy, config.kinds, config.window)
        noisy = config.corruption == "noise"
        self.scale = DEVIATIONS * deviation(chat.model, anatomy.embedding, pairs) if noisy else 0.0
        self.on_gpu = chat.placement.device == "cuda"

    def trace(self, journal: Journal, narrator: Narrator) -> None:
        """Trace all pairs; batches that the journal has are not traced again."""
        import numpy as np

        ways = WAYS[: 1 if self.config.fast else 2]
        shape = (len(self.targets), len(self.anatomy.layers), len(self.places), len(self.pairs))
        self.clean, self.corrupted = np.zeros((2, len(self.pairs)))
        self.restored = {way: np.full(shape, np.nan) for way in ways}
        for way in ways:
            batches = self.batches()
            title = "attribution patching" if way == "attributed" else "restored runs"
            cells = 1 if way == "attributed" else math.prod(shape[:-1])
            with narrator.progress(title, len(batches) * cells) as advance:
                for batch in batches:
                    found = self._kept(batch, way, journal, advance)
                    self.clean[batch], self.corrupted[batch] = found[0], found[1]
                    self.restored[way][..., batch] = found[2:].reshape(*shape[:-1], len(batch))

    def batches(self) -> list[list[int]]:
        """Return pairs that are traced together, of like length, whatever is already known."""
        most = max(1, (UNITS_GPU if self.on_gpu else UNITS_CPU) // self.pairs[0].draws)
        order = sorted(range(len(self.pairs)), key=lambda i: (len(self.pairs[i].clean), i))
        return [order[start : start + most] for start in range(0, len(order), most)]

    def _kept(
        self, batch: list[int], way: str, journal: Journal, advance: Any
    ) -> NDArray[np.float32]:
        """Return (2 + cells, pairs): clean and corrupted margins, then the restored ones."""
        import numpy as np

        key = content_key(
            "trace",
            way,
            self.chat.identity,
            [self.pairs[index].key for index in batch],
            [[place.name, [place.spans[index] for index in batch]] for place in self.places],
            [[target.kind, target.window] for target in self.targets],
            self.scale,
        )
        known = journal.arrays([key]).get(key)
        if known is not None:
            cells = len(self.targets) * len(self.anatomy.layers) * len(self.places)
            advance(1 if way == "attributed" else cells)
            return np.frombuffer(known, np.float32).reshape(-1, len(batch))
        pairs = [self.pairs[index] for index in batch]
        runs = Runs(self.chat.model, self.anatomy, pairs, self.targets, self.scale)
        if way == "attributed":
            restored = attributed(runs, self.places, batch)
            advance(1)
        else:
            rows = ROWS_GPU if self.on_gpu else ROWS_CPU
            restored = exact(runs, self.places, batch, rows=rows, advance=advance)
        found = np.concatenate(
            [
                runs.clean.numpy()[None],
                by_pair(runs.corrupted.numpy(), runs.units, len(batch))[None],
                by_pair(restored, runs.units, len(batch)).reshape(-1, len(batch)),
            ]
        ).astype(np.float32)
        journal.add_arrays([(key, found.tobytes())])
        return found

    def findings(self, seed: int) -> tuple[MapFindings, ...]:
        """Return a map of each kind, once `trace` is done."""
        names = [place.name for place in self.places]
        made = []
        for number, target in enumerate(self.targets):
            cells = {
                way: cells_of(
                    values[number : number + 1],
                    self.clean,
                    self.corrupted,
                    [target.kind],
                    names,
                    seed,
                )
                for way, values in self.restored.items()
            }
            effects = {way: [cell.effect.value for cell in each] for way, each in cells.items()}
            both = len(effects) == 2
            made.append(
                MapFindings(
                    target.kind,
                    target.window,
                    cells.get("exact", ()),
                    cells["attributed"],
                    agreement(effects["exact"], effects["attributed"]) if both else None,
                )
            )
        return tuple(made)
