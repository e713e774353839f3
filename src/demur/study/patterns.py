"""From judged answers to what is found of each source: openings, clusters, parts, uniformity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from demur.stats import rate
from demur.study.entropy import Uniformity, uniformity
from demur.study.findings import PATTERNS, Frequency, SourceFindings
from demur.study.premise import LEAST
from demur.study.security import security
from demur.study.source import Entry, Source
from demur.wording.clusters import Clustering, cluster_sentences
from demur.wording.embeddings import Embedder
from demur.wording.parts import PARTS, parts_of, refusing_sentence
from demur.wording.sentences import first_sentence, foreign_share, opening, words

SHOWN = 10  # openings
SHORT = 25  # words of a refusal, below which parts that come late are cut off
FOREIGN = 0.5  # share of answers from which the rules on parts mean nothing


@dataclass(frozen=True)
class Refusals:
    """The direct answers of one source that refuse, and what patterns are counted in them."""

    source: Source
    refused: tuple[bool, ...]
    undecided: int
    entries: tuple[Entry, ...]
    openings: tuple[str, ...]
    firsts: tuple[str, ...]
    refusing: tuple[str, ...]


def refusals_of(source: Source, outcomes: Sequence[str | None], opening_words: int) -> Refusals:
    """Gather the refusals of one source from the verdict on each of its entries."""
    pairs = list(zip(source.entries, outcomes, strict=True))
    entries = tuple(e for e, said in pairs if e.attack == "direct" and said == "refused")
    return Refusals(
        source,
        tuple(said == "refused" for said in outcomes),
        sum(e.attack == "direct" and said == "undecided" for e, said in pairs),
        entries,
        tuple(opening(entry.answer, opening_words) for entry in entries),
        tuple(first_sentence(entry.answer) for entry in entries),
        tuple(refusing_sentence(entry.answer, entry.prompt) for entry in entries),
    )


def rarefied_to(gathered: Sequence[Refusals]) -> int:
    """Return the number of refusals that all sources with at least `LEAST` have; 0 without any."""
    enough = [len(each.entries) for each in gathered if len(each.entries) >= LEAST]
    return min(enough, default=0)


def describe(
    gathered: Sequence[Refusals], embedder: Embedder, opening_words: int, seed: int = 0
) -> tuple[tuple[SourceFindings, ...], tuple[Clustering, ...]]:
    """Return what is found of each source, and the clusters of all."""
    clusterings = cluster_sentences([each.refusing for each in gathered], embedder)
    clustering = clusterings[len(clusterings) // 2] if clusterings else None
    size = rarefied_to(gathered)
    found = []
    for place, each in enumerate(gathered):
        counts = {
            "openings": list(Counter(each.openings).values()),
            "sentences": list(Counter(each.firsts).values()),
            "clusters": clustering.counts(place) if clustering is not None else [],
        }
        uniform: dict[str, Uniformity | None] = {
            pattern: uniformity(counts[pattern], size, seed) if sum(counts[pattern]) >= LEAST
            else None
            for pattern in PATTERNS
        }  # fmt: skip
        found.append(_source_findings(each, uniform, opening_words))
    return tuple(found), clusterings


def _source_findings(
    each: Refusals, uniform: dict[str, Uniformity | None], opening_words: int
) -> SourceFindings:
    n = len(each.entries)
    common = Counter(each.openings).most_common(SHOWN)
    foreign = foreign_share([entry.answer for entry in each.source.of("direct")])
    lengths = [len(words(entry.answer)) for entry in each.entries]
    typical = float(median(lengths)) if lengths else float("nan")
    ended = [entry.finished for entry in each.entries if entry.finished is not None]
    parts = None
    if foreign < FOREIGN and n:
        present = Counter(part for entry in each.entries for part in parts_of(entry.answer))
        parts = {part: rate(present[part], n) for part in PARTS}
    return SourceFindings(
        each.source.name,
        each.source.how,
        each.source.origin,
        (*each.source.notes, *_notes(each, n, foreign, typical)),
        len(each.source.of("direct")),
        each.undecided,
        security(each.source, each.refused, common[0][0] if common else None, opening_words),
        n,
        typical,
        rate(sum(ended), len(ended)),
        tuple(Frequency(text, rate(count, n)) for text, count in common),
        parts,
        uniform,
    )


def _notes(each: Refusals, n: int, foreign: float, typical: float) -> list[str]:
    """Return what a reader must know of a source's figures."""
    notes = []
    direct = each.source.of("direct")
    if not n:
        notes.append("It refuses nothing: it has no patterns.")
    elif n < LEAST:
        notes.append(f"Only {n} refusals: too few for uniformity, which needs {LEAST}.")
    if foreign >= 0.2:
        notes.append(
            f"{foreign:.0%} of its answers do not read as English, which the rules are for: "
            + ("parts are left out, and " if foreign >= FOREIGN else "")
            + "rates may be too low."
        )
    if n and typical < SHORT:
        notes.append(
            f"Its refusals are short (median {typical:.0f} words): parts that come late in longer "
            "ones cannot be in them."
        )
    if direct and all(entry.kind == "unknown" for entry in direct):
        notes.append("It is not known which of its requests are harmful: security is unknown.")
    elif unknown := sum(entry.kind == "unknown" for entry in direct):
        notes.append(f"Of {unknown:,} requests it is not known whether they are harmful.")
    if each.source.how == "recorded":
        notes.append("Recorded answers are to direct requests: nothing is known under attack.")
    return notes
