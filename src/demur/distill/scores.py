"""What a student says about the answers of a batch: logits where they stand, and how far it moved.

The head is applied to answer positions only, and the template's common beginning is computed once
a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from demur.models.forward import accepted, last_positions


def answer_logits(model: Any, batch: dict[str, Any]) -> Any:
    """Return (rows, longest answer, vocabulary) float32 logits that predict the answers' tokens.

    Args:
        batch: as a `Collator` makes it.
    """
    return answer_outputs(model, batch).logits[:, -batch["labels"].shape[1] :].float()


def answer_outputs(model: Any, batch: dict[str, Any], **asked: Any) -> Any:
    """Return the model's outputs for a batch, the head applied where an answer may stand.

    Args:
        asked: what else the forward pass is told, such as `output_hidden_states`.
    """
    from transformers import DynamicCache

    rows, longest = batch["labels"].shape
    cache = None
    if batch["prefix"].shape[1]:
        cache = DynamicCache(config=model.config)
        head = last_positions(model, batch["prefix"].shape[1])
        model(batch["prefix"], past_key_values=cache, use_cache=True, **head)
        cache.batch_repeat_interleave(rows if "stem" not in batch else len(batch["stem_ids"]))
    if "stem" in batch:
        _read_stems(model, batch, cache)
    told = accepted(model, position_ids=batch["position_ids"], past_key_values=cache)
    return model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=cache is not None,
        **told,
        **last_positions(model, batch["input_ids"].shape[1], longest),
        **asked,
    )


def _read_stems(model: Any, batch: dict[str, Any], cache: Any) -> None:
    width = batch["stem_ids"].shape[1]
    if width:
        model(
            input_ids=batch["stem_ids"],
            attention_mask=batch["stem_mask"],
            past_key_values=cache,
            use_cache=True,
            **accepted(model, position_ids=batch["stem_positions"]),
            **last_positions(model, width),
        )
    cache.batch_select_indices(batch["stem"])


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
