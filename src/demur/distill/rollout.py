"""Rollouts: answers drawn from a student as it is now, at the temperature at which it is trained.

    answers = rollout(model, [lesson.prompt for lesson in lessons], 24, chat.stops)

The draws come from torch's own generator on the CPU, whose state the Trainer keeps in every
checkpoint: a training that was killed draws the very answers that it would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from demur.errors import TrainingError
from demur.models.chat_model import context_length
from demur.models.forward import (
    accepted,
    common_prefix,
    last_positions,
    rows_can_leave,
    shared_cache,
)


@contextmanager
def at_rest(model: Any) -> Iterator[None]:
    """Hold `model` in evaluation mode: no dropout while it is asked rather than trained."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def rollout(
    model: Any,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    stops: frozenset[int],
    *,
    temperature: float = 1.0,
) -> list[tuple[int, ...]]:
    """Draw one answer a prompt, all in one batch: left-padded behind the prefix that they share.

    Args:
        model: the student, wrapped by PEFT or not.
        prompts: token ids, the answer opened; one prompt may stand there several times.
        tokens: at most so many new ones; a row also ends where the model's context does.
        stops: token ids that end an answer.
        temperature: divides the logits; 1 draws from the distribution that is trained.

    Returns:
        The new token ids of each row, in order, the end mark included; at least one.

    Raises:
        TrainingError: a probability is no number.
    """
    import torch
    from transformers import DynamicCache

    with torch.no_grad(), at_rest(model):
        longest = max(map(len, prompts)) + tokens
        shared = common_prefix(prompts)
        cache = shared_cache(model, list(prompts[0][:shared]), longest)
        if cache is None:
            shared, cache = 0, DynamicCache(config=model.config)
        else:
            cache.batch_repeat_interleave(len(prompts))
        ids, mask = _left_padded(prompts, shared)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        ids, mask, positions = (one.to(model.device) for one in (ids, mask, positions))
        context, can_leave = context_length(model), rows_can_leave(cache)
        written: list[list[int]] = [[] for _ in prompts]
        alive, over = list(range(len(prompts))), [False] * len(prompts)
        for _ in range(tokens):
            logits = model(
                ids,
                attention_mask=mask,
                use_cache=True,
                **accepted(model, position_ids=positions, past_key_values=cache),
                **last_positions(model, ids.shape[1]),
            ).logits[:, -1]
            chances = (logits.float() / temperature).softmax(-1).cpu()
            if not bool(torch.isfinite(chances).all()):
                raise TrainingError(
                    "The student's probabilities became NaN while it wrote an answer.",
                    "Lower --learning-rate, or use --dtype float32.",
                )
            chosen = chances.multinomial(1)
            for row, token in zip(alive, chosen[:, 0].tolist(), strict=True):
                if not over[row]:
                    written[row].append(token)
                    full = len(prompts[row]) + len(written[row]) >= context
                    over[row] = token in stops or full
            stay = [place for place, row in enumerate(alive) if not over[row]]
            if not stay:
                break
            if can_leave and len(stay) < len(alive):
                kept = torch.tensor(stay, device=model.device)
                cache.batch_select_indices(kept)
                alive = [alive[place] for place in stay]
                chosen, mask, positions = chosen[stay], mask[kept], positions[kept]
            ids = chosen.to(model.device)
            mask = torch.cat([mask, mask.new_ones(len(ids), 1)], dim=1)
            positions = positions[:, -1:] + 1
    return [tuple(row) for row in written]


def _left_padded(prompts: Sequence[Sequence[int]], shared: int) -> tuple[Any, Any]:
    """Return the ids behind the first `shared`, and the mask over these and the ids."""
    import torch

    own = [prompt[shared:] for prompt in prompts]
    width = max(map(len, own))
    ids = torch.zeros((len(own), width), dtype=torch.long)
    mask = torch.zeros((len(own), shared + width), dtype=torch.long)
    mask[:, :shared] = 1
    for place, row in enumerate(own):
        ids[place, width - len(row) :] = torch.tensor(row)
        mask[place, shared + width - len(row) :] = 1
    return ids, mask
