"""Search prompts read, not answered: the logits of each answer's first token, for many candidates.

The prompts are always the same. So what enters some of the layers is kept from the untouched
model's reading, and a candidate is read from the highest of these on that lies below all that it
changes; the beginning that all prompts share is read once a candidate. Prompts are read in batches
of like length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from demur.graft.cost import Meter
from demur.models.batch import Batch, plan
from demur.models.forward import accepted, can_share_prefix, common_prefix, last_positions
from demur.models.later import Streams, kept_streams, starting_at

if TYPE_CHECKING:
    from demur.models.chat_model import ChatModel

ROOM = 1 << 29  # bytes that streams may take
ROWS_CPU, ROWS_GPU = 16, 64
BATCH_TOKENS = 8192
CLOSE = 1e-3  # of the logits' spread: how far the same pass, begun later, may come out


class Readings:
    """Requests that are read again and again, by a model whose later layers change.

    Attributes:
        levels: layers from which on passes can begin, beside 0.
    """

    def __init__(
        self,
        chat: ChatModel,
        blocks: Sequence[str],
        requests: Sequence[Sequence[int]],
        *,
        room: int = ROOM,
    ) -> None:
        """Prepare requests; nothing is computed yet.

        Args:
            chat: its model may change between readings, below none of the layers that are named
                then.
            blocks: names of the decoder layers, in order.
            requests: token ids of each, whole.
            room: bytes that may be kept of the residual stream.
        """
        self.model, self.blocks, self.requests = chat.model, tuple(blocks), list(requests)
        shared = common_prefix(self.requests)
        longest = max(map(len, self.requests)) + 1
        self.shared = shared if can_share_prefix(self.model, longest) else 0
        self.rows = ROWS_GPU if chat.placement.device == "cuda" else ROWS_CPU
        tokens = sum(map(len, self.requests)) - self.shared * (len(self.requests) - 1)
        width = int(self.model.config.get_text_config().hidden_size)
        fitting = room // max(1, tokens * width * self.model.dtype.itemsize)
        self.levels = _spread(len(self.blocks), fitting)
        self._kept: dict[tuple[int, int], Any] = {}  # by request and layer; -1 is the shared part
        self._tuples = False
        self._begun: tuple[str, int, Any] | None = None

    def read_untouched(self, places: Sequence[int], meter: Meter) -> Any:
        """Read some requests with the untouched model, and keep what enters the levels.

        Returns:
            (requests, vocabulary) float32 logits of the first token of each answer.
        """
        return self._read(places, 0, meter, keeping=True)

    def read(self, places: Sequence[int], lowest: int, meter: Meter, name: str = "") -> Any:
        """Read some requests with a model that is changed in no layer below `lowest`.

        Args:
            name: of the weights as they are, if they have one: what all requests begin with is
                read once for readings of one name, one after the other.

        Returns:
            As `read_untouched`.
        """
        return self._read(places, self.level(places, lowest), meter, name=name)

    def level(self, places: Sequence[int], lowest: int) -> int:
        """Return the layer from which on these requests can be read."""
        needed = [*places, *([-1] if self.shared else [])]
        fitting = [
            level
            for level in self.levels
            if level <= lowest and all((place, level) in self._kept for place in needed)
        ]
        return max(fitting, default=0)

    def check(self, places: Sequence[int], meter: Meter) -> None:
        """See that passes of the untouched model come out alike from wherever they begin.

        Where they do not (layers that speak to each other beside the residual stream), all passes
        begin at the bottom from then on.
        """
        if not self.levels:
            return
        plain = self._read(places, 0, meter)
        later = self._read(places, self.level(places, len(self.blocks)), meter)
        spread = float(plain.max() - plain.min())
        if not float((plain - later).abs().max()) <= CLOSE * spread:
            self.levels, self._kept = (), {}

    def _read(
        self,
        places: Sequence[int],
        level: int,
        meter: Meter,
        keeping: bool = False,
        name: str = "",
    ) -> Any:
        import torch

        if not places:
            return torch.zeros(0, int(self.model.config.get_text_config().vocab_size))
        own = [len(self.requests[place]) - self.shared for place in places]
        results: list[Any] = [None] * len(places)
        meter.depth = 1 - level / len(self.blocks)
        with torch.inference_mode():
            if not name or self._begun is None or self._begun[:2] != (name, level):
                self._begun = (name, level, self._prefix(level, keeping))
            cache = self._begun[2]  # each batch takes a copy
            for group in plan(own, self.rows, BATCH_TOKENS, alike=True):
                members = [places[index] for index in group]
                logits = self._batch(members, level, cache, keeping)
                for index, row in zip(group, logits.float().cpu(), strict=True):
                    results[index] = row
        meter.depth = 1.0
        return torch.stack(results)

    def _prefix(self, level: int, keeping: bool) -> Any:
        """Return the cache of what all requests begin with, or None."""
        import torch
        from transformers import DynamicCache

        if not self.shared:
            return None
        cache = DynamicCache(config=self.model.config)
        prefix = torch.tensor([list(self.requests[0][: self.shared])], device=self.model.device)
        head = last_positions(self.model, self.shared)
        streams = self._streams([-1], self.shared, level)
        with (
            kept_streams(self.model, self.blocks, self.levels if keeping else ()) as found,
            starting_at(self.model, streams, level),
        ):
            self.model(prefix, past_key_values=cache, use_cache=True, **head)
        if keeping:
            self._keep([-1], [self.shared], found)
        return cache

    def _batch(self, members: Sequence[int], level: int, cache: Any, keeping: bool) -> Any:
        """Return (rows, vocabulary) logits after some requests."""
        rows = [self.requests[place] for place in members]
        batch = Batch(self.model, rows, self.shared, cache)
        width = batch.ids.shape[1]
        told = accepted(self.model, position_ids=batch.positions)
        if cache is not None:
            told |= {"past_key_values": batch.cache, "use_cache": True}
        else:
            told |= accepted(self.model, use_cache=False)
        streams = self._streams(members, width, level)
        with (
            kept_streams(self.model, self.blocks, self.levels if keeping else ()) as found,
            starting_at(self.model, streams, level),
        ):
            logits = self.model(
                batch.ids, attention_mask=batch.mask, **told, **last_positions(self.model, width)
            ).logits[:, -1]
        if keeping:
            self._keep(members, [len(row) - self.shared for row in rows], found)
        return logits

    def _keep(self, members: Sequence[int], lengths: Sequence[int], found: Streams) -> None:
        self._tuples = found.tuples
        for level, stream in found.entering.items():
            for row, (place, length) in enumerate(zip(members, lengths, strict=True)):
                self._kept[place, level] = stream[row, stream.shape[1] - length :].clone()

    def _streams(self, members: Sequence[int], width: int, level: int) -> Streams:
        """Return what enters a layer, left-padded as the batch is."""
        import torch

        streams = Streams(self.blocks, tuples=self._tuples)
        if level:
            kept = [self._kept[place, level] for place in members]
            padded = [torch.nn.functional.pad(row, (0, 0, width - len(row), 0)) for row in kept]
            streams.entering[level] = torch.stack(padded)
        return streams


def _spread(layers: int, count: int) -> tuple[int, ...]:
    """Return at most `count` layers above the first, evenly spread."""
    count = min(count, layers - 1)
    return tuple(sorted({round(place * layers / (count + 1)) for place in range(1, count + 1)}))
