"""Contexts: what a teacher of logits sees around a request that the student does not see.

    guide = decided(refused, answered)                    # or hinted, instructed(...), shown(...)
    prompts = contexts(chat, lessons, requests, guide)    # index of a lesson -> teacher's prompt
    Distilled(lessons, chat.stops, prompts)

* `instructed`: a safety instruction as system prompt (context distillation, Askell et al. 2021,
  arXiv 2112.00861; Snell et al. 2022, arXiv 2209.15189). For students that refuse when told to.
* `shown`: earlier turns in which harmful requests are refused and others answered.
* `hinted` and `decided`: the right decision on this very request, which the student does not know
  (privileged information, Vapnik and Vashist 2009; generalised distillation, Lopez-Paz et al.
  2016): in words, with the sentence to say, or by examples that all went that way.

A guide is asked for `refuse` and `answer` lessons only: on requests that the student answers by
itself, the untouched student without any context is the teacher.

How often SmolLM2-135M refuses in a context, of 24 harmful validation requests and of 24 twins
(greedy, the first 8 tokens, 95 % intervals; it refuses 1 and 2 without any, in 16 tokens):

    instructed                  3 (4 to 31 %)       5 (9 to 40 %)
    hinted, to refuse/answer    2 (2 to 26 %)       0 (0 to 14 %)
    shown 4 + 4, with SAFETY   20 (64 to 93 %)     16 (47 to 82 %)

It does not do what it is told; it goes on as it was shown, whatever is asked. That is a teacher on
harmful requests alone, which is where it is asked: `keep` lessons never see the examples.
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

    A weak student goes on refusing after it, harmful or not: then use `decided` where there are
    `answer` lessons.

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

    It is said twice, before the conversation and after the request.
    """
    if lesson.kind == "refuse":
        system, note = (text.replace("{refusal}", answer) for text in (REFUSE, REFUSE_NOTE))
        return Context(system=system, note=note)
    return Context(system=ANSWER, note=ANSWER_NOTE)


def decided(refused: Sequence[str], answered: Sequence[tuple[str, str]]) -> Guide:
    """Return the guide that gives away the decision by example: all earlier turns went that way.

    For models too weak to follow what they are told, but not to go on as before.

    Args:
        refused: harmful requests, shown with the lesson's own refusal; not from the test split.
        answered: benign requests with the student's own answers, shown before `answer` lessons.
    """

    def guide(lesson: Lesson, answer: str) -> Context:
        if lesson.kind == "refuse":
            return Context(examples=tuple((request, answer) for request in refused))
        return Context(examples=tuple(answered))

    return guide


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
        begun = begun_with(student or chat, lesson, request)
        context = guide(lesson, chat.decode(lesson.answer))
        if context is None:
            continue
        prompt = (*encode_in_context(chat, request, context), *begun)
        require_room(chat, prompt, lesson.answer)
        found[index] = prompt
    return found


def begun_with(student: ChatModel, lesson: Lesson, request: str) -> tuple[int, ...]:
    """Return the tokens that stand in a lesson's prompt after its request.

    Raises:
        TrainingError: the lesson is not of this request.
    """
    bare = tuple(student.encode(request))
    if lesson.prompt[: len(bare)] != bare:
        raise TrainingError(
            "A lesson and its request do not belong together.",
            "Give the requests in the order in which the lessons were made.",
        )
    return lesson.prompt[len(bare) :]


def require_room(chat: ChatModel, prompt: Sequence[int], answer: Sequence[int]) -> None:
    """Check that a teacher's context leaves its answer room.

    Raises:
        TrainingError: it does not.
    """
    room = context_length(chat.model)
    if len(prompt) + len(answer) > room:
        raise TrainingError(
            f"A teacher's context has {len(prompt)} tokens, the model's holds {room}.",
            "Show fewer examples, or leave long requests out.",
        )


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
