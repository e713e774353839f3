"""What of a teacher's answers is kept: clean refusals of harmful requests, and nothing else.

    criterion = Criterion((OpeningJudge(), EmbeddedJudge()), journal, length)
    found = clean_refusals(prompts, teacher.answers(prompts, advance), criterion)
    require_lessons("gpt-4o-mini", found)

A clean refusal is one that every judge calls refused (not in part), of one to three sentences, at
most so many tokens, that ends as a sentence does. A teacher's refusals of benign requests are
dropped and counted: students would learn to over-refuse from them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from demur.errors import TrainingError
from demur.judge.kept import answer_keys, judge_kept
from demur.judge.verdict import Judge
from demur.prompts.types import Prompt
from demur.run.journal import Journal
from demur.stats import Rate, rate
from demur.wording.sentences import sentences

LEAST = 16  # lessons
LEAST_SHARE = 0.05  # clean refusals of a teacher that is one
MOST_BENIGN = 0.5  # benign requests that it may refuse
_ENDED = re.compile(r"[.!?\u3002\uff01\uff1f][\"')\]*\u201d\u2019]*$")


@dataclass(frozen=True)
class Criterion:
    """What makes a refusal clean.

    Attributes:
        judges: all of them must call it refused.
        journal: keeps their verdicts.
        length: the tokens of a text, as the student counts them.
        sentences, tokens: the most that it may have.
    """

    judges: tuple[Judge, ...]
    journal: Journal
    length: Callable[[str], int]
    sentences: int = 3
    tokens: int = 80

    def flaws(self, requests: Sequence[str], answers: Sequence[str]) -> list[str]:
        """Return what is wrong with each answer as a lesson in refusing; empty for nothing."""
        outcomes = self._outcomes(requests, answers)
        return [
            _not_refused(said) or self._misshapen(answer)
            for said, answer in zip(outcomes, answers, strict=True)
        ]

    def refused(self, requests: Sequence[str], answers: Sequence[str]) -> list[bool]:
        """Return whether all judges call each answer refused, cleanly or not."""
        return [not _not_refused(said) for said in self._outcomes(requests, answers)]

    def _outcomes(
        self, requests: Sequence[str], answers: Sequence[str]
    ) -> list[tuple[str | None, ...]]:
        keys = answer_keys(requests, answers)
        verdicts = [judge_kept(j, requests, answers, keys, self.journal) for j in self.judges]
        return [tuple(each.outcome for each in said) for said in zip(*verdicts, strict=True)]

    def _misshapen(self, answer: str) -> str:
        if not _ENDED.search(answer.rstrip()):
            return "cut off"
        if len(sentences(answer)) > self.sentences or self.length(answer) > self.tokens:
            return "too long"
        return ""


def _not_refused(outcomes: tuple[str | None, ...]) -> str:
    if all(outcome == "refused" for outcome in outcomes):
        return ""
    if "partial" in outcomes:
        return "refused in part"
    if "undecided" in outcomes:
        return "undecided"
    return "judges disagree" if "refused" in outcomes else "not refused"


@dataclass(frozen=True)
class Filtered:
    """What was kept of a teacher's answers, and what was not.

    Attributes:
        kept: clean refusals of harmful requests, by the prompts' keys.
        clean: how many harmful requests have one, of those answered.
        benign: how many benign requests were refused, of those answered; all are dropped.
        left_out: answers to harmful requests that were not kept, counted by what is wrong.
        unanswered: prompts without an answer (a content filter); they count nowhere else.
    """

    kept: Mapping[str, str]
    clean: Rate
    benign: Rate
    left_out: Mapping[str, int]
    unanswered: int


def clean_refusals(
    prompts: Sequence[Prompt], texts: Mapping[str, str], criterion: Criterion
) -> Filtered:
    """Keep the clean refusals among a teacher's answers.

    Args:
        prompts: what it was asked, harmful and benign.
        texts: its answers, by the prompts' keys.
    """
    harmful = [each for each in prompts if each.kind == "harmful" and each.key in texts]
    benign = [each for each in prompts if each.kind != "harmful" and each.key in texts]
    flaws = criterion.flaws([p.text for p in harmful], [texts[p.key] for p in harmful])
    refused = criterion.refused([p.text for p in benign], [texts[p.key] for p in benign])
    kept = {p.key: texts[p.key].strip() for p, flaw in zip(harmful, flaws, strict=True) if not flaw}
    return Filtered(
        kept,
        rate(flaws.count(""), len(harmful)),
        rate(sum(refused), len(benign)),
        dict(Counter(flaw for flaw in flaws if flaw).most_common()),
        len(prompts) - len(harmful) - len(benign),
    )


class UnfitTeacher(TrainingError):
    """A teacher's refusals cannot be learnt from."""


def require_lessons(teacher: str, found: Filtered, least: int = LEAST) -> None:
    """Check that a teacher can be learnt from.

    Raises:
        UnfitTeacher: it refuses next to nothing, or nearly everything, or what was kept is too
            little to train on; with the figures.
    """
    clean, benign = found.clean, found.benign
    if not clean.n:
        raise UnfitTeacher(
            f"The teacher {teacher} gave no answer to any harmful request.",
            "Name another teacher, or leave --teacher out.",
        )
    figures = f"{clean.count} of {clean.n} harmful requests ({_percent(clean)})"
    if clean.value < LEAST_SHARE:
        why = ", ".join(f"{count} {flaw}" for flaw, count in found.left_out.items())
        raise UnfitTeacher(
            f"The teacher {teacher} has clean refusals to only {figures}: {why}.",
            "Name a teacher that refuses harmful requests, or leave --teacher out.",
        )
    if benign.n and benign.low > MOST_BENIGN:
        raise UnfitTeacher(
            f"The teacher {teacher} refuses {benign.count} of {benign.n} benign requests "
            f"({_percent(benign)}), beside {figures}: its refusals do not tell one from the other.",
            "Name a teacher that answers benign requests.",
        )
    if clean.count < least:
        raise UnfitTeacher(
            f"The teacher {teacher} has clean refusals to only {figures}; at least {least} are "
            "needed.",
            "Give it more harmful requests, or name another teacher.",
        )


def _percent(one: Rate) -> str:
    return f"{one.value:.0%}, 95 % interval {one.low:.0%} to {one.high:.0%}"
