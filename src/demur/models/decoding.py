"""Greedy decoding of some requests: rows come and go, and those that are there step together.

Requests are read (their keys and values computed) in small batches of like length, so that next to
nothing is padded, and join those that are being written, so that a step, which costs a small
machine nearly the same for few rows as for many, is shared by many. A row leaves when it has ended
or its verdict is settled, and others take its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demur.models.batch import Batch, plan
from demur.models.chat_model import context_length
from demur.models.forward import accepted, last_positions, rows_can_join, rows_can_leave
from demur.models.places import Places, closed_up
from demur.models.thin import thin_products

if TYPE_CHECKING:
    import torch

SETTLED_EVERY = 2  # tokens between two questions whether a row is settled
Settled = Callable[[int, Sequence[int]], bool]


@dataclass(frozen=True)
class Written:
    """One row of a decoded batch.

    Attributes:
        tokens: new token ids, the end mark included.
        finished: whether an end mark came.
        log_probabilities: (tokens, k) the k largest log-probabilities at each step, or None.
        candidates: (tokens, k) their token ids, or None.
    """

    tokens: tuple[int, ...]
    finished: bool
    log_probabilities: torch.Tensor | None = None
    candidates: torch.Tensor | None = None


class Running:
    """Rows that are being written: keys and values of one width, and where each row stands."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.rows: list[int] = []
        self.cache: Any = None
        self.places: list[Places] = []  # of each layer; none where rows cannot join

    def read(self, members: list[int], batch: Batch) -> Any:
        """Read a batch, which then runs alone or joins; return the logits after it."""
        logits = self._forward(batch.ids, batch.mask, batch.positions, batch.cache)
        last = batch.positions[:, -1:]
        if not self.rows:
            self.rows, self.cache, self.mask, self.last = members, batch.cache, batch.mask, last
            if rows_can_join(self.cache):
                self.places = [Places(layer) for layer in _filled(self.cache)]
        else:
            self._join(batch.cache, batch.mask)
            self.rows = [*self.rows, *members]
            self.last = _cat([self.last, last])
        return logits

    def step(self, tokens: Any) -> Any:
        """Add one token to each row; return the logits after it.

        Args:
            tokens: (rows, 1) token ids.
        """
        self.mask = _cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        self.last = self.last + 1
        return self._forward(tokens, self.mask, self.last, self.cache)

    def keep(self, places: list[int]) -> None:
        """Let all rows go but those at `places`."""
        import torch

        if len(places) == len(self.rows):
            return
        if not places:
            self.rows, self.cache, self.places = [], None, []
            return
        order = closed_up(places)
        self.rows = [self.rows[place] for place in order]
        stay = torch.tensor(order, device=self.mask.device)
        self.mask, self.last = self.mask[stay], self.last[stay]
        if not self.places:
            self.cache.batch_select_indices(stay)
            return
        unused = int(self.mask.any(0).int().argmax())
        self.mask = self.mask[:, unused:].contiguous()
        for layer in self.places:
            layer.keep(order)
            layer.drop(unused)

    def _forward(self, ids: Any, mask: Any, positions: Any, cache: Any) -> Any:
        return self.model(
            ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **accepted(self.model, position_ids=positions),
            **last_positions(self.model, ids.shape[1]),
        ).logits[:, -1]

    def _join(self, cache: Any, mask: Any) -> None:
        width = max(self.mask.shape[1], mask.shape[1])
        self.mask = _cat([_widened(self.mask, width), _widened(mask, width)])
        for mine, new in zip(self.places, _filled(cache), strict=True):
            mine.join(new.keys, new.values)


def _filled(cache: Any) -> list[Any]:
    """Return the layers that keep anything: those that share another's keys do not."""
    return [layer for layer in cache.layers if layer.is_initialized]


def _cat(parts: list[Any], dim: int = 0) -> Any:
    import torch

    return torch.cat(parts, dim)


def _widened(mask: Any, width: int) -> Any:
    """Return a mask with zeros before it, `width` columns wide."""
    return _cat([mask.new_zeros(len(mask), width - mask.shape[1]), mask], 1)


