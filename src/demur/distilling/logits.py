"""Logit distillation as a run does it: whose logits are learnt, in what context, and how.

* Without another model the student teaches itself, in a context that tells it what to refuse.
* Another model of the same vocabulary teaches where to refuse, token by token, on what the student
  writes; where to answer, the student still teaches itself.
* Of another vocabulary, its probabilities are learnt by rank (`objectives.universal`).

Where training reads each lesson's own answer as often as keeping it on disk does, the teacher's
likeliest tokens are kept first (`cached_logits`), and what that loses is said.
"""

from __future__ import annotations

from demur.distill.cached_logits import Truncation, with_teacher_logits
from demur.distill.contexts import (
    SAFETY,
    Context,
    Guide,
    contexts,
    decided,
    hinted,
    instructed,
    shown,
)
from demur.distill.lessons import Lesson
from demur.distill.objectives import Objective, Universal
from demur.distill.objectives.universal import universal_rows
from demur.distill.recipe import Recipe
from demur.distill.teachers.other import Other, compare_vocabularies
from demur.distill.train import distilled, supervised
from demur.distilling.config import DistillConfig
from demur.distilling.make_lessons import Made
from demur.errors import TrainingError
from demur.figures import grouped, percent
from demur.models.chat_model import ChatModel
from demur.treating import stages

EXAMPLES = 4  # of either kind, in a teacher's context, where it has room
FACT = "logits"


def prepare_logits(
    config: DistillConfig, context: stages.Context, chat: ChatModel, made: Made, recipe: Recipe
) -> tuple[list[Lesson], Objective]:
    """Return the lessons that are trained on, and the objective.

    Args:
        chat: the untouched student.
        made: its `teacher` is the other model, if there is one.

    Raises:
        TrainingError: a teacher's context leaves no room for an answer.
    """
    lessons = [*made.refusing, *made.answering, *made.texts]
    other = made.teacher
    if other is not None and not compare_vocabularies(chat, other.chat).same:
        return lessons, _by_rank(context, chat, other, lessons, recipe)
    if other is None and config.teacher not in (None, "self"):
        context.narrator.say(
            "  this teacher tells words and no logits: those that are distilled are the student's "
            "own, when it is told what is to be refused"
        )
    prompts = _contexts(config, chat, made, lessons)
    said: dict[str, object] = {"teacher": other.name if other else "", "way": "tokens"}
    teacher = other.chat if other else None
    if pays_to_keep(recipe):
        lessons, said["kept"] = _kept(context, chat, other, lessons, prompts)
        if not recipe.on_policy:
            teacher = None  # all of its lessons' answers are on disk
    context.folder.journal.keep_fact(FACT, said)
    return lessons, distilled(chat, lessons, recipe, prompts, teacher)


def pays_to_keep(recipe: Recipe) -> bool:
    """Return whether training reads each lesson's own answer as often as keeping it does."""
    return recipe.epochs * (1 - recipe.on_policy) >= 1


def _by_rank(
    context: stages.Context, chat: ChatModel, other: Other, lessons: list[Lesson], recipe: Recipe
) -> Objective:
    requests = [lesson.request for lesson in lessons]
    rows = universal_rows(chat, other.chat, lessons, requests)
    places = sum(len(lesson.answer) for lesson in lessons if lesson.kind == "refuse")
    paired = sum(len(row.pairs) for row in rows.values())
    context.narrator.say(
        f"  both have written the same text before {grouped(paired)} of {grouped(places)} tokens "
        "of the refusals: there its probabilities are compared, by rank"
    )
    said = {"teacher": other.name, "way": "rank", "paired": [paired, places]}
    context.folder.journal.keep_fact(FACT, said)
    return Universal(supervised(lessons, recipe), other.chat.model, rows)


def _contexts(
    config: DistillConfig, chat: ChatModel, made: Made, lessons: list[Lesson]
) -> dict[int, tuple[int, ...]]:
    """Return the teacher's prompts, with as many examples as its context has room for."""
    requests = [lesson.request for lesson in lessons]
    if made.teacher is None:
        bare = {}
    else:
        bare = contexts(made.teacher.chat, lessons, requests, _plain, student=chat)
    examples = EXAMPLES
    while True:
        guide = guide_of(config, chat, made, examples)
        if made.teacher is not None:
            guide = _answering(guide)
        try:
            return bare | contexts(chat, lessons, requests, guide)
        except TrainingError:
            if examples == 1:
                raise
            examples //= 2


def _plain(lesson: Lesson, answer: str) -> Context | None:
    """Have another model see the harmful request alone, in its own template."""
    return Context() if lesson.kind == "refuse" else None


def _answering(guide: Guide) -> Guide:
    """Guide the student where it teaches itself beside another model: where it is to answer."""
    return lambda lesson, answer: guide(lesson, answer) if lesson.kind == "answer" else None


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


def _kept(
    context: stages.Context,
    chat: ChatModel,
    other: Other | None,
    lessons: list[Lesson],
    prompts: dict[int, tuple[int, ...]],
) -> tuple[list[Lesson], list[str]]:
    """Return the lessons with what their teachers think, and what keeping it loses, in words."""
    turns: list[tuple[ChatModel, str, tuple[str, ...]]]
    if other is None:
        turns = [(chat, "the student in its context", ("refuse", "answer"))]
    else:
        turns = [(other.chat, other.name, ("refuse",)), (chat, "the student", ("answer",))]
    width = int(chat.model.config.get_text_config().vocab_size)
    asked = sum(lesson.kind in ("refuse", "answer") for lesson in lessons)
    told = []
    with context.narrator.progress("what the teacher thinks of the answers", asked) as advance:
        for teacher, name, kinds in turns:
            lessons, lost = with_teacher_logits(
                teacher,
                lessons,
                prompts,
                context.folder.journal,
                kinds=kinds,
                width=width,
                advance=advance,
            )
            if lost is not None:
                told.append(_loss(name, lost))
    for sentence in told:
        context.narrator.say(f"  {sentence}")
    return lessons, told


def _loss(name: str, lost: Truncation) -> str:
    outside, apart = lost.outside, lost.divergence
    return (
        f"kept on disk of {name}: the {lost.kept} likeliest tokens at {grouped(lost.tokens)} "
        f"places of {grouped(outside.n)} answers; outside them is {percent(outside.value)} of the "
        f"probability ({percent(outside.low)} to {percent(outside.high)}; at most "
        f"{percent(lost.most_outside)}), and what is kept is {apart.value:.2g} nats a token away "
        f"({apart.low:.2g} to {apart.high:.2g})"
    )
