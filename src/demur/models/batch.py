"""Batches of token rows: of like length, left-padded behind a shared prefix."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

# The longest row of a batch, where padding is to be avoided: to its shortest, and tokens besides.
STRETCH, SLACK = 1.25, 3


def plan(
    lengths: Sequence[int], rows: int, budget: int = 16384, *, alike: bool = False
) -> list[list[int]]:
    """Return batches of indices, sorted by length: at most `rows`, at most `budget` tokens.

    Args:
        alike: begin another batch, too, where a row is much longer than the first (`STRETCH`).
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        fits = batches and len(batches[-1]) < rows
        if fits and alike:
            fits = lengths[index] <= STRETCH * lengths[batches[-1][0]] + SLACK
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
