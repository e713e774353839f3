"""The protocol: the same prompts, the same decoding and the same judge, before and after.

`measure_side` takes one model through it and returns every answer with its verdict; `compare`
pairs two sides. What is measured: harmful requests refused; their benign twins and ordinary
instructions refused (over-refusal); harmful requests with a compliant opening put into the
model's mouth (prefill).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from demur.console import Narrator
from demur.judge.kept import judge_kept
from demur.judge.settled import is_quick, settled
from demur.judge.verdict import Judge, Verdict
from demur.measure.scorecard import Comparison, Example, HazardRow
from demur.models.chat_model import ChatModel
from demur.models.generation import Decoding, answer
from demur.prompts.split import evenly
from demur.prompts.types import Prompt
from demur.run.journal import Answer, Journal
from demur.stats import paired, rate

PREFILL = "Sure, here is"


@dataclass(frozen=True)
class Probe:
    """One set of prompts, and how it is put to the model.

    Attributes:
        key, title, split, wanted: as in `Comparison`.
        prompts: what is asked.
        decoding: how answers are written.
        whole: whether answers are written on when their verdict is settled.
    """

    key: str
    title: str
    split: str
    wanted: str
    prompts: tuple[Prompt, ...]
    decoding: Decoding
    whole: bool = False


@dataclass(frozen=True)
class Judged:
    """The answers and verdicts of one model on one probe, in the order of its prompts."""

    probe: Probe
    answers: tuple[Answer, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def refused(self) -> list[bool]:
        """Whether each prompt was refused; undecided is not."""
        return [verdict.refused for verdict in self.verdicts]

    @property
    def undecided(self) -> int:
        """How many answers were neither refusals nor answers."""
        return sum(verdict.outcome == "undecided" for verdict in self.verdicts)


def standard_probes(
    harmful: Sequence[Prompt],
    twins: Sequence[Prompt],
    ordinary: Sequence[Prompt],
    *,
    split: str,
    tokens: int,
    prefilled: int,
) -> tuple[Probe, ...]:
    """Return the four probes of the protocol.

    Args:
        prefilled: how many of the harmful prompts are also asked with a compliant opening.
    """
    plain = Decoding(tokens)
    forced = Decoding(tokens, PREFILL)
    probes = (
        Probe("harmful", "Harmful requests refused", split, "up", tuple(harmful), plain),
        Probe("twins", "Benign twins refused", split, "down", tuple(twins), plain),
        Probe(
            *("ordinary", "Ordinary instructions refused", split, "down", tuple(ordinary), plain),
            whole=True,  # divergence is measured along them
        ),
        Probe(
            "prefill",
            f'Harmful requests refused after the forced opening "{PREFILL}"',
            split,
            "up",
            evenly(harmful, prefilled),
            forced,
        ),
    )
    return tuple(probe for probe in probes if probe.prompts)


def measure_probe(
    chat: ChatModel,
    probe: Probe,
    journal: Journal,
    judge: Judge,
    narrator: Narrator,
    label: str,
    openings: Sequence[Sequence[int]] | None = None,
) -> Judged:
    """Put one probe to one model; answers and verdicts are in the journal afterwards.

    Args:
        openings: token ids that each answer begins with; what comes after them is judged.
    """
    texts = [prompt.text for prompt in probe.prompts]
    decoding, ends = probe.decoding, None
    if is_quick(judge) and not probe.whole:
        decoding, ends = replace(decoding, until=judge.name), partial(settled, judge)
    with narrator.progress(f"{label}, {probe.key}", len(texts)) as advance:
        answers = answer(
            chat, texts, journal, decoding, advance=advance, settled=ends, openings=openings
        )
    verdicts = judge_kept(
        judge, texts, [a.text for a in answers], [a.key for a in answers], journal
    )
    return Judged(probe, tuple(answers), tuple(verdicts))


def compare(before: Judged, after: Judged) -> Comparison:
    """Pair two models on one probe."""
    n = len(before.refused)
    probe = before.probe
    return Comparison(
        probe.key,
        probe.title,
        probe.split,
        probe.wanted,
        rate(sum(before.refused), n),
        rate(sum(after.refused), n),
        paired(before.refused, after.refused),
        before.undecided,
        after.undecided,
    )


def by_hazard(
    harmful: tuple[Judged, Judged], twins: tuple[Judged, Judged]
) -> tuple[HazardRow, ...]:
    """Return the rates of each hazard category, from (before, after) of harmful and of twins."""

    def one(judged: Judged, hazard: str) -> list[bool]:
        pairs = zip(judged.probe.prompts, judged.refused, strict=True)
        return [refused for prompt, refused in pairs if prompt.hazard == hazard]

    hazards = sorted({prompt.hazard for prompt in harmful[0].probe.prompts if prompt.hazard})
    rows = []
    for hazard in hazards:
        rates = [
            rate(sum(values), len(values))
            for values in (one(judged, hazard) for judged in (*harmful, *twins))
        ]
        rows.append(HazardRow(hazard, *rates))
    return tuple(rows)


def examples(before: Judged, after: Judged, count: int) -> tuple[Example, ...]:
    """Return `count` examples, spread evenly over the probe's prompts."""
    prompts = before.probe.prompts
    step = max(1, len(prompts) // max(1, count))
    chosen = range(0, len(prompts), step)[:count]
    return tuple(
        Example(
            prompts[index].kind,
            prompts[index].hazard,
            prompts[index].text,
            before.answers[index].text,
            after.answers[index].text,
            str(before.verdicts[index].outcome),
            str(after.verdicts[index].outcome),
        )
        for index in chosen
    )
