"""What a student says about the answers of a batch: logits where they stand, and how far it moved.

The head is applied to answer positions only, and the template's common beginning is computed once
a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from demur.models.forward import accepted, last_positions


def answer_logits(model: Any, batch: dict[str, Any], read: Any = None) -> Any:
    """Return (rows, longest answer, vocabulary) float32 logits that predict the answers' tokens.

    Args:
        batch: as a `Collator` makes it.
        read: of `read_before`, where several batches share it.
    """
    return answer_outputs(model, batch, read).logits[:, -batch["labels"].shape[1] :].float()


def answer_outputs(model: Any, batch: dict[str, Any], read: Any = None, **asked: Any) -> Any:
    """Return the model's outputs for a batch, the head applied where an answer may stand.

    Args:
        read: as in `answer_logits`.
        asked: what else the forward pass is told, such as `output_hidden_states`.
    """
    rows, longest = batch["labels"].shape
    cache = read_before(model, batch) if read is None else read
    if cache is not None:
        cache = _rows_of(cache, batch["stem"]) if "stem" in batch else _repeated(cache, rows)
    told = accepted(model, position_ids=batch["position_ids"], past_key_values=cache)
    return model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=cache is not None,
        **told,
        **last_positions(model, batch["input_ids"].shape[1], longest),
        **asked,
    )


def read_before(model: Any, batch: dict[str, Any]) -> Any:
    """Return the cache of what stands before a batch's rows; None where nothing can.

    That is the prefix, one row; or the stems that rows branch from, a row each.
    """
    from transformers import DynamicCache

    if not batch["prefix"].shape[1]:
        return None
    cache = DynamicCache(config=model.config)
    head = last_positions(model, batch["prefix"].shape[1])
    model(batch["prefix"], past_key_values=cache, use_cache=True, **head)
    if "stem" in batch:
        _read_stems(model, batch, cache)
    return cache


def _read_stems(model: Any, batch: dict[str, Any], cache: Any) -> None:
    count, width = batch["stem_ids"].shape
    cache.batch_repeat_interleave(count)
    if width:
        model(
            input_ids=batch["stem_ids"],
            attention_mask=batch["stem_mask"],
            past_key_values=cache,
            use_cache=True,
            **accepted(model, position_ids=batch["stem_positions"]),
            **last_positions(model, width),
        )


def _repeated(cache: Any, rows: int) -> Any:
    found = _copied(cache)
    found.batch_repeat_interleave(rows)
    return found


def _rows_of(cache: Any, rows: Any) -> Any:
    found = _copied(cache)
    found.batch_select_indices(rows)
    return found


def _copied(cache: Any) -> Any:
    """Return a cache that may grow while this one stays; what is in both is in memory once."""
    found = copy(cache)
    found.layers = [copy(layer) for layer in cache.layers]
    return found


def part_of(batch: dict[str, Any], rows: Any) -> dict[str, Any]:
    """Return some rows of a batch, without the padding that none of them needs.

    Args:
        batch: as a `Collator` makes it of answers without distributions.
        rows: (n,) their places.
    """
    import torch

    mask, width = batch["attention_mask"][rows], batch["input_ids"].shape[1]
    own = mask[:, -width:]
    lead = int((own.sum(0) == 0).long().cumprod(0).sum())
    first = batch["first"][rows]
    cut = int(first.min())
    part = batch | {
        "input_ids": batch["input_ids"][rows, lead:],
        "position_ids": batch["position_ids"][rows, lead:],
        "attention_mask": torch.cat([mask[:, :-width], own[:, lead:]], dim=1),
        "labels": batch["labels"][rows, cut:],
        "first": first - cut,
    }
    return part | ({"stem": batch["stem"][rows]} if "stem" in batch else {})


def token_log_probabilities(logits: Any, labels: Any) -> Any:
    """Return (rows, longest answer) log-probabilities of the answers' tokens; 0 beside them.

    Args:
        logits: from `answer_logits`.
        labels: `batch["labels"]`.
    """
    from demur.distill.collate import IGNORED

    chosen = logits.gather(2, labels.clamp(min=0)[..., None])[..., 0] - logits.logsumexp(-1)
    return chosen.where(labels != IGNORED, 0.0)


@contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """Compute as the model answers, so that what it says now and before can be compared."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def divergence(found: Any, before: Any) -> Any:
    """Return KL(before || now) a position, on the likeliest tokens and the rest as one.

    Args:
        found: (..., k) log-probabilities of the student in training.
        before: (..., k) log-probabilities of the student before training, same tokens.
    """
    import torch

    kept = before.exp()
    rest = (1 - kept.sum(-1)).clamp(min=1e-5)
    other = torch.log1p(-found.exp().sum(-1).clamp(max=1 - 1e-5))
    return (kept * (before - found)).sum(-1) + rest * (rest.log() - other)


def answer_divergence(logits: Any, batch: dict[str, Any]) -> Any:
    """Return the summed KL(before || now) over the answers of the batch's `keep` lessons.

    Args:
        logits: from `answer_logits`.
    """
    from demur.distill.collate import IGNORED

    if "candidates" not in batch:
        return logits.new_zeros(())
    counted = (batch["labels"] != IGNORED) & batch["keep"][:, None]
    found = logits.gather(2, batch["candidates"]) - logits.logsumexp(-1)[..., None]
    return divergence(found, batch["log_probabilities"]).where(counted, 0.0).sum()


def text_divergence(model: Any, batch: dict[str, Any]) -> Any:
    """Return the mean KL(before || now) a token on the batch's texts outside a chat."""
    logits = model(input_ids=batch["text_ids"], use_cache=False).logits.float()
    found = logits.gather(2, batch["text_candidates"]) - logits.logsumexp(-1, keepdim=True)
    return divergence(found, batch["text_before"]).mean()
