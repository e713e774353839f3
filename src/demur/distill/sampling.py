"""Sampling several answers a request, as reinforcement needs them.

Requests are left-padded behind the prefix that all chats share and read once, however many answers
are drawn to each; rows that have ended leave the batch. Draws come from torch's own generator on
the CPU, one number a row and token: they are the same on every device, and a training that goes on
from a checkpoint, which holds the generator's state, draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demur.models.chat_model import context_length
from demur.models.forward import accepted, last_positions, rows_can_leave, shared_cache


def sample(
    model: Any,
    requests: Sequence[Sequence[int]],
    samples: int,
    tokens: int,
    stops: frozenset[int],
    *,
    shared: int = 0,
) -> list[list[tuple[int, ...]]]:
    """Draw answers at temperature 1.

    Args:
        requests: token ids of the templated requests, the answers opened.
        samples: how many answers to each.
        tokens: of an answer at most so many, the end mark included.
        stops: the tokens that end an answer.
        shared: how many tokens all requests begin with, fewer than the shortest has; used where
            the architecture's cache can be shared.

    Returns:
        A list a request of `samples` answers' token ids, each of one token or more.
    """
    import torch

    longest = max(map(len, requests))
    tokens = max(1, min(tokens, context_length(model) - longest))
    written: list[list[int]] = [[] for _ in range(len(requests) * samples)]
    with torch.no_grad():
        cache = shared_cache(model, requests[0][:shared], longest + tokens)
        logits, cache, mask, positions = _read(model, requests, samples, shared, cache)
        alive = torch.arange(len(written), device=model.device)
        can_leave = rows_can_leave(cache)
        ended: set[int] = set()
        for step in range(tokens):
            drawn = draw(logits)
            for row, token in zip(alive.tolist(), drawn.tolist(), strict=True):
                if row not in ended:
                    written[row].append(token)
                    if token in stops:
                        ended.add(row)
            if len(ended) == len(written) or step == tokens - 1:
                break
            if can_leave:
                going = [place for place, row in enumerate(alive.tolist()) if row not in ended]
                if len(going) < len(alive):
                    stay = torch.tensor(going, device=model.device)
                    cache.batch_select_indices(stay)
                    alive, drawn, mask = alive[stay], drawn[stay], mask[stay]
                    positions = positions[stay]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = positions + 1
            logits = _last_logits(model, drawn[:, None], mask, positions, cache)
    answers = [tuple(row) for row in written]
    return [answers[start : start + samples] for start in range(0, len(answers), samples)]


def draw(logits: Any) -> Any:
    """Draw one token a row from softmax(logits), by inverting its cumulative distribution.

    Args:
        logits: (rows, vocabulary).
    """
    import torch

    chances = logits.double().softmax(-1).cumsum(-1)
    numbers = torch.rand((len(logits), 1), dtype=torch.float64).to(logits.device)
    drawn = torch.searchsorted(chances, numbers * chances[:, -1:], right=True)[:, 0]
    return drawn.clamp(max=logits.shape[1] - 1)


def _read(
    model: Any, requests: Sequence[Sequence[int]], samples: int, shared: int, cache: Any
) -> tuple[Any, Any, Any, Any]:
    """Read all requests; return the samples' last logits, cache, mask and last positions."""
    import torch
    from transformers import DynamicCache

    if cache is None:
        cache, shared = DynamicCache(config=model.config), 0
    repeatable = rows_can_leave(cache)
    if not repeatable:  # recurrent state: each sample's row reads its request itself
        requests = [request for request in requests for _ in range(samples)]
    own = [request[shared:] for request in requests]
    width = max(map(len, own))
    ids = torch.zeros((len(own), width), dtype=torch.long)
    mask = torch.zeros((len(own), shared + width), dtype=torch.long)
    mask[:, :shared] = 1
    for row, request in enumerate(own):
        ids[row, width - len(request) :] = torch.tensor(list(request))
        mask[row, shared + width - len(request) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
    if shared:
        cache.batch_repeat_interleave(len(own))
    logits = _last_logits(model, ids, mask, positions, cache)
    positions = positions[:, -1:]
    if repeatable:
        cache.batch_repeat_interleave(samples)
        logits, mask, positions = (
            one.repeat_interleave(samples, 0) for one in (logits, mask, positions)
        )
    return logits, cache, mask, positions


def _last_logits(model: Any, ids: Any, mask: Any, positions: Any, cache: Any) -> Any:
    told = accepted(model, position_ids=positions)
    told |= last_positions(model, ids.shape[1])
    found = model(ids, attention_mask=mask, past_key_values=cache, use_cache=True, **told)
    return found.logits[:, -1].float()
