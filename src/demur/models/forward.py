"""What a forward pass is told: arguments that a model knows, head positions, a shared prefix.

Requests to a chat model begin with the same tokens: the template's head and the system prompt.
Their keys and values are computed once and stand before every row of a batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens all sequences share, leaving each at least one of its own."""
    rows = [tuple(sequence) for sequence in sequences]
    first, last = min(rows), max(rows)
    shared = 0
    for left, right in zip(first, last, strict=False):
        if left != right:
            break
        shared += 1
    return min(shared, min(map(len, rows)) - 1)


def accepted(model: Any, **arguments: Any) -> dict[str, Any]:
    """Return those of the arguments that the model's forward pass has a name for."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    names = inspect.signature(plain.forward).parameters
    return {name: value for name, value in arguments.items() if name in names}


def last_positions(model: Any, width: int, count: int = 1) -> dict[str, Any]:
    """Return the argument that has a forward pass apply the head to the last `count` of `width`.

    On CPUs the positions are named one by one: where they are given as a number, transformers
    takes a slice whose rows do not touch, and the head's product over it is several times slower
    than over the copy that naming them makes (benchmarks/head.py). Elsewhere they are a number,
    since the head of a model that is spread over devices may lie on another than its inputs.
    """
    import torch

    if model.device.type != "cpu":
        return accepted(model, logits_to_keep=count)
    return accepted(model, logits_to_keep=torch.arange(max(0, width - count), width))


def can_share_prefix(model: Any, longest: int) -> bool:
    """Return whether the cache of a common prefix can stand before left-padded rows.

    The padding then lies between prefix and row. That is exact where a token's position is what
    it is told, not its place in the row, and where every token sees all before it: not in models
    without position ids (MPT, BLOOM), with recurrent state, or with a window that rows outgrow.

    Args:
        longest: tokens of the longest row, those to come included.
    """
    from transformers import DynamicCache

    if not accepted(model, position_ids=None):
        return False
    if "local" in getattr(model.config, "attention_layers", ()):  # GPT-Neo's own kind of window
        return False
    for layer in DynamicCache(config=model.config).layers:
        kind = type(layer).__name__
        windowed = kind == "DynamicSlidingWindowLayer" and longest < layer.sliding_window
        if kind != "DynamicLayer" and not windowed:
            return False
    return True


def rows_can_leave(cache: Any) -> bool:
    """Return whether rows of a batch can be taken out of its cache: not out of recurrent state."""
    plain = {"DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"}
    return all(type(layer).__name__ in plain for layer in cache.layers)


def rows_can_join(cache: Any) -> bool:
    """Return whether rows read apart can be put into one cache: where every layer keeps all."""
    return all(type(layer).__name__ == "DynamicLayer" for layer in cache.layers)


def shared_cache(model: Any, prefix: Sequence[int], longest: int) -> Any:
    """Return the key-value cache of `prefix` (one row), or None where it cannot be shared.

    Args:
        longest: as in `can_share_prefix`.
    """
    import torch
    from transformers import DynamicCache

    if not prefix or not can_share_prefix(model, longest):
        return None
    cache = DynamicCache(config=model.config)
    ids = torch.tensor([list(prefix)], device=model.device)
    model(ids, past_key_values=cache, use_cache=True, **last_positions(model, len(prefix)))
    return cache
