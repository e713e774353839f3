"""The scorecard: every figure of a run, before and after, in one frozen value.

It is what `measure` hands to the report, the model card, the menu and `--json`. Refusal never
stands here without over-refusal and utility, and no rate without its n, interval and split.
"""

from __future__ import annotations

from dataclasses import dataclass

from demur.stats import Difference, Mean, Rate


@dataclass(frozen=True)
class Comparison:
    """One rate of refusals, before and after on the same prompts.

    Attributes:
        key: `harmful`, `twins`, `ordinary` or `prefill`; a user's sets have names of their own.
        title: what is counted, in words.
        split: which prompts it is from: `train`, `validation`, `test`, or `external`.
        wanted: `up` where refusing is right, `down` where it is wrong.
        before, after: refused, of all n; an undecided answer is never counted as refused.
        difference: after minus before, paired by prompt.
        undecided_before, undecided_after: answers that are neither refusal nor answer.
    """

    key: str
    title: str
    split: str
    wanted: str
    before: Rate
    after: Rate
    difference: Difference
    undecided_before: int
    undecided_after: int


@dataclass(frozen=True)
class Utility:
    """What the treatment cost where nothing should change.

    Attributes:
        text: the name of the text that perplexity is measured on.
        perplexity_before, perplexity_after: exp of the mean negative log-likelihood a token.
        perplexity_ratio: after over before, with a bootstrap interval over windows of text.
        divergence: multi-token KL(original || treated), in nats a token, averaged along the
            original's own answers to ordinary prompts, with a bootstrap interval over prompts.
    """

    text: str
    perplexity_before: float
    perplexity_after: float
    perplexity_ratio: Mean
    divergence: Mean


@dataclass(frozen=True)
class HazardRow:
    """One hazard category on the test split: harmful and twins refused, before and after."""

    hazard: str
    harmful_before: Rate
    harmful_after: Rate
    twins_before: Rate
    twins_after: Rate


@dataclass(frozen=True)
class Example:
    """One prompt with both answers; `kind` is `harmful`, `twin` or `ordinary`.

    `verdict_before` and `verdict_after` are `refused`, `complied` or `undecided`.
    """

    kind: str
    hazard: str
    prompt: str
    answer_before: str
    answer_after: str
    verdict_before: str
    verdict_after: str


@dataclass(frozen=True)
class CurvePoint:
    """One point of the trade-off on validation prompts: a checkpoint at a strength."""

    label: str
    harmful: Rate
    benign: Rate
    chosen: bool


@dataclass(frozen=True)
class Scorecard:
    """All figures of one run."""

    comparisons: tuple[Comparison, ...]
    utility: Utility
    hazards: tuple[HazardRow, ...]
    curve: tuple[CurvePoint, ...]
    examples: tuple[Example, ...]
