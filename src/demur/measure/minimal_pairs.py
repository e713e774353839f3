"""BLiMP: does the model find the grammatical sentence of a pair likelier? (Warstadt et al. 2020)

A utility measure that tells small models apart, since it needs neither knowledge nor a chat. The
log-likelihood of a whole sentence is summed over its tokens, after the token that texts begin with
(BOS, or EOS for models without one); a pair counts as right where the good sentence's sum is the
larger. A tie counts as wrong.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from demur.errors import ModelError, PromptError
from demur.models.batch import plan
from demur.models.chat_model import ChatModel
from demur.models.forward import accepted
from demur.run.journal import content_key

ROWS, BUDGET = 64, 4096


@dataclass(frozen=True)
class MinimalPair:
    """One pair: `paradigm` is the phenomenon, as BLiMP names it."""

    paradigm: str
    good: str
    bad: str


def read_pairs(source: Path, n: int | None = None) -> tuple[MinimalPair, ...]:
    """Read pairs from BLiMP's zip, a folder of its files, or one of its JSON-lines files.

    Args:
        n: at most so many pairs, as many of each paradigm as of any other, the first of each.

    Raises:
        PromptError: it cannot be read, or holds no pairs.
    """
    by_paradigm: dict[str, list[MinimalPair]] = {}
    for name, text in _texts(source):
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                pair = _pair(line, name, number)
                by_paradigm.setdefault(pair.paradigm, []).append(pair)
    if not by_paradigm:
        raise PromptError(
            f"{source} holds no minimal pairs.",
            "Give BLiMP's zip with --blimp, or a file of rows with sentence_good and sentence_bad.",
        )
    groups = [by_paradigm[name] for name in sorted(by_paradigm)]
    total = sum(map(len, groups))
    most = total if n is None else min(n, total)
    rounds = max(map(len, groups))
    ordered = [group[i] for i in range(rounds) for group in groups if i < len(group)]
    return tuple(ordered[:most])


def _texts(source: Path) -> list[tuple[str, str]]:
    try:
        if source.is_dir():
            paths = sorted(source.glob("*.jsonl"))
            return [(path.name, path.read_text(encoding="utf-8")) for path in paths]
        if source.suffix.lower() == ".zip":
            with zipfile.ZipFile(source) as archive:
                names = [
                    name
                    for name in sorted(archive.namelist())
                    if name.endswith(".jsonl") and not PurePosixPath(name).name.startswith(".")
                    and "__MACOSX" not in name
                ]  # fmt: skip
                return [(name, archive.read(name).decode("utf-8")) for name in names]
        return [(source.name, source.read_text(encoding="utf-8"))]
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile, RuntimeError) as error:
        raise PromptError(
            f"The minimal pairs {source} cannot be read ({error}).",
            "Give BLiMP's zip, a folder of its files, or one of them with --blimp.",
        ) from error


def _pair(line: str, name: str, number: int) -> MinimalPair:
    try:
        row = json.loads(line)
        good, bad = row["sentence_good"], row["sentence_bad"]
        if not (isinstance(good, str) and isinstance(bad, str) and good and bad):
            raise ValueError("empty sentences")
    except (ValueError, KeyError, TypeError) as error:
        raise PromptError(
            f"{name}, line {number}: not a minimal pair ({error}).",
            "Each line needs sentence_good and sentence_bad.",
        ) from error
    return MinimalPair(str(row.get("UID") or PurePosixPath(name).stem), good, bad)


def pairs_key(pairs: Sequence[MinimalPair]) -> str:
    """Return a hash of pairs, for a journal."""
    return content_key([[pair.good, pair.bad] for pair in pairs])


def judge_pairs(
    chat: ChatModel,
    pairs: Sequence[MinimalPair],
    advance: Callable[[int], None] = lambda count: None,
) -> list[bool]:
    """Return for each pair whether the model finds the good sentence likelier.

    Raises:
        ModelError: the tokenizer has neither a BOS nor an EOS token.
    """
    texts = [text for pair in pairs for text in (pair.good, pair.bad)]
    sums = log_likelihoods(chat, texts, lambda count: advance(count))
    return [good > bad for good, bad in zip(sums[::2], sums[1::2], strict=True)]


def log_likelihoods(
    chat: ChatModel,
    texts: Sequence[str],
    advance: Callable[[int], None] = lambda count: None,
) -> list[float]:
    """Return the summed log-likelihood of each text, in nats, after the token texts begin with."""
    import torch

    tokenizer: Any = chat.tokenizer
    first = tokenizer.bos_token_id
    first = tokenizer.eos_token_id if first is None else first
    if first is None:
        raise ModelError(
            f"The tokenizer of {chat.folder.name} has neither a BOS nor an EOS token, so that a "
            "sentence has nothing to begin after.",
            "Leave --blimp out for this model.",
        )
    encoded = tokenizer(list(texts), add_special_tokens=False).input_ids
    rows = [[first, *ids] for ids in encoded]
    sums = [0.0] * len(rows)
    with torch.inference_mode():
        for batch in plan([len(row) for row in rows], ROWS, BUDGET):
            width = max(len(rows[index]) for index in batch)
            ids = torch.zeros((len(batch), width), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for place, index in enumerate(batch):  # padded on the right, so positions are as usual
                ids[place, : len(rows[index])] = torch.tensor(rows[index])
                mask[place, : len(rows[index])] = 1
            ids, mask = ids.to(chat.model.device), mask.to(chat.model.device)
            logits = chat.model(
                ids, attention_mask=mask, **accepted(chat.model, use_cache=False)
            ).logits[:, :-1]
            found = logits.float().log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
            totals = (found * mask[:, 1:]).sum(1).tolist()
            for index, total in zip(batch, totals, strict=True):
                sums[index] = float(total)
            advance(len(batch))
    return sums
