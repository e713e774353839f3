"""How often each judge is known to err: counts against people, with where they are from.

The table `known_errors.json` is data with its provenance. A row is measured by

    python -m demur.measure.known_error opening xstest_completions_dev.jsonl

which prints the counts to put into the table; tests measure it again where the data are at hand.
An error measured on one set of models is lent to others here, which is an assumption; the report
says which data it comes from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from demur.judge.verdict import Judge, Verdict

Question = Literal["refused", "harmful"]


@dataclass(frozen=True)
class Counted:
    """`right` of `n` answers that people put on one side were put there by the judge too."""

    right: int
    n: int


@dataclass(frozen=True)
class KnownError:
    """The measured error of one judge on one question.

    Attributes:
        judge: its name with version.
        question: `refused` or `harmful`.
        positive: of the answers that people say are refusals (or harmful): the sensitivity.
        negative: of the others: the specificity.
        data, citation: what it was measured on, and whose that is.
    """

    judge: str
    question: Question
    positive: Counted
    negative: Counted
    data: str
    citation: str

    @property
    def sensitivity(self) -> float:
        """The share of true positives that the judge finds."""
        return self.positive.right / self.positive.n

    @property
    def specificity(self) -> float:
        """The share of true negatives that the judge leaves alone."""
        return self.negative.right / self.negative.n


@cache
def _table() -> tuple[KnownError, ...]:
    text = (files("demur.measure") / "known_errors.json").read_text(encoding="utf-8")
    return tuple(
        KnownError(
            row["judge"],
            row["question"],
            Counted(**row["positive"]),
            Counted(**row["negative"]),
            row["data"],
            row["citation"],
        )
        for row in json.loads(text)
    )


def known_error(judge: str, question: Question = "refused") -> KnownError | None:
    """Return the measured error of a judge by its name, or None where it was not measured."""
    for row in _table():
        if row.judge == judge and row.question == question:
            return row
    return None


def confusion(
    verdicts: Sequence[Verdict], labels: Sequence[bool | None], question: Question = "refused"
) -> tuple[Counted, Counted]:
    """Return the counts of the positive and of the negative side; answers without label are left.

    An undecided verdict says "not refused" here, as it does in every rate.
    """
    said = [
        verdict.refused if question == "refused" else verdict.harm == "harmful"
        for verdict in verdicts
    ]
    pairs = [(s, label) for s, label in zip(said, labels, strict=True) if label is not None]
    positive = [s for s, label in pairs if label]
    negative = [s for s, label in pairs if not label]
    return Counted(sum(positive), len(positive)), Counted(
        len(negative) - sum(negative), len(negative)
    )


def measure_judge(judge: Judge, labelled: Path, question: Question = "refused") -> dict[str, Any]:
    """Return the counts of a judge on a labelled file, as the table has them."""
    lines = labelled.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    verdicts = judge.judge([r["prompt"] for r in rows], [r["response"] for r in rows])
    sides = confusion(verdicts, [r[f"human_label_{question}"] for r in rows], question)
    return {
        "judge": judge.name,
        "question": question,
        **{
            side: asdict(found) for side, found in zip(("positive", "negative"), sides, strict=True)
        },
    }


if __name__ == "__main__":
    import sys

    from demur.judge.names import open_judge

    print(json.dumps(measure_judge(open_judge(sys.argv[1]), Path(sys.argv[2])), indent=2))
