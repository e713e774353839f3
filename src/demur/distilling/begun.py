"""The lessons of `--deep`: beside those of a run, others that begin within an answer.

They are added and nothing is taken away: the first token, where nearly all is decided, is taught as
often as without. Their two sides go equally deep: a refusal after the first tokens of complying,
and a benign answer that goes on after as many of its own. Where benign answers were begun by a few
tokens only, being deep in an answer was itself a reason to refuse (docs/results/distilling.md).
"""

from __future__ import annotations

from dataclasses import replace

from demur.distill.deep import MOST, begun_tokens, complying_answers, continued, deep_lessons
from demur.distill.lessons import Lesson, own_answers, shortened, sorted_by_verdict
from demur.distilling.config import DistillConfig
from demur.distilling.make_lessons import Made
from demur.models.chat_model import ChatModel
from demur.treating.stages import Context

INSTEAD = 4  # tokens with which the student would go on complying


def with_begun(config: DistillConfig, context: Context, chat: ChatModel, made: Made) -> Made:
    """Return a run's lessons with those that begin within an answer: about half as many more.

    Args:
        chat: the untouched student.
    """
    refusing, going_on = _refusing(config, context, chat, made)
    answering = _answering(config, context, chat, made)
    context.narrator.say(
        f"  {len(refusing)} more refusals are taught from within an answer that has begun, and "
        f"{len(answering)} benign answers to go on from there"
    )
    return replace(
        made,
        refusing=[*made.refusing, *refusing],
        answering=[*made.answering, *answering],
        going_on=going_on,
    )


def _refusing(
    config: DistillConfig, context: Context, chat: ChatModel, made: Made
) -> tuple[list[Lesson], dict[tuple[int, ...], tuple[int, ...]]]:
    """Return refusals after k tokens of complying, and by their prompts how that would go on."""
    journal, narrator = context.folder.journal, context.narrator
    with narrator.progress("what it says to harmful requests", len(made.harmful)) as advance:
        own = complying_answers(
            chat, made.harmful, journal, context.judge, tokens=MOST + INSTEAD, advance=advance
        )
    deep = deep_lessons(chat, made.harmful, own, config.refusal, config.seed)
    lessons, going_on = [], {}
    for bare, one, answer in zip(made.refusing, deep, own, strict=True):
        begun = len(one.prompt) - len(bare.prompt)
        if begun:
            lessons.append(replace(bare, prompt=one.prompt))
            going_on[one.prompt] = answer[begun : begun + INSTEAD]
    return lessons, going_on


def _answering(
    config: DistillConfig, context: Context, chat: ChatModel, made: Made
) -> list[Lesson]:
    """Return benign answers that go on after k tokens of themselves."""
    prompts = [one for one in made.benign if begun_tokens(config.seed, one.key)]
    with context.narrator.progress("its own answers, as far as begun", len(prompts)) as advance:
        whole = own_answers(
            chat, prompts, context.folder.journal, MOST + config.own_tokens, advance
        )
    kept, _ = sorted_by_verdict(chat, prompts, whole, context.judge)
    begun = continued(kept, config.seed, at_once=0.0)
    return [shortened(one, config.own_tokens) for one in begun]
