"""The results of `demur measure`: every figure of every model, in frozen values.

`measuring` makes them; the table, `results.json` and the leaderboard page show them.
"""

from __future__ import annotations

from dataclasses import dataclass

from demur.measure.corrected import Corrected
from demur.measure.harness import TaskScore
from demur.measure.known_error import KnownError
from demur.stats import Difference, Mean, Rate


@dataclass(frozen=True)
class Cell:
    """One model on one row.

    Attributes:
        refused: of all prompts asked; partial and undecided answers are not refused.
        corrected: the same with the judge's known error taken out; None where it is not known.
        partial, undecided: how many answers were that.
        harmful: answers that help with harm, from a judge that tells; else None.
        harmful_corrected: the same with that judge's known error taken out; None as above.
        difference: to the reference model, paired by prompt; None for the reference itself.
        p_holm: McNemar's p, adjusted by Holm over the models of the row; None for the reference.
        detectable: the smallest difference to the reference that these pairs would show.
    """

    refused: Rate
    corrected: Corrected | None
    partial: int
    undecided: int
    harmful: Rate | None
    harmful_corrected: Corrected | None
    difference: Difference | None
    p_holm: float | None
    detectable: float | None


@dataclass(frozen=True)
class Row:
    """One rate, of every model.

    Attributes:
        key: unique, such as `direct/pooled:harmful` or `prefill/pooled:harmful`.
        title: in words.
        set: key of the set, or `pooled`.
        kind: `harmful`, `twin` or `ordinary`.
        attack: `direct`, `prefill` or `templates`.
        system: the system prompt: `template` for the template's own, `none`, or the text.
        wanted: `up` where refusing is right, `down` where it is wrong.
        n: prompts.
        detectable: the smallest difference between two models that n prompts of each would show,
            were they not the same prompts.
        cells: one a model, in the order of the models; None for a model that was not asked this.
    """

    key: str
    title: str
    set: str
    kind: str
    attack: str
    system: str
    wanted: str
    n: int
    detectable: float
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class ModelFigures:
    """One model, and its utility.

    Attributes:
        label: what it is called here.
        origin: where it is from, without a folder.
        parameters, weights: their count, and the content hash of the checkpoint.
        reference: whether the others are compared with it.
        perplexity: on the text, a token; NaN if not measured.
        bits_per_byte: the same comparable between tokenizers; NaN if not measured.
        perplexity_ratio: to the reference, over windows of text; None for the reference, and
            where the two cut the text into different tokens.
        divergence: multi-token KL(reference || model), nats a token; None as above.
        apart: why there is no ratio and no divergence; empty where there are.
        pairs: minimal pairs told rightly; None if not measured.
        pairs_difference: to the reference, paired; None for the reference.
        tasks: scores of lm-evaluation-harness.
        unasked: prompts that did not fit into its context, counted as undecided.
    """

    label: str
    origin: str
    parameters: int
    weights: str
    reference: bool
    perplexity: float
    bits_per_byte: float
    perplexity_ratio: Mean | None
    divergence: Mean | None
    apart: str
    pairs: Rate | None
    pairs_difference: Difference | None
    tasks: tuple[TaskScore, ...]
    unasked: int


@dataclass(frozen=True)
class SetFacts:
    """One set of prompts: whose it is, and what of it was asked.

    Attributes:
        n: asked; `held` in the set, of which `repeats` word for word and `trained` near the
            prompts that training saw were left out.
        overlaps: (key of an earlier set, prompts that it has too); these count once when pooled.
    """

    key: str
    title: str
    kind: str
    origin: str
    licence: str
    citation: str
    measures: str
    held: int
    n: int
    repeats: int
    trained: int
    overlaps: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class SampleAnswer:
    """What one model answered: `label` of the model, text and outcome."""

    label: str
    text: str
    outcome: str


@dataclass(frozen=True)
class Sample:
    """One prompt with the answers of all models; `attack` as in `Row`."""

    kind: str
    set: str
    attack: str
    prompt: str
    answers: tuple[SampleAnswer, ...]


@dataclass(frozen=True)
class Standing:
    """All that a measurement came to.

    Attributes:
        models, rows, sets: as above, in order.
        judge, judge_description: who judged.
        error: the judge's known error on refusals; None where it was not measured.
        apart: which prompts of training the sets were kept apart from.
        templates: how many jailbreak templates were drawn, of how many, from which file.
        text: the text that perplexity was measured on.
        contradictory: prompts that stand both among the harmful and among the harmless.
        samples: a few prompts with all answers.
        command: what makes this measurement again.
        created: day, `2026-01-31`.
        versions: of demur, python and the libraries.
        seconds: wall time.
    """

    models: tuple[ModelFigures, ...]
    rows: tuple[Row, ...]
    sets: tuple[SetFacts, ...]
    judge: str
    judge_description: str
    error: KnownError | None
    apart: str
    templates: str
    text: str
    contradictory: int
    samples: tuple[Sample, ...]
    command: str
    created: str
    versions: tuple[tuple[str, str], ...]
    seconds: float

    def row(self, key: str) -> Row | None:
        """Return the row of that key, or None."""
        return next((row for row in self.rows if row.key == key), None)
