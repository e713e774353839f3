"""What a study finds, in frozen values: what the report, the console and `study.json` show.

No request and no answer is in here: only openings of a few words, and refusing sentences from which
the requests' words were taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from demur.stats import Rate
from demur.study.correlation import Correlation
from demur.study.entropy import Uniformity
from demur.study.security import Security
from demur.study.source import How
from demur.wording.clusters import Clustering

PATTERNS = ("openings", "clusters", "sentences")


@dataclass(frozen=True)
class Frequency:
    """How often a source's refusals have one pattern."""

    text: str
    rate: Rate


@dataclass(frozen=True)
class SourceFindings:
    """What was found of one source.

    Attributes:
        name, how, origin, notes: as in `Source`; notes of the study's are added.
        answers: to direct requests.
        undecided: of them, neither refusal nor answer.
        security: its rates.
        refusals: direct answers that refuse; patterns are of these.
        median_words: the median number of words of a refusal.
        finished: share of refusals that the model itself ended; n = 0 where it is not known.
        openings: the commonest openings, at most ten.
        parts: share of refusals that have each part; None where the answers are not in English.
        uniformity: of openings, of clusters and of whole first sentences; None for each where there
            are too few refusals.
    """

    name: str
    how: How
    origin: str
    notes: tuple[str, ...]
    answers: int
    undecided: int
    security: Security
    refusals: int
    median_words: float
    finished: Rate
    openings: tuple[Frequency, ...]
    parts: Mapping[str, Rate] | None
    uniformity: Mapping[str, Uniformity | None]


@dataclass(frozen=True)
class PremiseTest:
    """One correlation over sources.

    Attributes:
        key: short name.
        reading: `paper` (uniform is secure), `opposite` (uniform is brittle) or `control`.
        first, second: the two figures, in words.
        expected: the sign that the reading expects: `positive`, `negative`; `none` of controls.
        scope: `all sources`, or `same requests`.
        names: the sources that have both figures.
        correlation: what came out.
        adjusted_p: Holm's over all tests of the study that could be made; NaN where this could not.
    """

    key: str
    reading: str
    first: str
    second: str
    expected: str
    scope: str
    names: tuple[str, ...]
    correlation: Correlation
    adjusted_p: float


@dataclass(frozen=True)
class Findings:
    """What a study finds.

    Attributes:
        created: day, `2026-01-31`.
        command: makes this study again.
        judge, judge_name: who judged.
        embedder, embedder_name: how sentences became vectors.
        opening_words: of an opening.
        rarefied_to: refusals that uniformity is compared at; 0 where no source has enough.
        sources: in the order given.
        clusterings: at a lower threshold, at the threshold itself, and at a higher one.
        tests: the premise and its opposite.
        conclusion: what the tests allow to say, one sentence each.
        versions: python, libraries, platform.
    """

    created: str
    command: str
    judge: str
    judge_name: str
    embedder: str
    embedder_name: str
    opening_words: int
    rarefied_to: int
    sources: tuple[SourceFindings, ...]
    clusterings: tuple[Clustering, ...]
    tests: tuple[PremiseTest, ...]
    conclusion: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]

    @property
    def clustering(self) -> Clustering | None:
        """The one at the embedder's own threshold."""
        return self.clusterings[len(self.clusterings) // 2] if self.clusterings else None
