"""Lessons: what a student trains on.

* *Refuse*: a harmful request with a refusal, the whole of it to the end mark.
* *Answer*: a benign request that the student itself refuses, with the student's own answer after
  the opening `HELPFUL` was put into its mouth. To keep its refusal would be to teach over-refusal.
* *Keep*: any other benign request with the first tokens of the student's own answer and, at each of
  them, the student's own distribution before training. Staying close to that distribution, rather
  than imitating one text, is what leaves the rest of the model alone (Learning without Forgetting,
  Li and Hoiem 2016; context distillation, Askell et al. 2021).

* *Text*: what the student writes of itself outside a chat, with its distribution at every token:
  an anchor where none of the above reaches, made without any data.

The student's own answers are made here in the same pass as the distributions, and both are in the
journal batch by batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from demur.console import Advance
from demur.errors import TrainingError
from demur.judge.settled import settled
from demur.judge.verdict import Judge
from demur.models.chat_model import ChatModel, context_length
from demur.models.generation import Written, decode_all, write_freely
from demur.prompts.types import Prompt
from demur.run.journal import Journal, content_key

CANDIDATES = 64
WHOLE_EVERY = 8
SETTLED_BY = 4  # tokens within which most own answers are known to be no refusals
WORDS = 2  # of such an answer: the first of them is then complete
TEXT_TOKENS = 40
HELPFUL = "Here is"


@dataclass(frozen=True)
class Lesson:
    """One training example.

    Attributes:
        kind: `refuse`, `answer`, `keep` or `text`.
        prompt: token ids of the templated request, the answer opened.
        answer: token ids that follow.
        log_probabilities: `keep` and `text`: (answer, CANDIDATES) float16, the student's own.
        candidates: `keep` and `text`: (answer, CANDIDATES) their token ids.
        request: the user's own words, for objectives that have answers judged.
        rejected: token ids of an answer that is worse than `answer` (`preference`).
        reference: the untouched student's log-probabilities of `answer` and of `rejected`.
    """

    kind: Literal["refuse", "answer", "keep", "text"]
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    log_probabilities: Any = None
    candidates: Any = None
    request: str = ""
    rejected: tuple[int, ...] = ()
    reference: tuple[float, float] | None = None


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


def refusing_lessons(
    chat: ChatModel, prompts: Sequence[Prompt], refusals: Sequence[str]
) -> list[Lesson]:
    """Return one `refuse` lesson a harmful prompt.

    Args:
        refusals: one sentence for a uniform pattern; of several each prompt has one, by its hash.

    Raises:
        TrainingError: a refusal is empty.
    """
    if not refusals or not all(refusal.strip() for refusal in refusals):
        raise TrainingError("The refusal is empty.", "Give a sentence with --refusal.")
    if not prompts:
        return []
    answers = [ended_answer(chat, prompts[0].text, refusal) for refusal in refusals]
    return [
        Lesson(
            "refuse",
            tuple(chat.encode(prompt.text)),
            answers[int(prompt.key, 16) % len(answers)],
            request=prompt.text,
        )
        for prompt in prompts
    ]


def _pack(written: Written) -> bytes:
    import numpy as np

    assert written.log_probabilities is not None
    assert written.candidates is not None
    tokens = np.array(written.tokens)
    return _pack_arrays(tokens, written.log_probabilities, written.candidates)


def _pack_arrays(tokens: Any, log_probabilities: Any, candidates: Any) -> bytes:
    import io

    import numpy as np

    file = io.BytesIO()
    np.savez(
        file,
        tokens=tokens.astype(np.int32),
        log_probabilities=log_probabilities.half().numpy(),
        candidates=candidates.int().numpy(),
    )
    return file.getvalue()


def _unpack(value: bytes) -> tuple[tuple[int, ...], Any, Any]:
    tokens, log_probabilities, candidates = _unpack_arrays(value)
    return tuple(tokens.tolist()), log_probabilities, candidates


def _unpack_arrays(value: bytes) -> tuple[Any, Any, Any]:
    import io

    import numpy as np
    import torch

    with np.load(io.BytesIO(value), allow_pickle=False) as arrays:
        return (
            arrays["tokens"],
            torch.from_numpy(arrays["log_probabilities"]),
            torch.from_numpy(arrays["candidates"]),
        )


def own_answers(
    chat: ChatModel,
    prompts: Sequence[Prompt],
    journal: Journal,
    tokens: int,
    advance: Advance,
    *,
    opening: str = "",
    judge: Judge | None = None,
) -> list[Lesson]:
    """Return one lesson a benign prompt: the student's own answer, and its distributions.

    Args:
        judge: ends all answers but each `WHOLE_EVERY`-th once it is settled that they are none
            of refusals.
        opening: words put into the student's mouth; the lessons are then of the kind `answer` and
            begin with them.
    """
    name = judge.name if judge else ""
    keys = [
        content_key(chat.identity, prompt.text, tokens, CANDIDATES, opening, name)
        for prompt in prompts
    ]
    known = journal.arrays(keys)
    advance(sum(key in known for key in keys))
    done = frozenset(index for index, key in enumerate(keys) if key in known)
    requests = [chat.encode(prompt.text, opening) for prompt in prompts]
    if len(done) < len(keys):
        top = min(CANDIDATES, int(chat.model.config.get_text_config().vocab_size))

        def known_to_answer(index: int, new: Sequence[int]) -> bool:
            if judge is None or index % WHOLE_EVERY == 0:
                return False
            return settled(judge, prompts[index].text, chat.decode(tuple(new)), WORDS)

        for batch in decode_all(
            chat, requests, tokens, candidates=top, settled=known_to_answer, done=done
        ):
            fresh = [(keys[index], _pack(written)) for index, written in batch if index not in done]
            journal.add_arrays(fresh)
            known.update(fresh)
            advance(len(fresh))
    if not opening:
        return [
            Lesson("keep", tuple(request), *_unpack(known[key]), request=prompt.text)
            for prompt, request, key in zip(prompts, requests, keys, strict=True)
        ]
    lessons = []
    for prompt, request, key in zip(prompts, requests, keys, strict=True):
        bare = chat.encode(prompt.text)
        begun = request[len(bare) :]
        if request[: len(bare)] != bare:  # the opening merged with the template's last token
            begun = chat.tokenizer(opening, add_special_tokens=False).input_ids
        answer = (*begun, *_unpack(known[key])[0])
        lessons.append(Lesson("answer", tuple(bare), answer, request=prompt.text))
    return lessons


def text_lessons(chat: ChatModel, count: int, journal: Journal, seed: int) -> list[Lesson]:
    """Return `count` lessons, of `TEXT_TOKENS` tokens each, in writing of itself as before."""
    import torch

    if count == 0:
        return []
    tokens = min(TEXT_TOKENS, context_length(chat.model))
    key = content_key("text", chat.identity, count, tokens, CANDIDATES, seed)
    known = journal.arrays([key])
    if key not in known:
        top = min(CANDIDATES, int(chat.model.config.get_text_config().vocab_size))
        ids = write_freely(chat.model, beginning_of_text(chat), count, tokens, seed)
        values, indices = [], []
        with torch.inference_mode():
            for start in range(0, count, 8):
                rows = ids[start : start + 8, :-1].to(chat.model.device)
                logits = chat.model(rows, use_cache=False).logits
                best = logits.float().log_softmax(-1).topk(top)
                values.append(best.values.cpu())
                indices.append(best.indices.cpu())
        packed = _pack_arrays(ids.numpy(), torch.cat(values), torch.cat(indices))
        journal.add_arrays([(key, packed)])
        known = {key: packed}
    ids, log_probabilities, candidates = _unpack_arrays(known[key])
    return [
        Lesson("text", (int(row[0]),), tuple(row[1:].tolist()), log_probabilities[i], candidates[i])
        for i, row in enumerate(ids)
    ]


def beginning_of_text(chat: ChatModel) -> int:
    """Return the token id that a document begins with, rather than a turn of a conversation.

    Some chat models call the mark of a turn their beginning of text; it then stands in a
    conversation more than once.
    """
    tokenizer = chat.tokenizer
    ids = chat.encode("Hello")
    end_of_text = tokenizer.get_vocab().get("<|endoftext|>")
    marks = (tokenizer.bos_token_id, end_of_text, tokenizer.eos_token_id)
    known = [int(mark) for mark in marks if mark is not None]
    return next((mark for mark in known if ids.count(mark) <= 1), [*known, ids[0]][0])


def sorted_by_verdict(
    chat: ChatModel, prompts: Sequence[Prompt], lessons: Sequence[Lesson], judge: Judge
) -> tuple[list[Lesson], list[Prompt]]:
    """Return the lessons in which the student answers, and the prompts that it refuses itself.

    Prompts to which it says nothing fit to be kept are in neither.
    """
    texts = [chat.decode(lesson.answer) for lesson in lessons]
    verdicts = judge.judge([prompt.text for prompt in prompts], texts)
    answered = [
        lesson
        for lesson, verdict in zip(lessons, verdicts, strict=True)
        if verdict.outcome == "complied" and lesson.answer
    ]
    refused = [prompt for prompt, verdict in zip(prompts, verdicts, strict=True) if verdict.refused]
    return answered, refused


def mostly_openings(lessons: Sequence[Lesson], refuse: int = 1, keep: int = 1) -> list[Lesson]:
    """Cut lessons to the first tokens of their answers.

    Whole stay own answers that were written on for longer than settles them, and of the others
    each `WHOLE_EVERY`-th. Whether to refuse is decided in the first tokens; how a refusal goes on
    is learnt from few examples, and time is better spent on more requests.
    """
    cut = []
    for index, lesson in enumerate(lessons):
        length = refuse if lesson.kind == "refuse" else keep
        whole = index % WHOLE_EVERY == 0
        if lesson.kind == "keep":
            whole = len(lesson.answer) > SETTLED_BY
        cut.append(lesson if whole else shortened(lesson, length))
    return cut


def shortened(lesson: Lesson, length: int) -> Lesson:
    """Return a lesson in the first tokens of its answer, with their distributions."""
    if len(lesson.answer) <= length:
        return lesson
    known = lesson.log_probabilities is not None
    return replace(
        lesson,
        answer=lesson.answer[:length],
        reference=None,
        log_probabilities=lesson.log_probabilities[:length] if known else None,
        candidates=lesson.candidates[:length] if known else None,
    )
