"""A teacher's logits at the tokens of fixed answers, kept as its likeliest tokens on disk.

    lessons, truncation = with_teacher_logits(teacher, lessons, prompts, journal)

The teacher then need not be asked again in any epoch, nor even be in memory. What is lost is
measured at every token, when the whole distribution is at hand: the probability outside the tokens
kept, and KL(whole || kept), where what is kept comes back from disk in half precision and the rest
is spread evenly over all other tokens. A token kept costs 6 bytes.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from demur.console import Advance
from demur.distill.lessons import CANDIDATES, Lesson
from demur.distill.objectives.logits import teacher_logits
from demur.models.batch import plan
from demur.models.chat_model import ChatModel
from demur.run.journal import Journal, content_key
from demur.stats import Mean, mean

ROWS = 16


@dataclass(frozen=True)
class Truncation:
    """What keeping only the likeliest tokens loses; means over answers, each with its interval.

    Attributes:
        kept: how many tokens are kept at each place.
        tokens: how many places were measured.
        outside: the probability of all other tokens.
        most_outside: the same where it is largest.
        divergence: KL(whole || kept, the rest spread evenly), in nats a token.
    """

    kept: int
    tokens: int
    outside: Mean
    most_outside: float
    divergence: Mean


def with_teacher_logits(
    teacher: ChatModel,
    lessons: Sequence[Lesson],
    contexts: Mapping[int, tuple[int, ...]],
    journal: Journal,
    *,
    kinds: Collection[str] = ("refuse", "answer"),
    kept: int = CANDIDATES,
    width: int | None = None,
    advance: Advance = lambda count: None,
) -> tuple[list[Lesson], Truncation | None]:
    """Return the lessons, those of `kinds` with their teacher's distributions.

    Args:
        contexts: what the teacher sees before the answer of a lesson, by index
            (`distill.contexts`); where there is none, the lesson's own prompt.
        kinds: of the lessons that this teacher teaches.
        kept: tokens kept at each place; as many as the lessons' own distributions have.
        width: of the student's head, where the teacher's is wider: tokens that the student does
            not have are left out, and the others' probabilities sum to one.

    Returns:
        The lessons in order, and the error of what was kept; None where there was nothing to keep.
    """
    own = int(teacher.model.config.get_text_config().vocab_size)
    width = min(width or own, own)
    kept = min(kept, width)
    asked = [index for index, one in enumerate(lessons) if one.kind in kinds]
    if not asked:
        return list(lessons), None
    seen = {
        index: replace(lessons[index], prompt=contexts.get(index, lessons[index].prompt))
        for index in asked
    }
    keys = {
        index: content_key(
            *("logits", teacher.weights, teacher.placement.dtype, kept, width), *_ids(lesson)
        )
        for index, lesson in seen.items()
    }
    known = journal.arrays(set(keys.values()))
    advance(sum(key in known for key in keys.values()))
    lengths = [len(seen[index].prompt) + len(seen[index].answer) for index in asked]
    for places in plan(lengths, ROWS):
        indices = [asked[place] for place in places]
        if all(keys[index] in known for index in indices):
            continue
        logits = teacher_logits(teacher.model, [seen[index] for index in indices])[:, :width]
        parts = logits.split([len(seen[index].answer) for index in indices])
        fresh = {
            keys[index]: _pack(part, kept)
            for index, part in zip(indices, parts, strict=True)
            if keys[index] not in known
        }
        journal.add_arrays(list(fresh.items()))
        known.update(fresh)
        advance(len(fresh))
    found = {index: _unpack(known[keys[index]]) for index in asked}
    taught = list(lessons)
    for index, arrays in found.items():
        taught[index] = replace(
            lessons[index],
            log_probabilities=arrays["log_probabilities"],
            candidates=arrays["candidates"],
        )
    return taught, _truncation(kept, list(found.values()))


def _truncation(kept: int, found: Sequence[dict[str, Any]]) -> Truncation:
    """Return what was lost by keeping no more; means are taken over lessons."""
    outside = [arrays["outside"] for arrays in found]
    return Truncation(
        kept,
        sum(map(len, outside)),
        mean([float(one.mean()) for one in outside]),
        max(float(one.max()) for one in outside),
        mean([float(arrays["divergence"].mean()) for arrays in found]),
    )


def _ids(lesson: Lesson) -> tuple[list[int], list[int]]:
    return list(lesson.prompt), list(lesson.answer)


def _pack(logits: Any, kept: int) -> bytes:
    import numpy as np
    import torch

    whole = logits.double().log_softmax(-1)
    best = whole.topk(kept)
    stored = best.values.half()
    outside = (1 - best.values.exp().sum(-1)).clamp(min=0)
    # As it is read: what half precision and the cut leave, scaled to sum to one.
    rest = (1 - stored.double().exp().sum(-1)).clamp(min=1e-9)
    level = (rest / max(1, whole.shape[-1] - kept)).log()
    spread = level[:, None].expand_as(whole).scatter(1, best.indices, stored.double())
    divergence = (whole.exp() * (whole - spread.log_softmax(-1))).sum(-1)
    file = io.BytesIO()
    np.savez(
        file,
        log_probabilities=stored.cpu().numpy(),
        candidates=best.indices.to(torch.int32).cpu().numpy(),
        outside=outside.float().cpu().numpy(),
        divergence=divergence.float().cpu().numpy(),
    )
    return file.getvalue()


def _unpack(value: bytes) -> dict[str, Any]:
    import numpy as np
    import torch

    with np.load(io.BytesIO(value), allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
