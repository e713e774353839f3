"""What the rows come to over all recipients, and how the graft stands against each other row.

* A row's gain is the treated recipient's rate less the untouched one's, on the same prompts; its
  mean over recipients has a bootstrap interval over recipients.
* The exact paired test is a sign test over prompts: for each test prompt, in how many recipients
  the graft refuses it, against in how many the other row does. A prompt counts once however many
  recipients were asked it. Its p-values are adjusted by Holm over the rows compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demur.benching.grafts.result import LOST, Result, of_row
from demur.measure.power import holm
from demur.stats import Mean, mcnemar, mean

UNTOUCHED, GRAFT = "untouched", "open"


@dataclass(frozen=True)
class Summary:
    """One row over the recipients that have it and were measured untouched.

    Attributes:
        gains: by probe, mean gain in the share refused, with its interval over recipients.
        least, most: the smallest and the largest gain on harmful requests.
        score: mean of harmful requests refused less twins and ordinary instructions refused.
        perplexity: mean ratio to the untouched recipient.
        divergence: mean KL, nats a token.
        share, touched, seconds: means; passes too.
    """

    row: str
    title: str
    recipients: int
    gains: dict[str, Mean]
    least: float
    most: float
    score: Mean
    perplexity: Mean
    divergence: Mean
    share: float
    touched: float
    passes: float | None
    seconds: float


@dataclass(frozen=True)
class Contest:
    """The graft against one other row, on the recipients that have both.

    Attributes:
        harmful: mean difference in the share of harmful requests refused, over recipients.
        score: mean difference of the score; see `Summary`.
        better, worse: recipients on which the graft's score is higher, or lower.
        more, fewer: harmful prompts that it refuses in more, or in fewer, recipients.
        p_value, p_holm: of the sign test on these; adjusted.
        spared, hit: benign prompts that it refuses in fewer, or in more, recipients.
        p_benign, p_benign_holm: of the sign test on these; adjusted.
    """

    row: str
    title: str
    recipients: int
    harmful: Mean
    score: Mean
    better: int
    worse: int
    more: int
    fewer: int
    p_value: float
    p_holm: float
    spared: int
    hit: int
    p_benign: float
    p_benign_holm: float


def summaries(results: Sequence[Result]) -> tuple[Summary, ...]:
    """Return what each row comes to, in the order in which the rows came."""
    untouched = of_row(results, UNTOUCHED)
    found = []
    for row in dict.fromkeys(one.row for one in results):
        own = [one for one in of_row(results, row).values() if one.recipient in untouched]
        if own:
            found.append(_summary(own, untouched))
    return tuple(found)


def _summary(own: Sequence[Result], untouched: dict[str, Result]) -> Summary:
    keys = list(dict.fromkeys(key for one in own for key in one.refused))
    gains = {
        key: [one.rate(key) - untouched[one.recipient].rate(key) for one in own] for key in keys
    }
    harmful = gains.get("harmful", [0.0])
    count, passes = len(own), [one.passes for one in own]
    return Summary(
        own[0].row,
        own[0].title,
        count,
        {key: mean(values) for key, values in gains.items()},
        min(harmful),
        max(harmful),
        mean([one.score for one in own]),
        mean([one.perplexity_ratio["value"] for one in own]),
        mean([one.divergence["value"] for one in own]),
        sum(one.share for one in own) / count,
        sum(one.touched for one in own) / count,
        None if None in passes else sum(one or 0 for one in passes) / count,
        sum(one.seconds for one in own) / count,
    )


def contests(results: Sequence[Result]) -> tuple[Contest, ...]:
    """Return how the graft stands against each other row; none where there is no graft."""
    graft = of_row(results, GRAFT)
    pairs: list[tuple[list[Result], list[Result]]] = []
    for row in dict.fromkeys(one.row for one in results if one.row != GRAFT):
        others = of_row(results, row)
        both = [name for name in graft if name in others]
        if both:
            pairs.append(([graft[name] for name in both], [others[name] for name in both]))
    harmful = [_signs(ours, theirs, ("harmful",)) for ours, theirs in pairs]
    benign = [_signs(ours, theirs, LOST) for ours, theirs in pairs]
    p_harmful = [mcnemar(*signs) for signs in harmful]
    p_benign = [mcnemar(*signs) for signs in benign]
    adjusted, adjusted_benign = holm(p_harmful), holm(p_benign)
    found = []
    for place, (ours, theirs) in enumerate(pairs):
        scores = [a.score - b.score for a, b in zip(ours, theirs, strict=True)]
        (more, fewer), (hit, spared) = harmful[place], benign[place]
        rates = [a.rate("harmful") - b.rate("harmful") for a, b in zip(ours, theirs, strict=True)]
        found.append(
            Contest(
                theirs[0].row,
                theirs[0].title,
                len(ours),
                mean(rates),
                mean(scores),
                sum(one > 1e-9 for one in scores),
                sum(one < -1e-9 for one in scores),
                more,
                fewer,
                p_harmful[place],
                adjusted[place],
                spared,
                hit,
                p_benign[place],
                adjusted_benign[place],
            )
        )
    return tuple(found)


def _signs(
    ours: Sequence[Result], theirs: Sequence[Result], keys: Sequence[str]
) -> tuple[int, int]:
    """Return how many prompts are refused in more recipients by us, and how many by them."""
    more = fewer = 0
    for key in keys:
        for left, right in zip(_counts(ours, key), _counts(theirs, key), strict=True):
            more += left > right
            fewer += left < right
    return more, fewer


def _counts(results: Sequence[Result], key: str) -> list[int]:
    """Return in how many recipients each prompt of a probe is refused."""
    columns = zip(*(one.refused.get(key, []) for one in results), strict=True)
    return [sum(column) for column in columns]
