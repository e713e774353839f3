"""What a treatment must not change: perplexity on plain text, and divergence on ordinary answers.

* Perplexity: exp of the mean negative log-likelihood a token over consecutive windows; before and
  after are paired by window.
* Multi-token KL: along the original's own answers, at every answer token, KL(original || treated).
  Divergence of the first token alone underestimates damage. The original's distribution is kept
  as its `TOP` likeliest tokens and one bucket for the rest; by the data-processing inequality the
  figure is then a lower bound, tight because the bucket holds little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from demur.errors import PromptError
from demur.models.batch import Batch, plan
from demur.models.chat_model import ChatModel, context_length
from demur.models.forward import accepted, common_prefix, last_positions, shared_cache
from demur.run.journal import Answer
from demur.stats import Mean, mean

TOP = 1024
WINDOW = 512


@dataclass(frozen=True)
class Text:
    """Plain text that perplexity is measured on, with its name for the report."""

    name: str
    content: str


@dataclass(frozen=True)
class Reference:
    """The original's distribution along its own answers, one entry a prompt.

    Attributes:
        rows: (prompt ids + answer ids, answer length) each.
        log_probabilities: (answer length, TOP) float32 tensors.
        candidates: (answer length, TOP) token ids.
    """

    rows: tuple[tuple[tuple[int, ...], int], ...]
    log_probabilities: tuple[Any, ...]
    candidates: tuple[Any, ...]


def load_text(source: str | None) -> Text:
    """Return the built-in passages, or the text file at `source`.

    Raises:
        PromptError: the file cannot be read, or is empty.
    """
    if source is None:
        content = (files("demur.measure") / "passages.txt").read_text(encoding="utf-8")
        return Text("built-in passages", content.split("\n", 1)[1].strip())
    try:
        content = Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(
            f"The text {source} cannot be read ({error}).",
            "Give a plain UTF-8 text file with --text, or leave it out for the built-in one.",
        ) from error
    if not content.strip():
        raise PromptError(f"The text {source} is empty.", "Give another file with --text.")
    return Text(Path(source).name, content)


def negative_log_likelihoods(
    chat: ChatModel,
    text: Text,
    *,
    tokens: int = 8192,
    advance: Callable[[int], None] = lambda count: None,
) -> list[float]:
    """Return the mean negative log-likelihood a token, in nats, of each window of `text`.

    All windows are of one length, so that each counts alike: a shorter rest is read only where
    there is no whole window.

    Args:
        tokens: how much of the text is read, from its beginning.

    Raises:
        PromptError: the text has fewer than two tokens.
    """
    import torch

    ids = chat.tokenizer(text.content, add_special_tokens=False).input_ids[:tokens]
    width = min(WINDOW, context_length(chat.model))
    whole = len(ids) // width * width or len(ids)
    windows = [ids[start : start + width] for start in range(0, whole, width)]
    losses = []
    with torch.inference_mode():
        for window in windows:
            if len(window) < 2:
                continue
            row = torch.tensor([window], device=chat.model.device)
            logits = chat.model(row, use_cache=False).logits[0, :-1].float()
            target = row[0, 1:, None]
            losses.append(-float(logits.log_softmax(-1).gather(1, target).mean()))
            advance(1)
    if not losses:
        raise PromptError(
            f"The text {text.name} has fewer than two tokens.", "Give a longer one with --text."
        )
    return losses


def perplexity(losses: Sequence[float]) -> float:
    """Return exp of the mean loss."""
    return math.exp(sum(losses) / len(losses))


def perplexity_ratio(before: Sequence[float], after: Sequence[float]) -> Mean:
    """Return after over before with a bootstrap interval over windows."""
    differences = mean([b - a for a, b in zip(before, after, strict=True)])
    return Mean(
        math.exp(differences.value),
        math.exp(differences.low),
        math.exp(differences.high),
        differences.n,
    )


@dataclass(frozen=True)
class _Beginning:
    """What all rows begin with, read once: how many tokens, and their cache; 0 and None if none."""

    tokens: int
    cache: Any


def _beginning(chat: ChatModel, rows: Sequence[tuple[tuple[int, ...], int]]) -> _Beginning:
    import torch

    if not rows:
        return _Beginning(0, None)
    before = min(len(ids) - length - 1 for ids, length in rows)  # of what foretells an answer
    tokens = min(before, common_prefix([ids for ids, _ in rows]))
    with torch.inference_mode():
        cache = shared_cache(chat.model, rows[0][0][:tokens], max(len(ids) for ids, _ in rows))
    return _Beginning(0 if cache is None else tokens, cache)


def _along_answers(
    chat: ChatModel, rows: Sequence[tuple[tuple[int, ...], int]], begun: _Beginning
) -> list[Any]:
    """Return (answer length, vocabulary) log-probabilities along each row's answer."""
    import torch

    results: list[Any] = [None] * len(rows)
    with torch.inference_mode():
        for places in plan([len(ids) for ids, _ in rows], 8):
            batch = Batch(chat.model, [rows[one][0] for one in places], begun.tokens, begun.cache)
            longest = max(rows[index][1] for index in places)
            told = accepted(chat.model, position_ids=batch.positions)
            told |= {} if begun.cache is None else {"past_key_values": batch.cache}
            logits = chat.model(
                batch.ids,
                attention_mask=batch.mask,
                use_cache=begun.cache is not None,
                **told,
                **last_positions(chat.model, batch.ids.shape[1], longest + 1),
            ).logits
            for place, index in enumerate(places):
                answer = logits[place, -rows[index][1] - 1 : -1].float()
                results[index] = answer.log_softmax(-1).cpu()
    return results


def make_reference(chat: ChatModel, answers: Sequence[Answer]) -> Reference:
    """Keep the original's distribution along its own answers; empty answers are left out."""
    rows = tuple(
        (tuple(chat.encode(answer.prompt)) + answer.tokens, len(answer.tokens))
        for answer in answers
        if answer.tokens
    )
    top = min(TOP, int(chat.model.config.get_text_config().vocab_size))
    values, indices = [], []
    begun = _beginning(chat, rows)
    for start in range(0, len(rows), 16):
        for log_probabilities in _along_answers(chat, rows[start : start + 16], begun):
            best = log_probabilities.topk(top)
            values.append(best.values)
            indices.append(best.indices)
    return Reference(rows, tuple(values), tuple(indices))


def divergence(chat: ChatModel, reference: Reference) -> list[float]:
    """Return the mean KL(original || `chat`) a token, in nats, one value a prompt."""
    import torch

    results = []
    begun = _beginning(chat, reference.rows)
    for start in range(0, len(reference.rows), 16):
        part = _along_answers(chat, reference.rows[start : start + 16], begun)
        for offset, treated in enumerate(part):
            original = reference.log_probabilities[start + offset]
            found = treated.gather(1, reference.candidates[start + offset])
            kept = original.exp()
            rest = (1 - kept.sum(1)).clamp(min=1e-6)
            other = torch.log1p(-found.exp().sum(1).clamp(max=1 - 1e-6))
            terms = (kept * (original - found)).sum(1) + rest * (rest.log() - other)
            results.append(max(0.0, float(terms.mean())))
    return results
