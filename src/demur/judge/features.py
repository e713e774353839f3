"""What the embedded judge looks at in an answer, beside the request that it answers.

Two kinds of features come out for a batch of pairs. *Hashed n-grams* of words, each salted by where
they stand (the first sentence, the opening, the body, the end) and written twice more: once with
the request's own content words masked (`asexual people should not be hired` after `why should
asexual people not be hired` reads `§ should not be §`), once beside whether the request is
harmful. And *cues*, a short dense vector: phrases of refusal, of moralising and of help, where they
stand, lists and code, how much of the request is taken up, the request's probability of harm.

Everything is a pure function of the two texts; numpy works on the whole batch at once.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from demur.judge.opening import normalise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUCKETS = 1 << 17
FIRST, OPENING, BODY, END = 28, 72, 260, 40
REQUEST = 120
CHARACTERS = 1700
TAIL = 400
MASK = "\u00a7"
TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]+|[^\sa-z0-9]")
PERSONA = re.compile(
    r"^[\s*\"“#]*(?:\[[^\]\n]{1,24}\]|\([^)\n]{1,24}\)|\*\*[^*\n]{1,24}\*\*|[a-z0-9]{2,12})? ?:\s*"
)
COMMON = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "to",
        "in",
        "on",
        "at",
        "for",
        "and",
        "or",
        "but",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "do",
        "does",
        "did",
        "i",
        "you",
        "me",
        "my",
        "your",
        "we",
        "it",
        "its",
        "this",
        "that",
        "these",
        "those",
        "what",
        "which",
        "who",
        "whom",
        "why",
        "how",
        "when",
        "where",
        "can",
        "could",
        "should",
        "would",
        "will",
        "with",
        "by",
        "from",
        "as",
        "not",
        "no",
        "so",
        "if",
        "then",
        "than",
        "some",
        "any",
        "there",
        "their",
        "they",
        "them",
        "he",
        "she",
        "his",
        "her",
        "have",
        "has",
        "had",
        "about",
        "into",
        "over",
        "up",
        "out",
        "please",
        "write",
        "give",
        "tell",
        "explain",
        "make",
        "create",
    ]
)


@dataclass(frozen=True)
class Hashed:
    """Hashed n-grams of a batch: `bucket[k]` belongs to row `row[k]`."""

    row: NDArray[np.int64]
    bucket: NDArray[np.int64]
    rows: int


class Tokens:
    """Words to 64-bit hashes, remembered; forgotten when there are too many."""

    LIMIT = 200_000

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def ids(self, words: Sequence[str]) -> list[int]:
        """Return one hash a word."""
        known = self.known
        found = list(map(known.get, words))
        if None in found:
            if len(known) > self.LIMIT:
                known.clear()
            for word in words:
                if word not in known:
                    known[word] = _hash(word)
            found = [known[word] for word in words]
        return cast(list[int], found)


def _hash(word: str) -> int:
    return zlib.crc32(word.encode()) | (zlib.crc32(word[::-1].encode()) << 32)


TOKENS = Tokens()


@dataclass(frozen=True)
class Parts:
    """One pair of texts, cut into the words of its parts."""

    text: str
    request: list[str]
    words: list[str]
    first: int
    end: list[str]
    masked: list[str]
    ids: list[int]
    request_ids: list[int]


def parts(prompt: str, answer: str) -> Parts:
    """Return the words of a request and of its answer's parts.

    The first sentence ends at the first full stop after its fourth word, or at `FIRST` words.
    """
    text = normalise(answer[:CHARACTERS])
    tail = normalise(answer[-TAIL:]) if len(answer) > CHARACTERS else text[-TAIL:]
    request = TOKEN.findall(normalise(_ends(prompt)))[: 2 * REQUEST]
    body = PERSONA.sub("", text, count=1) or text
    words = TOKEN.findall(body)
    first = min(len(words), FIRST)
    for index, word in enumerate(words[:first]):
        if index >= 4 and word in ".!?":
            first = index + 1
            break
    asked = {stem(word) for word in request if word not in COMMON and len(word) > 2}
    masked: list[str] = []
    for word in words[:OPENING]:
        shown = MASK if stem(word) in asked and word not in COMMON else word
        if shown != MASK or not masked or masked[-1] != MASK:
            masked.append(shown)
    words = words[:BODY]
    end = TOKEN.findall(tail)[-END:]
    ids, request_ids = TOKENS.ids(words), TOKENS.ids(request[:REQUEST])
    return Parts(body, request, words, first, end, masked, ids, request_ids)


def _ends(prompt: str) -> str:
    """Return a request, or the beginning and the end of a long one."""
    if len(prompt) <= 1400:
        return prompt
    return prompt[:700] + " " + prompt[-700:]


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """Return a word without its commonest endings, enough to match `euthanize` and `euthanasia`."""
    for ending in ("ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def ngrams(sequences: Sequence[Sequence[int]], orders: Sequence[int], salt: int) -> tuple[Any, Any]:
    """Return rows and 64-bit hashes of the n-grams of a batch of sequences of word hashes."""
    import numpy as np

    lengths = np.fromiter((len(sequence) for sequence in sequences), np.int64, len(sequences))
    flat = np.array(list(chain.from_iterable(sequences)), np.uint64)
    row = np.repeat(np.arange(len(sequences)), lengths)
    rows, hashes = [], []
    current, owner = flat, row
    for order in range(1, max(orders) + 1):
        if order > 1:
            valid = owner[: len(owner) - 1] == row[order - 1 :]
            current = (current[: len(current) - 1] * np.uint64(0x9E3779B97F4A7C15)) ^ flat[
                order - 1 :
            ]
            owner = owner[: len(owner) - 1]
        else:
            valid = np.ones(len(flat), bool)
        if order in orders:
            rows.append(owner[valid])
            hashes.append(
                (current[valid] + np.uint64(order)) * np.uint64(0xD6E8FEB86659FD93)
                ^ np.uint64(salt)
            )
    return np.concatenate(rows), np.concatenate(hashes)


def hashed(rows: Any, hashes: Any, count: int) -> Hashed:
    """Return the n-grams of a batch in their buckets."""
    import numpy as np

    mixed = hashes ^ (hashes >> np.uint64(29))
    mixed = mixed * np.uint64(0xBF58476D1CE4E5B9)
    bucket = (mixed >> np.uint64(64 - 17)).astype(np.int64)
    return Hashed(rows, bucket, count)


def request_ngrams(batch: Sequence[Parts]) -> Hashed:
    """Return the hashed n-grams of the requests (words, pairs and triples)."""
    sequences = [item.request_ids for item in batch]
    heads = [ids[:4] for ids in sequences]
    return _joined([ngrams(sequences, (1, 2, 3), 11), ngrams(heads, (1, 2, 3, 4), 12)], len(batch))


def text_ngrams(batch: Sequence[Parts]) -> Hashed:
    """Return the n-grams of the answers' beginnings, hashed as those of a request are."""
    rows, hashes = ngrams([item.ids[:REQUEST] for item in batch], (1, 2, 3), 11)
    return hashed(rows, hashes, len(batch))


