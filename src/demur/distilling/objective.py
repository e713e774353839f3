"""What an objective trains on: the lessons of a run as it takes them, and the objective itself."""

from __future__ import annotations

from dataclasses import replace

from demur.distill.contexts import SAFETY, Guide, contexts, decided, hinted, instructed, shown
from demur.distill.deep import complying_answers, continued, deep_lessons
from demur.distill.lessons import Lesson, mostly_openings, own_answers
from demur.distill.objectives import Objective
from demur.distill.preference import preference_lessons, with_references
from demur.distill.train import Recipe, distilled, supervised
from demur.distilling.config import DistillConfig
from demur.distilling.make_lessons import Made
from demur.errors import TrainingError
from demur.models.chat_model import ChatModel
from demur.treating.stages import Context

REJECTED_TOKENS = 8
EXAMPLES = 4  # of either kind, in a teacher's context, where it has room


def prepare(
    config: DistillConfig, context: Context, chat: ChatModel, made: Made, recipe: Recipe
) -> tuple[list[Lesson], Objective]:
    """Return the lessons that are trained on, and the objective.

    Args:
        chat: the untouched student.

    Raises:
        TrainingError: the objective finds nothing to train on.
    """
    if config.deep:
        made = _deep(config, context, chat, made)
    whole = [*made.refusing, *made.answering]
    if config.objective == "sft":
        lessons = [*mostly_openings(whole), *made.texts]
        return lessons, supervised(lessons, recipe)
    if config.objective == "logits":
        lessons = [*whole, *made.texts]
        return lessons, distilled(chat, lessons, recipe, _guided(config, chat, made, lessons))
    from demur.distill.objectives.make import make_objective

    if config.objective == "dpo":
        lessons = [*_preferences(context, chat, made), *made.texts]
    else:
        lessons = [*whole, *made.texts]
    return lessons, make_objective(chat, lessons, recipe, context.judge)


def _guided(
    config: DistillConfig, chat: ChatModel, made: Made, lessons: list[Lesson]
) -> dict[int, tuple[int, ...]]:
    """Return the teacher's prompts, with as many examples as its context has room for."""
    requests = [lesson.request for lesson in lessons]
    examples = EXAMPLES
    while True:
        try:
            return contexts(chat, lessons, requests, guide_of(config, chat, made, examples))
        except TrainingError:
            if examples == 1:
                raise
            examples //= 2


def guide_of(config: DistillConfig, chat: ChatModel, made: Made, examples: int = EXAMPLES) -> Guide:
    """Return what the student sees when it is its own teacher.

    Args:
        examples: of either kind, where it sees examples.
    """
    refusal = config.refusal[0]
    if config.guide == "instructed":
        return instructed(refusal)
    if config.guide == "hinted":
        return hinted
    brief = sorted(made.harmful, key=lambda prompt: (len(prompt.text), prompt.key))
    refused = [prompt.text for prompt in brief[:examples]]
    by_length = sorted(made.answering, key=lambda lesson: (len(lesson.prompt), lesson.prompt))
    answered = [
        (lesson.request, chat.decode(lesson.answer))
        for lesson in by_length[:examples]
        if lesson.request
    ]
    if config.guide == "shown":
        return shown(refused, refusal, answered, SAFETY)
    return decided(refused, answered)


def _deep(config: DistillConfig, context: Context, chat: ChatModel, made: Made) -> Made:
    """Return the lessons with half of them begun: by compliance, or by the benign answer."""
    with context.narrator.progress("what it says to harmful requests", len(made.harmful)) as one:
        own = complying_answers(
            chat, made.harmful, context.folder.journal, context.judge, advance=one
        )
    begun = deep_lessons(chat, made.harmful, own, config.refusal, config.seed)
    refusing = [
        replace(bare, prompt=deep.prompt) for bare, deep in zip(made.refusing, begun, strict=True)
    ]
    count = sum(
        len(deep.prompt) > len(bare.prompt)
        for deep, bare in zip(refusing, made.refusing, strict=True)
    )
    context.narrator.say(
        f"  {count} of {len(refusing)} refusals are taught from within an answer that has begun"
    )
    return replace(made, refusing=refusing, answering=continued(made.answering, config.seed))


def _preferences(context: Context, chat: ChatModel, made: Made) -> list[Lesson]:
    journal, narrator = context.folder.journal, context.narrator
    with narrator.progress("what it says to harmful requests", len(made.harmful)) as advance:
        complying = own_answers(
            chat, made.harmful, journal, REJECTED_TOKENS, advance, judge=context.judge
        )
    found = preference_lessons(
        chat,
        made.harmful,
        made.refusing,
        complying,
        made.answering,
        context.judge,
        REJECTED_TOKENS,
    )
    narrator.say(
        f"  {found.not_complied} harmful requests left out, with which it does not comply itself"
    )
    with narrator.progress("how likely it finds either answer", len(found.lessons)) as advance:
        return with_references(chat, found.lessons, journal, advance)
