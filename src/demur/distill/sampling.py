"""Sampling from a student as it is now: several answers a request, or one.

    groups = sample(model, requests, 4, 24, stops, shared=shared)  # as reinforcement needs them
    answers = rollout(model, requests, 24, stops)                  # one each, to its own end

Requests are left-padded behind the prefix that all chats share and read once, however many answers
are drawn to each; rows that have ended leave the batch. Draws come from torch's own generator on
the CPU, one number a row and token: they are the same on every device, and a training that goes on
from a checkpoint, which holds the generator's state, draws what it would have drawn. A student that
is divided among processes is asked by all of them until the last is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from demur.distill.scores import without_dropout
from demur.errors import TrainingError
from demur.models.batch import Batch
from demur.models.chat_model import context_length
from demur.models.forward import (
    accepted,
    common_prefix,
    last_positions,
    rows_can_leave,
    shared_cache,
)
from demur.run.processes import launched

BLOCK = 256  # tokens of the vocabulary that are weighed as one at first
WITHIN = 1 - 1e-12
ASKED_EVERY = 2  # tokens between two questions whether a row is over
Over = Callable[[int, Sequence[int]], bool]


def sample(
    model: Any,
    requests: Sequence[Sequence[int]],
    samples: int,
    tokens: int,
    stops: frozenset[int],
    *,
    shared: int = 0,
    over: Over = lambda row, new: False,
) -> list[list[tuple[int, ...]]]:
    """Draw answers at temperature 1, all to the same length at most.

    Args:
        requests: token ids of the templated requests, the answers opened.
        samples: how many answers to each.
        tokens: of an answer at most so many, the end mark included; fewer where the longest
            request leaves less room.
        stops: the tokens that end an answer.
        shared: how many tokens all requests begin with, fewer than the shortest has; used where
            the architecture's cache can be shared.
        over: told the number of a row (the samples of a request one after the other) and its
            tokens, every `ASKED_EVERY` of them, says whether no more are needed.

    Returns:
        A list a request of `samples` answers' token ids, each of one token or more.

    Raises:
        TrainingError: a probability is no number.
    """
    room = context_length(model) - max(map(len, requests))
    most = [max(1, min(tokens, room))] * (len(requests) * samples)
    answers = _written(model, requests, samples, most, stops, shared, 1.0, over=over)
    return [answers[start : start + samples] for start in range(0, len(answers), samples)]


def rollout(
    model: Any,
    requests: Sequence[Sequence[int]],
    tokens: int,
    stops: frozenset[int],
    *,
    temperature: float = 1.0,
    width: int | None = None,
) -> list[tuple[int, ...]]:
    """Draw one answer a request; each ends where it does, or where the model's context does.

    Args:
        requests: token ids, the answer opened; one request may stand there several times.
        tokens: at most so many new ones, the end mark included.
        stops: the tokens that end an answer.
        temperature: divides the logits; 1 draws from the distribution that is trained.
        width: only tokens below this number are drawn; by default all that the head has.

    Returns:
        The new token ids of each row, in order; at least one.

    Raises:
        TrainingError: a probability is no number.
    """
    context = context_length(model)
    most = [max(1, min(tokens, context - len(request))) for request in requests]
    shared = common_prefix(requests)
    return _written(model, requests, 1, most, stops, shared, temperature, width)


def _written(
    model: Any,
    requests: Sequence[Sequence[int]],
    samples: int,
    most: Sequence[int],
    stops: frozenset[int],
    shared: int,
    temperature: float,
    width: int | None = None,
    over: Over = lambda row, new: False,
) -> list[tuple[int, ...]]:
    """Return what is drawn in each row, the samples of a request one after the other.

    Args:
        most: the most tokens of each row.
    """
    import torch

    written: list[list[int]] = [[] for _ in most]
    processes, last = launched(), context_length(model) - 1
    with torch.no_grad(), without_dropout(model):
        cache = shared_cache(model, requests[0][:shared], max(map(len, requests)) + max(most))
        logits, cache, mask, positions = _read(model, requests, samples, shared, cache)
        alive, can_leave = list(range(len(written))), rows_can_leave(cache)
        ended: set[int] = set()
        while True:
            drawn = draw(logits[:, :width] / temperature)
            for row, token in zip(alive, drawn.tolist(), strict=True):
                if row not in ended:
                    new = written[row]
                    new.append(token)
                    full = token in stops or len(new) == most[row]
                    if full or (len(new) % ASKED_EVERY == 0 and over(row, new)):
                        ended.add(row)
            done = len(ended) == len(written)
            if processes.all(done, model.device) if processes.divided else done:
                return [tuple(row) for row in written]
            going = [place for place, row in enumerate(alive) if row not in ended] or [0]
            if can_leave and len(going) < len(alive):
                stay = torch.tensor(going, device=model.device)
                cache.batch_select_indices(stay)
                alive = [alive[place] for place in going]
                drawn, mask, positions = drawn[stay], mask[stay], positions[stay]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = (positions + 1).clamp(max=last)
            logits = _last_logits(model, drawn[:, None], mask, positions, cache)


def draw(logits: Any) -> Any:
    """Draw one token a row from softmax(logits), by inverting its cumulative distribution.

    A block of the vocabulary is drawn first, then a token of it: only that block's numbers are
    ever added up one by one.

    Args:
        logits: (rows, vocabulary).

    Raises:
        TrainingError: a probability is no number.
    """
    import torch

    rows, count = logits.shape
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    weights = torch.nn.functional.pad(weights, (0, -count % BLOCK)).reshape(rows, -1, BLOCK)
    sums = weights.sum(-1, dtype=torch.float64).cumsum(-1)
    if not bool(torch.isfinite(sums[:, -1]).all()):
        raise TrainingError(
            "The student's probabilities became NaN while it wrote an answer.",
            "Lower --learning-rate, or use --dtype float32.",
        )
    numbers = torch.rand((rows, 1), dtype=torch.float64).to(logits.device) * sums[:, -1:]
    block = torch.searchsorted(sums, numbers, right=True).clamp(max=sums.shape[1] - 1)
    before = torch.nn.functional.pad(sums, (1, 0)).gather(1, block)
    # Where the number lies in its block, as a share: rounding then never leads out of it.
    share = ((numbers - before) / (sums.gather(1, block) - before)).clamp(0, WITHIN)
    each = weights[torch.arange(rows, device=weights.device), block[:, 0]].double().cumsum(-1)
    place = torch.searchsorted(each, share * each[:, -1:], right=True)
    return (block * BLOCK + place)[:, 0].clamp(max=count - 1)


def _read(
    model: Any, requests: Sequence[Sequence[int]], samples: int, shared: int, cache: Any
) -> tuple[Any, Any, Any, Any]:
    """Read all requests; return the samples' last logits, cache, mask and last positions."""
    batch = Batch(model, requests, shared if cache is not None else 0, cache)
    repeatable = rows_can_leave(batch.cache)
    if not repeatable:  # recurrent state: each sample's row reads its request itself
        every = [request for request in requests for _ in range(samples)]
        batch = Batch(model, every, 0, None)
    logits = _last_logits(model, batch.ids, batch.mask, batch.positions, batch.cache)
    mask, positions = batch.mask, batch.positions[:, -1:]
    if repeatable and samples > 1:
        batch.cache.batch_repeat_interleave(samples)
        logits, mask, positions = (
            one.repeat_interleave(samples, 0) for one in (logits, mask, positions)
        )
    return logits, batch.cache, mask, positions


def _last_logits(model: Any, ids: Any, mask: Any, positions: Any, cache: Any) -> Any:
    told = accepted(model, position_ids=positions)
    told |= last_positions(model, ids.shape[1])
    found = model(ids, attention_mask=mask, past_key_values=cache, use_cache=True, **told)
    return found.logits[:, -1].float()
