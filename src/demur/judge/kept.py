"""Verdicts that are kept as they come: what a journal knows is not asked again.

A judge may cost money or minutes. Answers are judged in chunks, each written to the journal in
one transaction, so that a run that was killed or lost its endpoint re-asks only what is missing.
A judge that asks somebody else answer by answer says so by its `judge_each`: each of its verdicts
is kept the moment it is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol, cast, runtime_checkable

from demur.judge.verdict import Judge, Verdict
from demur.run.journal import Journal, KeptVerdict, content_key

CHUNK = 32  # verdicts that may be lost with the process


@runtime_checkable
class JudgeOfEach(Protocol):
    """A judge whose verdicts come one by one, in no particular order."""

    def judge_each(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> Iterator[tuple[int, Verdict]]:
        """Yield (index, verdict); whatever is yielded before an error has been decided."""


def answer_keys(prompts: Sequence[str], answers: Sequence[str]) -> list[str]:
    """Return the journal's keys of answers that were not written in this run."""
    return [content_key("pair", *pair) for pair in zip(prompts, answers, strict=True)]


def judge_kept(
    judge: Judge,
    prompts: Sequence[str],
    answers: Sequence[str],
    keys: Sequence[str],
    journal: Journal,
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Verdict]:
    """Return one verdict an answer, from the journal where it is known.

    Args:
        keys: the journal's key of each answer; equal keys are asked once.
        advance: called with the number of verdicts that have just become known.
    """
    known = {key: _verdict(kept) for key, kept in journal.verdicts(judge.name, keys).items()}
    advance(sum(key in known for key in keys))
    first = {key: index for index, key in reversed(list(enumerate(keys))) if key not in known}
    missing, times = sorted(first.values()), Counter(keys)
    for part in _verdicts(judge, prompts, answers, missing):
        rows = [(keys[index], verdict) for index, verdict in part]
        journal.add_verdicts(judge.name, [KeptVerdict(k, **asdict(v)) for k, v in rows])
        known.update(rows)
        advance(sum(times[key] for key, _ in rows))
    return [known[key] for key in keys]


def _verdicts(
    judge: Judge, prompts: Sequence[str], answers: Sequence[str], missing: Sequence[int]
) -> Iterator[list[tuple[int, Verdict]]]:
    """Yield new verdicts in the portions in which they are kept."""
    if isinstance(judge, JudgeOfEach):
        asked = [prompts[i] for i in missing], [answers[i] for i in missing]
        for place, verdict in judge.judge_each(*asked):
            yield [(missing[place], verdict)]
        return
    for start in range(0, len(missing), CHUNK):
        part = missing[start : start + CHUNK]
        fresh = judge.judge([prompts[i] for i in part], [answers[i] for i in part])
        yield list(zip(part, fresh, strict=True))


def judged_each(judge: Judge, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
    """Return what `judge_each` yields, in order: the `judge` of a judge that has it."""
    found = dict(cast(JudgeOfEach, judge).judge_each(prompts, answers))
    return [found[index] for index in range(len(prompts))]


def _verdict(kept: KeptVerdict) -> Verdict:
    return Verdict(
        cast(Any, kept.outcome), kept.reason, kept.score, cast(Any, kept.harm), kept.harm_score
    )
