"""Near-duplicates: which prompts of one list say nearly the same as one of another.

Texts are normalised (Unicode compatibility form, lower case, letters and digits only) and cut
into overlapping word trigrams and character 5-grams ("shingles", Broder 1997). The similarity of
two texts is the larger of the Jaccard coefficients of the two kinds of shingles: words find
reordered sentences, characters find typos. An inverted index with the prefix filter of
Chaudhuri et al. (2006) finds the pairs exactly, without comparing everything with everything.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

_SEPARATORS = re.compile(r"[\W_]+")
_APOSTROPHES = re.compile(r"['\u2019\u02bc`]")
WORDS = 3
CHARACTERS = 5
THRESHOLD = 0.6


class NearDuplicate(NamedTuple):
    """Item `left` of the first list and item `right` of the second, with similarity in [0, 1]."""

    left: int
    right: int
    similarity: float


def normalise(text: str) -> str:
    """Return the text in lower case with single blanks for all that is no letter or digit."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _SEPARATORS.sub(" ", _APOSTROPHES.sub("", folded)).strip()


def word_shingles(text: str) -> frozenset[str]:
    """Return the word trigrams of a normalised text; of a shorter text, the text itself."""
    words = text.split()
    if len(words) < WORDS:
        return frozenset({text} if text else ())
    return frozenset(" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1))


def character_shingles(text: str) -> frozenset[str]:
    """Return the character 5-grams of a normalised text; of a shorter text, the text itself."""
    if len(text) < CHARACTERS:
        return frozenset({text} if text else ())
    return frozenset(text[i : i + CHARACTERS] for i in range(len(text) - CHARACTERS + 1))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the size of the intersection over the size of the union; 0 if both are empty."""
    common = len(left & right)
    union = len(left) + len(right) - common
    return common / union if union else 0.0


def similarity(left: str, right: str) -> float:
    """Return how alike two texts are, in [0, 1]; 1 means equal after normalisation."""
    first, second = normalise(left), normalise(right)
    if first == second:
        return 1.0
    return max(
        jaccard(word_shingles(first), word_shingles(second)),
        jaccard(character_shingles(first), character_shingles(second)),
    )


def near_duplicates(
    left: Sequence[str], right: Sequence[str] | None, threshold: float = THRESHOLD
) -> list[NearDuplicate]:
    """Return all pairs of texts across two lists whose similarity is at least `threshold`.

    Args:
        left: texts.
        right: texts to compare them with; None to compare the texts of `left` with one another.
        threshold: in (0, 1].

    Returns:
        One entry a pair, ordered by its position in `left`, then in `right`; with `right` None,
        each pair once and `left` before `right`.

    Raises:
        ValueError: `threshold` is outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError("the threshold must be above 0 and at most 1")
    first = [normalise(text) for text in left]
    second = None if right is None else [normalise(text) for text in right]
    best: dict[tuple[int, int], float] = {}
    for cut in (word_shingles, character_shingles):
        others = None if second is None else [cut(text) for text in second]
        for i, j, value in _join([cut(text) for text in first], others, threshold):
            best[i, j] = max(value, best.get((i, j), 0.0))
    return [NearDuplicate(i, j, value) for (i, j), value in sorted(best.items())]


def _join(
    left: list[frozenset[str]], right: list[frozenset[str]] | None, threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Yield the index pairs whose Jaccard coefficient is at least `threshold`.

    Two sets of sizes m and n that are so alike share one of the m - ceil(threshold * m) + 1
    rarest shingles of the one and one of the n - ceil(threshold * n) + 1 rarest of the other,
    rare in one order for all; so only those are looked up.
    """
    frequency = Counter(chain.from_iterable(chain(left, right or ())))
    order = sorted(frequency, key=lambda shingle: (frequency[shingle], shingle))
    rank = {shingle: place for place, shingle in enumerate(order)}

    def ranked(item: frozenset[str]) -> tuple[frozenset[int], list[int]]:
        places = sorted(map(rank.__getitem__, item))
        count = len(places) - math.ceil(threshold * len(places) - 1e-9) + 1
        return frozenset(places), places[:count] if places else []

    index: dict[int, list[int]] = defaultdict(list)
    first = [ranked(item) for item in left]
    second = first if right is None else [ranked(item) for item in right]

    def enter(j: int) -> None:
        for place in second[j][1]:
            index[place].append(j)

    def matches(mine: frozenset[int], rarest: list[int]) -> Iterator[tuple[int, float]]:
        size = len(mine)
        for j in set[int]().union(*(index[place] for place in rarest if place in index)):
            theirs = second[j][0]
            other = len(theirs)
            if threshold * other <= size and threshold * size <= other:
                common = len(mine & theirs)
                value = common / (size + other - common)
                if value >= threshold:
                    yield j, value

    if right is not None:
        for j in range(len(second)):
            enter(j)
    for i, item in enumerate(first):
        for j, value in matches(*item):
            yield (j, i, value) if right is None else (i, j, value)
        if right is None:  # only earlier texts are in the index, so each pair is met once
            enter(i)
