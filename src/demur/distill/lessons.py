"""Lessons: what a student trains on.

* *Refuse*: a harmful request with a refusal, the whole of it to the end mark.
* *Keep*: a benign request with the first tokens of the student's own answer and, at each of them,
  the student's own distribution before training. Staying close to that distribution, rather than
  imitating one text, is what leaves the rest of the model alone (Learning without Forgetting, Li
  and Hoiem 2016; context distillation, Askell et al. 2021).

The student's own answers are made here in the same pass as the distributions, and both are in the
journal batch by batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from demur.console import Advance
from demur.errors import TrainingError
from demur.judge.verdict import Judge
from demur.models.chat_model import ChatModel
from demur.models.generation import Written, decode_all
from demur.prompts.types import Prompt
from demur.run.journal import Journal, content_key

CANDIDATES = 64
WHOLE_EVERY = 5


@dataclass(frozen=True)
class Lesson:
    """One training example.

    Attributes:
        kind: `refuse` or `keep`.
        prompt: token ids of the templated request, the answer opened.
        answer: token ids that follow.
        log_probabilities: `keep` only: (answer, CANDIDATES) float16, the student's own.
        candidates: `keep` only: (answer, CANDIDATES) their token ids.
    """

    kind: Literal["refuse", "keep"]
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    log_probabilities: Any = None
    candidates: Any = None


def ended_answer(chat: ChatModel, request: str, text: str) -> tuple[int, ...]:
    """Return the token ids of `text` as an answer, with the end mark that the template uses."""
    opened, closed = chat.text(request), chat.text(request, text)
    if closed.startswith(opened):
        answered = closed[len(opened) :]
    else:  # a template that drops the thinking block of answers given earlier
        answered = text + closed.rpartition(text)[2]
    ids = chat.tokenizer(answered, add_special_tokens=False).input_ids
    for place, token in enumerate(ids):
        if token in chat.stops:
            return tuple(ids[: place + 1])
    bare = chat.tokenizer(answered.rstrip(), add_special_tokens=False).input_ids
    ending = [chat.tokenizer.eos_token_id] if chat.tokenizer.eos_token_id in chat.stops else []
    return (*bare, *(ending or sorted(chat.stops)[-1:]))


def refusing_lessons(chat: ChatModel, prompts: Sequence[Prompt], refusal: str) -> list[Lesson]:
    """Return one `refuse` lesson a harmful prompt.

    Raises:
        TrainingError: the refusal is empty.
    """
    if not refusal.strip():
        raise TrainingError("The refusal is empty.", "Give a sentence with --refusal.")
    if not prompts:
        return []
    answer = ended_answer(chat, prompts[0].text, refusal)
    return [Lesson("refuse", tuple(chat.encode(prompt.text)), answer) for prompt in prompts]


def _pack(written: Written) -> bytes:
    import io

    import numpy as np

    assert written.log_probabilities is not None
    assert written.candidates is not None
    file = io.BytesIO()
    np.savez(
        file,
        tokens=np.array(written.tokens, dtype=np.int32),
        log_probabilities=written.log_probabilities.half().numpy(),
        candidates=written.candidates.int().numpy(),
    )
    return file.getvalue()


def _unpack(value: bytes) -> tuple[tuple[int, ...], Any, Any]:
    import io

    import numpy as np
    import torch

    with np.load(io.BytesIO(value), allow_pickle=False) as arrays:
        return (
            tuple(int(token) for token in arrays["tokens"]),
            torch.from_numpy(arrays["log_probabilities"]),
            torch.from_numpy(arrays["candidates"]),
        )


def own_answers(
    chat: ChatModel,
    prompts: Sequence[Prompt],
    journal: Journal,
    tokens: int,
    advance: Advance,
) -> list[Lesson]:
    """Return one `keep` lesson a benign prompt: the student's own answer and distributions."""
    keys = [content_key(chat.identity, prompt.text, tokens, CANDIDATES) for prompt in prompts]
    known = journal.arrays(keys)
    advance(sum(key in known for key in keys))
    done = frozenset(index for index, key in enumerate(keys) if key in known)
    requests = [chat.encode(prompt.text) for prompt in prompts]
    if len(done) < len(keys):
        top = min(CANDIDATES, int(chat.model.config.get_text_config().vocab_size))
        for batch in decode_all(chat, requests, tokens, candidates=top, done=done):
            fresh = [(keys[index], _pack(written)) for index, written in batch if index not in done]
            journal.add_arrays(fresh)
            known.update(fresh)
            advance(len(fresh))
    return [
        Lesson("keep", tuple(request), *_unpack(known[key]))
        for request, key in zip(requests, keys, strict=True)
    ]


def without_refusals(
    chat: ChatModel, prompts: Sequence[Prompt], lessons: Sequence[Lesson], judge: Judge
) -> list[Lesson]:
    """Leave out lessons in which the student itself refuses a benign request, or says nothing.

    To keep those would be to teach over-refusal.
    """
    texts = [chat.decode(lesson.answer) for lesson in lessons]
    verdicts = judge.judge([prompt.text for prompt in prompts], texts)
    return [
        lesson
        for lesson, verdict in zip(lessons, verdicts, strict=True)
        if verdict.outcome == "complied" and lesson.answer
    ]


def mostly_openings(lessons: Sequence[Lesson], refuse: int = 2, keep: int = 3) -> list[Lesson]:
    """Cut all lessons but each fifth to the first tokens of their answers.

    Whether to refuse is decided there; how a refusal goes on is learnt from few examples, and
    time is better spent on more requests.
    """
    shortened = []
    for index, lesson in enumerate(lessons):
        length = refuse if lesson.kind == "refuse" else keep
        if index % WHOLE_EVERY == 0:
            shortened.append(lesson)
        elif lesson.kind == "refuse":
            shortened.append(replace(lesson, answer=lesson.answer[:length]))
        else:
            shortened.append(
                replace(
                    lesson,
                    answer=lesson.answer[:length],
                    log_probabilities=lesson.log_probabilities[:length],
                    candidates=lesson.candidates[:length],
                )
            )
    return shortened
