"""Greedy decoding in batches: the one place in demur where a model writes.

What makes it quick on small machines: requests are batched by length, so that little is padded;
the tokens that all of them begin with (the template's head and system prompt) are computed once
and their keys and values shared; the head is applied to last positions only; rows that have
ended leave the batch. What makes it safe: the plan of batches depends on nothing but the list of
requests, so that a run that was killed and started again decodes the same batches, and each batch
reaches the journal in one transaction.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demur.models.chat_model import ChatModel
from demur.run.journal import Answer, Journal, content_key

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Decoding:
    """How answers are written; part of the journal's keys.

    Attributes:
        tokens: at most so many new tokens.
        opening: words put into the model's mouth, from which the answer continues.
    """

    tokens: int = 32
    opening: str = ""


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


def plan(lengths: Sequence[int], rows: int, budget: int = 16384) -> list[list[int]]:
    """Return batches of indices, sorted by length: at most `rows`, at most `budget` tokens."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        fits = batches and len(batches[-1]) < rows
        if fits and (len(batches[-1]) + 1) * lengths[index] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens all sequences share, leaving each at least one of its own."""
    first, last = min(sequences), max(sequences)
    shared = 0
    for left, right in zip(first, last, strict=False):
        if left != right:
            break
        shared += 1
    return min(shared, min(len(sequence) for sequence in sequences) - 1)


def shared_cache(model: Any, prefix: Sequence[int]) -> Any:
    """Return the key-value cache of `prefix` (one row), or None where it cannot be shared.

    Only plain attention layers can be repeated over the rows of a batch with certainty; models
    with recurrent state compute their prefix in each row.
    """
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    if any(type(layer).__name__ != "DynamicLayer" for layer in cache.layers) or not prefix:
        return None
    ids = torch.tensor([list(prefix)], device=model.device)
    model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


class Batch:
    """Left-padded rows behind a shared prefix, and where each of them stands."""

    def __init__(self, model: Any, rows: Sequence[Sequence[int]], shared: int, cache: Any) -> None:
        import torch
        from transformers import DynamicCache

        own = [row[shared:] for row in rows]
        width = max(map(len, own))
        self.ids = torch.zeros((len(rows), width), dtype=torch.long)
        self.mask = torch.zeros((len(rows), shared + width), dtype=torch.long)
        self.mask[:, :shared] = 1
        for index, row in enumerate(own):
            self.ids[index, width - len(row) :] = torch.tensor(row)
            self.mask[index, shared + width - len(row) :] = 1
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        self.ids, self.mask = self.ids.to(model.device), self.mask.to(model.device)
        self.positions = self.positions.to(model.device)
        if cache is None:
            self.cache = DynamicCache(config=model.config)
        else:
            self.cache = copy.deepcopy(cache)
            self.cache.batch_repeat_interleave(len(rows))


def decode(
    model: Any,
    rows: Sequence[Sequence[int]],
    tokens: int,
    stops: frozenset[int],
    *,
    cache: Any = None,
    shared: int = 0,
    candidates: int = 0,
) -> list[Written]:
    """Decode one batch greedily.

    Args:
        rows: token ids of each request, whole.
        tokens: at most so many new ones.
        cache, shared: the cache of the first `shared` tokens, from `shared_cache`.
        candidates: keep this many of the likeliest tokens at each step, with log-probabilities.

    Returns:
        One `Written` a row, in order.
    """
    import torch

    batch = Batch(model, rows, shared if cache is not None else 0, cache)
    alive = torch.arange(len(rows), device=model.device)
    ids, mask, positions = batch.ids, batch.mask, batch.positions
    written: list[list[int]] = [[] for _ in rows]
    kept: list[list[tuple[Any, Any]]] = [[] for _ in rows]
    finished = [False] * len(rows)
    with torch.inference_mode():
        for step in range(tokens):
            logits = model(
                ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=batch.cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            chosen = logits.argmax(-1)
            if candidates:
                values, indices = logits.float().log_softmax(-1).topk(candidates)
                values, indices = values.cpu(), indices.cpu()
            going = []
            for place, (row, token) in enumerate(
                zip(alive.tolist(), chosen.tolist(), strict=True)
            ):
                written[row].append(token)
                if candidates:
                    kept[row].append((values[place], indices[place]))
                finished[row] = token in stops
                if not finished[row]:
                    going.append(place)
            if not going or step == tokens - 1:
                break
            stay = torch.tensor(going, device=model.device)
            if len(going) < len(chosen):
                batch.cache.batch_select_indices(stay)
                alive, chosen, mask = alive[stay], chosen[stay], mask[stay]
                positions = positions[stay]
            ids = chosen[:, None]
            mask = torch.cat([mask, mask.new_ones(len(going), 1)], dim=1)
            positions = positions[:, -1:] + 1
    return [
        Written(
            tuple(written[row]),
            finished[row],
            torch.stack([value for value, _ in kept[row]]) if candidates else None,
            torch.stack([index for _, index in kept[row]]) if candidates else None,
        )
        for row in range(len(rows))
    ]


def decode_all(
    chat: ChatModel,
    requests: Sequence[Sequence[int]],
    tokens: int,
    *,
    rows: int = 64,
    candidates: int = 0,
    done: frozenset[int] = frozenset(),
) -> Iterator[list[tuple[int, Written]]]:
    """Yield batches of (index, written) over all requests; halve a batch that does not fit.

    A batch whose requests are all in `done` is passed over. The plan is made over the whole
    list, so that what remains is decoded in the same company as without interruption.
    """
    import torch

    if not requests:
        return
    shared = common_prefix(requests)
    with torch.inference_mode():
        cache = shared_cache(chat.model, requests[0][:shared])
    waiting = plan([len(request) for request in requests], rows)[::-1]
    while waiting:
        indices = waiting.pop()
        if all(index in done for index in indices):
            continue
        try:
            written = decode(
                chat.model,
                [requests[index] for index in indices],
                tokens,
                chat.stops,
                cache=cache,
                shared=shared,
                candidates=candidates,
            )
        except torch.OutOfMemoryError:
            if len(indices) == 1:
                raise
            half = len(indices) // 2
            waiting += [indices[half:], indices[:half]]
            continue
        yield list(zip(indices, written, strict=True))


def answer(
    chat: ChatModel,
    prompts: Sequence[str],
    journal: Journal,
    decoding: Decoding,
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Answer]:
    """Return the model's answers to `prompts`, from the journal where they are known.

    Args:
        journal: holds finished answers; new ones are written batch by batch.
        advance: called with the number of answers that have just become known.
    """
    settings = {"tokens": decoding.tokens, "opening": decoding.opening, "greedy": True}
    keys = [content_key(chat.identity, prompt, settings) for prompt in prompts]
    known = journal.answers(keys)
    advance(sum(key in known for key in keys))
    done = frozenset(index for index, key in enumerate(keys) if key in known)
    if len(done) < len(keys):
        requests = [chat.encode(prompt, decoding.opening) for prompt in prompts]
        for batch in decode_all(chat, requests, decoding.tokens, done=done):
            fresh = [
                Answer(
                    keys[index],
                    prompts[index],
                    chat.decode(written.tokens),
                    written.tokens,
                    written.finished,
                )
                for index, written in batch
                if index not in done
            ]
            journal.add_answers(fresh, chat.identity, settings)
            known.update({one.key: one for one in fresh})
            advance(len(fresh))
    return [known[key] for key in keys]
