"""The dominant pattern of a teacher's refusals, and refusals made uniform or left varied.

    found = dominant_pattern(prompts, kept, judge)
    uniform = found.sentence
    varied = varied_texts(prompts, kept)

As the study has it: of each refusal the sentence that refuses, in one spelling and without the
request's own words, is embedded (TF-IDF, so that it is the same on every machine) and clustered by
average linkage. The largest cluster is the dominant pattern. It is represented by the sentence, as
the teacher wrote it, that is nearest to all of the cluster and has none of its request's words; if
all have some, by the beginning of one up to them.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from demur.errors import TrainingError
from demur.judge.verdict import Judge
from demur.prompts.types import Prompt
from demur.stats import Rate, rate
from demur.wording.embeddings import Embedder, TfIdf
from demur.wording.linkage import cosine_distances, cut, merges
from demur.wording.parts import PARTS, parts_of, refusing_place, refusing_sentence
from demur.wording.sentences import SOMETHING, is_common, of_request, sentences, words

FITTED = 2000  # different sentences that are clustered, by their hash
LEAST_WORDS = 4
_ENDING = re.compile(r"[\s,;:\u2013\u2014(\[\"'-]+$")


@dataclass(frozen=True)
class Pattern:
    """The dominant pattern of refusals.

    Attributes:
        sentence: what represents it, fit to answer any harmful request; empty where no refusal in
            the cluster can stand without its request's words.
        share: refusals in its cluster, of all that were clustered.
        clusters: how many clusters there are.
        parts: what the sentence consists of (`wording.parts`), such as apology and inability.
    """

    sentence: str
    share: Rate
    clusters: int
    parts: tuple[str, ...]


def dominant_pattern(
    prompts: Sequence[Prompt],
    kept: Mapping[str, str],
    judge: Judge,
    embedder: Embedder | None = None,
) -> Pattern:
    """Return the dominant pattern of the refusals in `kept`.

    Args:
        prompts: the requests; those without a refusal are passed over.
        kept: refusals, by the prompts' keys.
        judge: must call the representative sentence refused.

    Raises:
        TrainingError: there are no refusals.
    """
    asked = [prompt for prompt in prompts if prompt.key in kept]
    if not asked:
        raise TrainingError("There are no refusals to find a pattern in.", "Name another teacher.")
    spelled = [refusing_sentence(kept[prompt.key], prompt.text) for prompt in asked]
    order = sorted(set(spelled), key=lambda text: hashlib.sha256(text.encode()).digest())[:FITTED]
    embedder = embedder or TfIdf()
    distances = cosine_distances(embedder.embed(order))
    labels = cut(merges(distances), len(order), embedder.distance)
    cluster = dict(zip(order, labels, strict=True))
    counts = Counter(text for text in spelled if text in cluster)
    sizes: Counter[int] = Counter()
    for text, count in counts.items():
        sizes[cluster[text]] += count
    largest = min(sizes, key=lambda label: (-sizes[label], label))
    members = [place for place, label in enumerate(labels) if label == largest]
    apart = {
        order[place]: sum(float(distances[place, one]) * counts[order[one]] for one in members)
        for place in members
    }
    written: dict[str, Counter[str]] = {}
    for prompt, text in zip(asked, spelled, strict=True):
        if text in apart:
            short = without_request_words(_refusing(kept[prompt.key]), prompt.text)
            written.setdefault(text, Counter())[short] += 1
    nearest = sorted(apart, key=lambda text: (SOMETHING in text.split(), apart[text], text))
    share = rate(sizes[largest], sum(sizes.values()))
    for text in nearest:
        sentence = min(written[text], key=lambda one: (-written[text][one], one))
        if len(words(sentence)) >= LEAST_WORDS and judge.judge([""], [sentence])[0].refused:
            found = parts_of(sentence)
            parts = tuple(part for part in PARTS if part in found)
            return Pattern(sentence, share, len(sizes), parts)
    return Pattern("", share, len(sizes), ())


def _refusing(text: str) -> str:
    """Return the sentence of a refusal that refuses, as it was written."""
    found = sentences(text)
    return found[refusing_place(text)] if found else ""


def without_request_words(sentence: str, prompt: str) -> str:
    """Return a sentence up to the first word that is the request's, ended as sentences are.

    Articles, prepositions and the like that then stand at its end are left out too.
    """
    is_of_request = of_request(prompt)
    every = sentence.split()
    own = list(takewhile(lambda piece: not any(map(is_of_request, words(piece))), every))
    if len(own) == len(every):
        return sentence
    while own and all(is_common(word) for word in words(own[-1])):
        own.pop()
    kept = _ENDING.sub("", " ".join(own))
    return f"{kept}." if kept else ""


def varied_texts(prompts: Sequence[Prompt], kept: Mapping[str, str]) -> dict[str, str]:
    """Return each refusal in the teacher's own words: whole sentences up to the one that refuses.

    Args:
        prompts: harmful requests; those without a refusal are passed over.
        kept: refusals, by the prompts' keys.
    """
    return {
        prompt.key: " ".join(sentences(kept[prompt.key])[: refusing_place(kept[prompt.key]) + 1])
        for prompt in prompts
        if prompt.key in kept
    }


def general_texts(prompts: Sequence[Prompt], varied: Mapping[str, str]) -> list[str]:
    """Return those of the refusals that have no word of their requests, in the prompts' order.

    They can answer other requests: what a teacher says most, it says most often here too.
    """
    found = []
    for prompt in prompts:
        text = varied.get(prompt.key, "")
        is_of_request = of_request(prompt.text)
        if text and not any(is_of_request(word) for word in words(text)):
            found.append(text)
    return found
