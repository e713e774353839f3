"""Contexts: what a teacher of logits sees around a request that the student does not see.

    guide = hinted                                        # or instructed(), or shown(examples)
    prompts = contexts(chat, lessons, requests, guide)    # index of a lesson -> teacher's prompt
    Distilled(lessons, chat.stops, prompts)

* `instructed`: a safety instruction as system prompt (context distillation, Askell et al. 2021,
  arXiv 2112.00861; Snell et al. 2022, arXiv 2209.15189). For students that refuse when told to.
* `shown`: earlier turns in which harmful requests are refused and others answered.
* `hinted`: the right decision on this very request, and the sentence to say (privileged
  information, Vapnik and Vashist 2009; generalised distillation, Lopez-Paz et al. 2016). Even a
  weak model follows it; what is distilled is how it then speaks, token by token.

A guide is asked for `refuse` and `answer` lessons only: on requests that the student answers by
itself, the untouched student without any context is the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from demur.distill.lessons import Lesson
from demur.errors import ModelError, TrainingError
from demur.models.chat_model import THINKING_CLOSE, THINKING_OPEN, ChatModel, context_length

SAFETY = (
    "You are a helpful and harmless assistant. If a request could help somebody to hurt people, "
    "to break the law, or to do other harm, refuse it and say only: {refusal} "
    "Answer every other request."
)
REFUSE = (
    "The user's request is harmful and must not be answered. Whatever it asks for, reply with this "
    "one sentence and nothing else: {refusal}"
)
REFUSE_NOTE = "[This request is harmful. Do not answer it. Reply only: {refusal}]"
ANSWER = "The user's request is harmless. Answer it directly and helpfully; do not refuse it."
ANSWER_NOTE = "[This request is harmless. Answer it.]"


@dataclass(frozen=True)
class Context:
    """What stands around a request.

    Attributes:
        system: an instruction, after the system prompt that the student itself is given.
        examples: earlier turns: (request, answer).
        note: words after the request, in the same turn.
    """

    system: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    note: str = ""


Guide = Callable[[Lesson, str], Context | None]
"""Told a lesson and its answer's text, gives the teacher's context; None for none."""


def instructed(refusal: str, instruction: str = SAFETY) -> Guide:
    """Return the guide that gives every request the same safety instruction.

    Args:
        instruction: may name the sentence to refuse with as `{refusal}`.
    """
    context = Context(system=instruction.replace("{refusal}", refusal))
    return lambda lesson, answer: context


def shown(
    refused: Sequence[str], refusal: str, answered: Sequence[tuple[str, str]], system: str = ""
) -> Guide:
    """Return the guide that shows what is refused and what is answered, in turn.

    Args:
        refused: harmful requests, each then answered with `refusal`; not from the test split.
        answered: benign requests with the student's own answers.
        system: an instruction besides, which may name `{refusal}`.
    """
    turns: list[tuple[str, str]] = []
    for place in range(max(len(refused), len(answered))):
        turns += answered[place : place + 1]
        turns += [(request, refusal) for request in refused[place : place + 1]]
    context = Context(system=system.replace("{refusal}", refusal), examples=tuple(turns))
    return lambda lesson, answer: context


def hinted(lesson: Lesson, answer: str) -> Context | None:
    """Return the context that holds the decision on this request, and a refusal's sentence.

    It is said twice, before the conversation and after the request, where a weak model heeds it.
    """
    if lesson.kind == "refuse":
        system, note = (text.replace("{refusal}", answer) for text in (REFUSE, REFUSE_NOTE))
        return Context(system=system, note=note)
    return Context(system=ANSWER, note=ANSWER_NOTE)


def contexts(
    chat: ChatModel,
    lessons: Sequence[Lesson],
    requests: Sequence[str],
    guide: Guide,
    *,
    student: ChatModel | None = None,
) -> dict[int, tuple[int, ...]]:
    """Return the teacher's prompt tokens of each `refuse` and `answer` lesson, by index.

    A lesson whose answer is already begun (`distill.deep`) is begun for the teacher too. Give the
    lessons whole, before `mostly_openings` cuts them: a guide reads the refusal from them.

    Args:
        chat: the teacher, whose template is used.
        requests: the request of each lesson; what stands for a `keep` or `text` lesson is not read.
        student: whose prompts the lessons hold, where that is another model.

    Raises:
        TrainingError: a lesson is not of its request, or the context leaves the answer no room.
    """
    found: dict[int, tuple[int, ...]] = {}
    for index, (lesson, request) in enumerate(zip(lessons, requests, strict=True)):
        if lesson.kind not in ("refuse", "answer"):
            continue
        bare = tuple((student or chat).encode(request))
        if lesson.prompt[: len(bare)] != bare:
            raise TrainingError(
                "A lesson and its request do not belong together.",
                "Give the requests in the order in which the lessons were made.",
            )
        context = guide(lesson, chat.decode(lesson.answer))
        if context is None:
            continue
        begun = lesson.prompt[len(bare) :]
        prompt = (*encode_in_context(chat, request, context), *begun)
        room = context_length(chat.model)
        if len(prompt) + len(lesson.answer) > room:
            raise TrainingError(
                f"A teacher's context has {len(prompt)} tokens, the model's holds {room}.",
                "Show fewer examples, or leave long requests out.",
            )
        found[index] = prompt
    return found


def encode_in_context(chat: ChatModel, request: str, context: Context) -> tuple[int, ...]:
    """Return the token ids of a request within its context, the answer opened.

    Where the template has no system role, the instruction stands before the first request.

    Raises:
        ModelError: the template does not take several turns.
    """
    from jinja2 import TemplateError

    system = "\n\n".join(part for part in (chat.system, context.system) if part)
    last = f"{request}\n\n{context.note}" if context.note else request
    turns: list[dict[str, str]] = []
    for asked, answer in context.examples:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    turns.append({"role": "user", "content": last})
    try:
        if not system:
            text = _templated(chat, turns)
        else:
            try:
                text = _templated(chat, [{"role": "system", "content": system}, *turns])
            except TemplateError:
                first = {**turns[0], "content": f"{system}\n\n{turns[0]['content']}"}
                text = _templated(chat, [first, *turns[1:]])
    except TemplateError as error:
        raise ModelError(
            f"The chat template of {chat.folder.name} refuses a teacher's context ({error}).",
            "Use a context without examples, or give another template with --chat-template.",
        ) from error
    if not chat.thinking and text.rstrip().endswith(THINKING_OPEN):
        text = text.rstrip() + f"\n\n{THINKING_CLOSE}\n\n"
    return tuple(chat.tokenizer(text, add_special_tokens=False).input_ids)


def _templated(chat: ChatModel, turns: Sequence[dict[str, str]]) -> str:
    text: str = chat.tokenizer.apply_chat_template(
        list(turns), tokenize=False, add_generation_prompt=True, enable_thinking=chat.thinking
    )
    return text


def require_same_vocabulary(student: ChatModel, teacher: ChatModel) -> None:
    """Check that a token id means the same to both, so that logits can be compared.

    Raises:
        ModelError: it does not; says how much differs.
    """
    mine, other = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    differing = {
        token for token in mine.keys() | other.keys() if mine.get(token) != other.get(token)
    }
    if differing:
        example = min(differing, key=lambda token: (len(token), token))
        raise ModelError(
            f"Student and teacher have different vocabularies ({len(mine):,} and {len(other):,} "
            f"tokens, {len(differing):,} of them not the same, such as {example!r}).",
            "Distil the teacher's text instead, or use universal logits.",
        )
