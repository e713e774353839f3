"""Text as patterns see it: words in one spelling, sentences, openings, and what is left of a
refusal when the request's own words are taken out.

Two refusals that differ only in typography or in a contraction ("can't", "cannot") are the same
pattern; "I cannot" and "I will not" are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

WORDS = 4  # of an opening
SOMETHING = "something"
_CONTRACTIONS = (
    (r"\bcan't\b|\bcan not\b", "cannot"),
    (r"\bwon't\b", "will not"),
    (r"\bshan't\b", "shall not"),
    (r"n't\b", " not"),
    (r"\bi'm\b", "i am"),
    (r"(?<=[a-z])'re\b", " are"),
    (r"(?<=[a-z])'ve\b", " have"),
    (r"(?<=[a-z])'ll\b", " will"),
    (r"(?<=[a-z])'d\b", " would"),
    (r"\blet's\b", "let us"),
    (r"\b(it|that|there|here|what|he|she)'s\b", r"\1 is"),
)
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_END = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])[\"')\]*\u201d]*\s+|\n+|(?<=[\u3002\uff01\uff1f])")
_COMMON = """
    a about above after all also am an and any are as at be been being but by can cannot could
    did do does doing for from had has have he her here him his how i if in into is it its just
    may me more most must my no nor not of on only or other our out over own she should so some
    such than that the their them then there these they this those to too under up us very was
    we were what when where which who whom why will with would you your
"""
_STOP_WORDS = frozenset(_COMMON.split())
_REFUSING = """
    advice answer answers apologize appropriate assist assistance assistant content create
    discriminatory dangerous ethical fulfill harmful help illegal inappropriate information
    instructions language model moral offensive person people private privacy programmed provide
    question request respond response safety safe sorry support unethical
"""
_OF_REFUSALS = frozenset(_REFUSING.split())
_ENGLISH_SHARE = 0.1
_STEM = 5


def spelled(text: str) -> str:
    """Return `text` in lower case, with plain apostrophes and without contractions."""
    plain = text.lower().replace("\u2019", "'").replace("\u2018", "'").replace("`", "'")
    for pattern, replacement in _CONTRACTIONS:
        plain = re.sub(pattern, replacement, plain)
    return plain


def words(text: str) -> list[str]:
    """Return the words of a text in one spelling."""
    return _WORD.findall(spelled(text))


def sentences(text: str) -> list[str]:
    """Return the sentences and lines of a text that hold a letter."""
    parts = (part.strip() for part in _END.split(text))
    return [part for part in parts if any(letter.isalpha() for letter in part)]


def opening(text: str, count: int = WORDS) -> str:
    """Return an answer's first `count` words in one spelling."""
    return " ".join(words(text)[:count])


def first_sentence(text: str) -> str:
    """Return an answer's first sentence in one spelling."""
    found = sentences(text)
    return " ".join(words(found[0])) if found else ""


def without_request(sentence: str, prompt: str) -> str:
    """Return a sentence in one spelling, runs of words that the request brought replaced.

    What is left says how it is refused, not what: else clusters would be of the requests' topics.
    A word is the request's where both begin with the same five letters (all of a shorter word, of
    four at least) and it is not one that refusals are made of.
    """
    is_of_request = of_request(prompt)
    kept: list[str] = []
    for word in words(sentence):
        if is_of_request(word):
            if kept[-1:] != [SOMETHING]:
                kept.append(SOMETHING)
        else:
            kept.append(word)
    return " ".join(kept)


def of_request(prompt: str) -> Callable[[str], bool]:
    """Return what tells whether a word, in one spelling, is the request's (`without_request`)."""
    asked = {word[:_STEM] for word in words(prompt) if _carries_meaning(word)}
    return lambda word: _carries_meaning(word) and word[:_STEM] in asked


def is_common(word: str) -> bool:
    """Return whether a word, in one spelling, is one of the commonest, which mean little alone."""
    return word in _STOP_WORDS


def _carries_meaning(word: str) -> bool:
    return len(word) >= 4 and word not in _STOP_WORDS and word not in _OF_REFUSALS


def seems_english(text: str) -> bool | None:
    """Return whether a text reads as English, by its letters and commonest words.

    None where it is too short to tell: fewer than twenty letters, or six words.
    """
    letters = [letter for letter in text if letter.isalpha()]
    if len(letters) < 20:
        return None
    if sum(letter.isascii() for letter in letters) < 0.7 * len(letters):
        return False
    found = words(text)
    if len(found) < 6:
        return None
    return sum(word in _STOP_WORDS for word in found) >= _ENGLISH_SHARE * len(found)


def foreign_share(texts: Sequence[str]) -> float:
    """Return the share of texts that do not read as English, of those that can be told."""
    told = [found for found in map(seems_english, texts) if found is not None]
    return told.count(False) / len(told) if told else 0.0
