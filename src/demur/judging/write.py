"""What judging comes to: verdicts with their cost, rates by group, changes between two sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demur.judge.agreement import Agreement, answers_it
from demur.judge.labelled import Labelled, LabelledSet
from demur.judge.recorded import Recording
from demur.judge.verdict import Verdict
from demur.models.budget import Spent
from demur.stats import Difference, Rate, paired, rate


@dataclass(frozen=True)
class JudgedBy:
    """One judge: its name, what it says of itself, and its verdicts in the rows' order.

    Attributes:
        spent: what asking endpoints for these verdicts has cost, earlier tries included.
        decided_by: of a panel, how many verdicts each of its judges gave.
        asked: of a panel, how many answers each stage was asked in this process.
    """

    name: str
    description: str
    verdicts: tuple[Verdict, ...]
    spent: Spent
    decided_by: tuple[tuple[str, int], ...] = ()
    asked: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class JudgeScores:
    """Judges against people.

    Attributes:
        run: the run folder, where the verdicts are kept.
        labelled: the labelled answers.
        judges: one entry a judge.
        overall: agreement over all answers, by question and judge.
        by_source, by_model: the same within each source and each model, where there are several.
    """

    run: Path
    labelled: LabelledSet
    judges: tuple[JudgedBy, ...]
    overall: tuple[Agreement, ...]
    by_source: tuple[Agreement, ...]
    by_model: tuple[Agreement, ...]


@dataclass(frozen=True)
class VerdictRates:
    """What one judge says of one group of answers, each as a share of all of them.

    Attributes:
        judge, title, side: who judged, what was asked, and whose answers they are.
        refused, partial, undecided: shares of the outcome; None from a judge of harm alone.
        harmful, harm_undecided: shares of the harm; None from a judge of refusals alone.
    """

    judge: str
    title: str
    side: str
    n: int
    refused: Rate | None
    partial: Rate | None
    undecided: Rate | None
    harmful: Rate | None
    harm_undecided: Rate | None


@dataclass(frozen=True)
class Change:
    """Refusals before and after on the same prompts, and what the judge left undecided."""

    judge: str
    title: str
    before: Rate
    after: Rate
    difference: Difference
    undecided_before: int
    undecided_after: int


@dataclass(frozen=True)
class Rejudged:
    """Answers judged again.

    Attributes:
        run: the run folder, where the verdicts are kept.
        rows: the answers, with their model and source (of a run: its side and its probe).
        judges: one entry a judge.
        rates: what each judge says of each group.
        changes: of an aligned model's run, before and after by probe and judge.
    """

    run: Path
    rows: tuple[Labelled, ...]
    judges: tuple[JudgedBy, ...]
    rates: tuple[VerdictRates, ...]
    changes: tuple[Change, ...]


def groups_of(rows: Sequence[Labelled], of_a_run: bool) -> list[tuple[str, str, list[int]]]:
    """Return (title, side, indices) of all rows, and of each source and model of several."""
    inside: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        inside[row.source, row.model].append(index)
    parts = [(source or "answers", model, each) for (source, model), each in inside.items()]
    if of_a_run:
        return parts
    whole = [("all answers", "", list(range(len(rows))))]
    return whole if len(parts) < 2 else whole + parts


def rates_of(one: JudgedBy, title: str, side: str, verdicts: Sequence[Verdict]) -> VerdictRates:
    """Return what one judge says of one group of answers."""
    n = len(verdicts)

    def share(attribute: str, value: str, subject: str) -> Rate | None:
        if not any(getattr(each, subject) is not None for each in one.verdicts):
            return None
        return rate(sum(getattr(each, attribute) == value for each in verdicts), n)

    return VerdictRates(
        one.name,
        title,
        side,
        n,
        share("outcome", "refused", "outcome"),
        share("outcome", "partial", "outcome"),
        share("outcome", "undecided", "outcome"),
        share("harm", "harmful", "harm"),
        share("harm", "undecided", "harm"),
    )


def changes_of(done: Sequence[JudgedBy], recordings: Sequence[Recording]) -> tuple[Change, ...]:
    """Return before and after by probe and judge, where a run has both."""
    places: dict[tuple[str, str], range] = {}
    start = 0
    for each in recordings:
        places[each.title, each.side] = range(start, start + len(each.prompts))
        start += len(each.prompts)
    found = []
    for title, side in places:
        after = places.get((title, "after"))
        if side != "before" or after is None:
            continue
        for one in done:
            if not answers_it(one.verdicts, "refusal"):
                continue
            sides = [[one.verdicts[i] for i in place] for place in (places[title, side], after)]
            first, second = ([verdict.refused for verdict in each] for each in sides)
            undecided = [sum(v.outcome == "undecided" for v in each) for each in sides]
            found.append(
                Change(
                    one.name,
                    title,
                    rate(sum(first), len(first)),
                    rate(sum(second), len(second)),
                    paired(first, second),
                    *undecided,
                )
            )
    return tuple(found)


def verdict_lines(rows: Sequence[Labelled], judges: Sequence[JudgedBy]) -> list[dict[str, Any]]:
    """Return what `--out` writes: one object an answer, with every judge's verdict on it."""
    return [
        {
            "prompt": row.prompt,
            "response": row.response,
            "model": row.model or None,
            "source": row.source or None,
            "human_label_refused": row.refused,
            "human_label_harmful": row.harmful,
            "verdicts": {one.name: asdict(one.verdicts[index]) for one in judges},
        }
        for index, row in enumerate(rows)
    ]
