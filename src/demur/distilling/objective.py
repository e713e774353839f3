"""What an objective trains on: the lessons of a run as it takes them, and the objective itself."""

from __future__ import annotations

from demur.distill.lessons import Lesson, mostly_openings, own_answers
from demur.distill.objectives import Objective
from demur.distill.preference import preference_lessons, with_references
from demur.distill.recipe import Recipe
from demur.distill.train import supervised
from demur.distilling.begun import with_begun
from demur.distilling.config import DistillConfig
from demur.distilling.logits import prepare_logits
from demur.distilling.make_lessons import Made
from demur.distilling.rewarding import Unrewarded
from demur.models.chat_model import ChatModel
from demur.treating.stages import Context

REJECTED_TOKENS = 8


def prepare(
    config: DistillConfig, context: Context, chat: ChatModel, made: Made, recipe: Recipe
) -> tuple[list[Lesson], Objective | Unrewarded]:
    """Return the lessons that are trained on, and the objective or what its reward is learnt from.

    Args:
        chat: the untouched student.

    Raises:
        TrainingError: the objective finds nothing to train on.
    """
    if config.deep:
        made = with_begun(config, context, chat, made)
    whole = [*made.refusing, *made.answering]
    if config.objective == "sft":
        lessons = [*mostly_openings(whole), *made.texts]
        return lessons, supervised(lessons, recipe)
    if config.objective == "logits":
        return prepare_logits(config, context, chat, made, recipe)
    from demur.distill.objectives.make import make_objective

    if config.objective == "dpo":
        lessons = [*_preferences(context, chat, made), *made.texts]
    else:
        lessons = [*whole, *made.texts]
        if config.reward == "learned":
            preferred = _preferred(context, chat, made)
            return lessons, Unrewarded(lessons, [one for one in preferred if one.rejected])
    return lessons, make_objective(chat, lessons, recipe, context.judge)


def _preferences(context: Context, chat: ChatModel, made: Made) -> list[Lesson]:
    found = _preferred(context, chat, made)
    with context.narrator.progress("how likely it finds either answer", len(found)) as advance:
        return with_references(chat, found, context.folder.journal, advance)


def _preferred(context: Context, chat: ChatModel, made: Made) -> list[Lesson]:
    """Return pairs of answers, the better and the worse, without the student's own preference."""
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
        going_on=made.going_on,
    )
    narrator.say(
        f"  {found.not_complied} harmful requests left out, with which it does not comply itself"
    )
    return found.lessons
