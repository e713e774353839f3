"""Greedy decoding in batches: the one place in demur where a model writes.

What makes it quick on small machines: requests are batched by length, so that little is padded;
the tokens that all of them begin with (the template's head and system prompt) are computed once
and their keys and values shared; the head is applied to last positions only; rows that have
ended, or whose verdict is settled, leave the batch. What makes it safe: the plan of batches
depends on nothing but the list of requests, so that a run that was killed and started again
decodes the same batches, and each batch reaches the journal in one transaction.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from demur.errors import ModelError
from demur.models.chat_model import ChatModel, context_length
from demur.models.forward import (
    accepted,
    common_prefix,
    last_positions,
    rows_can_leave,
    shared_cache,
)
from demur.run.journal import Answer, Journal, content_key

if TYPE_CHECKING:
    import torch


# Tokens of a batch: what its key-value cache costs in memory (24 MiB a thousand on a 135M model).
BUDGET_CPU, BUDGET_GPU = 4096, 65536
SETTLED_EVERY = 2  # tokens between two questions whether a row is settled
Settled = Callable[[int, Sequence[int]], bool]


@dataclass(frozen=True)
class Decoding:
    """How answers are written; part of the journal's keys.

    Attributes:
        tokens: at most so many new tokens.
        opening: words put into the model's mouth, from which the answer continues.
        until: name of the judge whose settled verdict ends an answer; empty where none does.
    """

    tokens: int = 32
    opening: str = ""
    until: str = ""


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
    settled: Settled | None = None,
) -> list[Written]:
    """Decode one batch greedily.

    Args:
        rows: token ids of each request, whole.
        tokens: at most so many new ones.
        cache, shared: the cache of the first `shared` tokens, from `shared_cache`.
        candidates: keep this many of the likeliest tokens at each step, with log-probabilities.
        settled: told a row and its new tokens every `SETTLED_EVERY` tokens, says whether what is
            to be known of it is known; the row then ends.

    Returns:
        One `Written` a row, in order; a row that fills the model's context ends there.
    """
    import torch

    batch = Batch(model, rows, shared if cache is not None else 0, cache)
    context = context_length(model)
    can_leave = rows_can_leave(batch.cache)
    alive = torch.arange(len(rows), device=model.device)
    ids, mask, positions = batch.ids, batch.mask, batch.positions
    written: list[list[int]] = [[] for _ in rows]
    kept: list[list[tuple[Any, Any]]] = [[] for _ in rows]
    finished, over = [False] * len(rows), [False] * len(rows)
    with torch.inference_mode():
        for step in range(tokens):
            logits = model(
                ids,
                attention_mask=mask,
                past_key_values=batch.cache,
                use_cache=True,
                **accepted(model, position_ids=positions),
                **last_positions(model, ids.shape[1]),
            ).logits[:, -1]
            chosen = logits.argmax(-1)
            if candidates:
                values, indices = logits.float().log_softmax(-1).topk(candidates)
                values, indices = values.cpu(), indices.cpu()
            going = []
            for place, (row, token) in enumerate(zip(alive.tolist(), chosen.tolist(), strict=True)):
                if over[row]:
                    continue
                written[row].append(token)
                if candidates:
                    kept[row].append((values[place], indices[place]))
                finished[row] = token in stops
                over[row] = finished[row] or len(rows[row]) + len(written[row]) > context
                if settled and not over[row] and (step + 1) % SETTLED_EVERY == 0:
                    over[row] = settled(row, written[row])
                if not over[row]:
                    going.append(place)
            if not going or step == tokens - 1:
                break
            if can_leave and len(going) < len(chosen):
                stay = torch.tensor(going, device=model.device)
                batch.cache.batch_select_indices(stay)
                alive, chosen, mask = alive[stay], chosen[stay], mask[stay]
                positions = positions[stay]
            ids = chosen[:, None]
            mask = torch.cat([mask, mask.new_ones(len(ids), 1)], dim=1)
            positions = positions[:, -1:] + 1
    return [_row(*parts) for parts in zip(written, finished, kept, strict=True)]


def _row(tokens: list[int], finished: bool, kept: list[tuple[Any, Any]]) -> Written:
    import torch

    if not kept:
        return Written(tuple(tokens), finished)
    values, indices = (torch.stack(part) for part in zip(*kept, strict=True))
    return Written(tuple(tokens), finished, values, indices)


def decode_all(
    chat: ChatModel,
    requests: Sequence[Sequence[int]],
    tokens: int,
    *,
    rows: int = 64,
    candidates: int = 0,
    settled: Settled | None = None,
    done: frozenset[int] = frozenset(),
) -> Iterator[list[tuple[int, Written]]]:
    """Yield batches of (index, written) over all requests; halve a batch that does not fit.

    A batch whose requests are all in `done` is passed over. The plan is made over the whole
    list, so that what remains is decoded in the same company as without interruption.

    Args:
        settled: as in `decode`, told the index of a request.

    Raises:
        ModelError: not even one request fits into memory, or the architecture has a cache of a
            kind of its own.
    """
    import torch

    if not requests:
        return
    if not accepted(chat.model, past_key_values=None):
        raise ModelError(
            f"The architecture {chat.model.config.model_type} keeps no key-value cache of the kind "
            "that demur decodes with.",
            "Use a model of another architecture.",
        )
    shared = common_prefix(requests)
    with torch.inference_mode():
        longest = max(map(len, requests)) + tokens
        cache = shared_cache(chat.model, requests[0][:shared], longest)
    budget = BUDGET_GPU if chat.placement.device == "cuda" else BUDGET_CPU
    waiting = plan([len(request) for request in requests], rows, budget)[::-1]
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
                settled=settled and partial(_of_request, settled, indices),
            )
        except torch.OutOfMemoryError as error:
            if len(indices) == 1:
                raise ModelError(
                    "The device's memory does not hold one prompt beside the model.",
                    "Use a device with more memory, or --device cpu.",
                ) from error
            half = len(indices) // 2
            waiting += [indices[half:], indices[:half]]
            continue
        yield list(zip(indices, written, strict=True))


def _of_request(settled: Settled, indices: Sequence[int], row: int, new: Sequence[int]) -> bool:
    return settled(indices[row], new)


def write_freely(model: Any, first: int, rows: int, tokens: int, seed: int) -> torch.Tensor:
    """Sample text as the model writes it of itself: no chat, no template, temperature 1.

    Args:
        first: the token id that every row begins with.
        rows, tokens: how many texts, and how long each is, `first` included.
        seed: of the draws, which are made on the CPU so that they are the same on every device.

    Returns:
        (rows, tokens) token ids, on the CPU.
    """
    import torch
    from transformers import DynamicCache

    generator = torch.Generator().manual_seed(seed)
    written = torch.full((rows, 1), first)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        while written.shape[1] < tokens:
            logits = model(
                written[:, -1:].to(model.device),
                attention_mask=torch.ones_like(written).to(model.device),
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
            chances = logits.float().softmax(-1).cpu()
            written = torch.cat([written, chances.multinomial(1, generator=generator)], dim=1)
    return written


def answer(
    chat: ChatModel,
    prompts: Sequence[str],
    journal: Journal,
    decoding: Decoding,
    *,
    advance: Callable[[int], None] = lambda count: None,
    settled: Callable[[str, str], bool] | None = None,
) -> list[Answer]:
    """Return the model's answers to `prompts`, from the journal where they are known.

    Args:
        journal: holds finished answers; new ones are written batch by batch.
        settled: told a prompt and the answer so far, says whether the verdict on it is settled;
            `decoding.until` must then name the judge.
        advance: called with the number of answers that have just become known.
    """
    settings = {"tokens": decoding.tokens, "opening": decoding.opening, "greedy": True}
    if decoding.until:
        settings["until"] = decoding.until
    keys = [content_key(chat.identity, prompt, settings) for prompt in prompts]
    known = journal.answers(keys)
    advance(sum(key in known for key in keys))
    done = frozenset(index for index, key in enumerate(keys) if key in known)
    if len(done) < len(keys):
        requests = [chat.encode(prompt, decoding.opening) for prompt in prompts]

        def ends(index: int, new: Sequence[int]) -> bool:
            return settled is not None and settled(prompts[index], chat.decode(tuple(new)))

        for batch in decode_all(
            chat, requests, decoding.tokens, settled=ends if settled else None, done=done
        ):
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