class _Rows:
    """What has been written of each request, and whether it is over."""

    def __init__(
        self,
        requests: Sequence[Sequence[int]],
        tokens: int,
        stops: frozenset[int],
        context: int,
        settled: Settled | None,
    ) -> None:
        self.requests, self.tokens, self.stops = requests, tokens, stops
        self.context, self.settled = context, settled
        self.written: list[list[int]] = [[] for _ in requests]
        self.kept: list[list[tuple[Any, Any]]] = [[] for _ in requests]
        self.finished = [False] * len(requests)
        self.over = [False] * len(requests)

    def add(self, row: int, token: int, candidates: tuple[Any, Any] | None) -> None:
        if self.over[row]:  # it could not leave its batch
            return
        new = self.written[row]
        new.append(token)
        if candidates is not None:
            self.kept[row].append(candidates)
        self.finished[row] = token in self.stops
        full = len(self.requests[row]) + len(new) > self.context
        self.over[row] = self.finished[row] or full or len(new) == self.tokens
        if self.settled and not self.over[row] and len(new) % SETTLED_EVERY == 0:
            self.over[row] = self.settled(row, new)

    def results(self) -> list[Written]:
        return [_row(*parts) for parts in zip(self.written, self.finished, self.kept, strict=True)]


def _row(tokens: list[int], finished: bool, kept: list[tuple[Any, Any]]) -> Written:
    import torch

    if not kept:
        return Written(tuple(tokens), finished)
    values, indices = (torch.stack(part) for part in zip(*kept, strict=True))
    return Written(tuple(tokens), finished, values, indices)


def decode(
    model: Any,
    requests: Sequence[Sequence[int]],
    tokens: int,
    stops: frozenset[int],
    *,
    cache: Any = None,
    shared: int = 0,
    rows: int = 64,
    together: int = 16,
    budget: int = 16384,
    candidates: int = 0,
    settled: Settled | None = None,
) -> list[Written]:
    """Decode some requests greedily.

    Args:
        requests: token ids of each, whole.
        tokens: at most so many new ones, at least 1.
        cache, shared: the cache of the first `shared` tokens, from `shared_cache`.
        rows: at most so many are written at once.
        together: at most so many are read at once, where rows can join others.
        budget: tokens of keys and values that those being written may come to.
        candidates: keep this many of the likeliest tokens at each step, with log-probabilities.
        settled: told a row and its new tokens every `SETTLED_EVERY` tokens, says whether what is
            to be known of it is known; the row then ends.

    Returns:
        One `Written` a row, in order; a row that fills the model's context ends there.
    """
    import torch

    shared = shared if cache is not None else 0
    state = _Rows(requests, tokens, stops, context_length(model), settled)
    running = Running(model)
    empty = Batch(model, [requests[0]], shared, cache).cache
    joining, leaving = rows_can_join(empty), rows_can_leave(empty)
    own = [len(request) - shared for request in requests]
    size = min(rows, together) if joining else rows
    waiting = plan(own, size, budget, alike=joining)[::-1]

    def fits(group: list[int]) -> bool:
        if not running.rows:
            return True
        longest = max(len(requests[row]) for row in (*running.rows, *group)) + tokens
        count = len(running.rows) + len(group)
        return joining and count <= rows and count * longest <= budget

    with torch.inference_mode(), thin_products(model):
        while waiting or running.rows:
            logits, known = None, len(running.rows)
            if known:
                last = [[state.written[row][-1]] for row in running.rows]
                logits = running.step(torch.tensor(last, device=model.device))
            while waiting and fits(waiting[-1]):
                group = waiting.pop()
                batch = Batch(model, [requests[row] for row in group], shared, cache)
                found = running.read(group, batch)
                logits = found if logits is None else torch.cat([logits, found])
            _take(state, running.rows, logits, candidates)
            going = [place for place, row in enumerate(running.rows) if not state.over[row]]
            if leaving or not going:
                running.keep(going)
    return state.results()


def _take(state: _Rows, rows: list[int], logits: Any, candidates: int) -> None:
    """Add the likeliest token to each row."""
    values = indices = None
    if candidates:
        values, indices = logits.float().log_softmax(-1).topk(candidates)
        values, indices = values.cpu(), indices.cpu()
    for place, (row, token) in enumerate(zip(rows, logits.argmax(-1).tolist(), strict=True)):
        best = None if values is None or indices is None else (values[place], indices[place])
        state.add(row, token, best)
