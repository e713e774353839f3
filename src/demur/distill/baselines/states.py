"""What a model holds at the last token of a request, after every layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demur.models.batch import Batch, plan
from demur.models.forward import accepted, common_prefix, last_positions, shared_cache

ROWS = 64


def last_token_states(model: Any, requests: Sequence[Sequence[int]]) -> Any:
    """Return the residual stream at the last token of every request.

    Args:
        requests: token ids of templated requests, the answers opened.

    Returns:
        (requests, depth + 1, width) float32 on the CPU: place 0 is the embedding, place l what
        comes out of layer l, counted from one; the last place is after the final norm.
    """
    import torch

    shared = common_prefix(requests)
    found: list[Any] = [None] * len(requests)
    with torch.inference_mode():
        cache = shared_cache(model, requests[0][:shared], max(map(len, requests)))
        for indices in plan([len(request) - shared for request in requests], ROWS, alike=True):
            rows = [requests[index] for index in indices]
            batch = Batch(model, rows, shared if cache is not None else 0, cache)
            told = accepted(model, position_ids=batch.positions)
            states = model(
                batch.ids,
                attention_mask=batch.mask,
                past_key_values=batch.cache,
                use_cache=True,
                output_hidden_states=True,
                **told,
                **last_positions(model, batch.ids.shape[1]),
            ).hidden_states
            # A copy, since a view would keep the whole batch in memory.
            last = [state[:, -1].to("cpu", torch.float32, copy=True) for state in states]
            for index, row in zip(indices, torch.stack(last, dim=1), strict=True):
                found[index] = row
    return torch.stack(found)
