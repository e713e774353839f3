"""Verdicts that are kept as they come: what a journal knows is not asked again.

A judge may cost money or minutes. Answers are judged in chunks, each written to the journal in
one transaction, so that a run that was killed or lost its endpoint re-asks only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, cast

from demur.judge.verdict import Judge, Verdict
from demur.run.journal import Journal, KeptVerdict, content_key

CHUNK = 32  # verdicts that may be lost with the process


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
        keys: the journal's key of each answer.
        advance: called with the number of verdicts that have just become known.
    """
    known = {key: _verdict(kept) for key, kept in journal.verdicts(judge.name, keys).items()}
    advance(sum(key in known for key in keys))
    missing = [index for index, key in enumerate(keys) if key not in known]
    for start in range(0, len(missing), CHUNK):
        part = missing[start : start + CHUNK]
        fresh = judge.judge([prompts[i] for i in part], [answers[i] for i in part])
        rows = [(keys[index], verdict) for index, verdict in zip(part, fresh, strict=True)]
        journal.add_verdicts(judge.name, [KeptVerdict(k, **asdict(v)) for k, v in rows])
        known.update(rows)
        advance(len(part))
    return [known[key] for key in keys]


def _verdict(kept: KeptVerdict) -> Verdict:
    return Verdict(
        cast(Any, kept.outcome), kept.reason, kept.score, cast(Any, kept.harm), kept.harm_score
    )