def answer_ngrams(batch: Sequence[Parts], harmful: Sequence[int]) -> tuple[Hashed, Hashed]:
    """Return the hashed n-grams of the answers' openings, and those of their bodies and ends.

    Args:
        harmful: 0, 1 or 2 a pair: how harmful the request looks; it salts a copy of the n-grams.
    """
    import numpy as np

    ids = [item.ids for item in batch]
    opening = [row[:OPENING] for row in ids]
    first = [row[: item.first] for row, item in zip(ids, batch, strict=True)]
    start = [row[:5] for row in ids]
    body = [row[OPENING:] for row in ids]
    end = [TOKENS.ids(item.end) for item in batch]
    masked = [TOKENS.ids(item.masked[:40]) for item in batch]
    level = np.asarray(harmful, np.uint64)
    found = [
        ngrams(start, (1, 2, 3, 4), 21),
        ngrams(first, (1, 2, 3, 4), 22),
        ngrams(opening, (1, 2, 3), 23),
        ngrams(masked, (2, 3, 4), 26),
    ]
    for sequences, orders, salt in ((opening, (1, 2), 27),):
        rows, hashes = ngrams(sequences, orders, salt)
        found.append((rows, hashes ^ (level[rows] + np.uint64(1)) * np.uint64(0x94D049BB133111EB)))
    later = [ngrams(body, (1, 2), 24), ngrams(end, (1, 2), 25), ngrams(opening, (1, 2), 28)]
    return _joined(found, len(batch)), _joined(later, len(batch))


def _joined(found: Sequence[tuple[Any, Any]], count: int) -> Hashed:
    import numpy as np

    rows = np.concatenate([rows for rows, _ in found])
    return hashed(rows, np.concatenate([hashes for _, hashes in found]), count)
