"""Deep refusals: lessons in refusing from within an answer that has already begun to comply.

A model that decides in its first tokens alone is undone by whoever writes these tokens for it
(Qi et al. 2024, "Safety alignment should be made more than just a few tokens deep",
arXiv 2406.05946). Their remedy, section 4: with h an answer that complies and k a random length,
train on the refusal after the first k tokens of h, which are context and not trained on. Here h is
the student's own answer, k = 0 in half of the lessons and otherwise uniform from 1 to 20.

    own = complying_answers(chat, harmful, journal, judge)
    lessons = deep_lessons(chat, harmful, own, refusals, seed) + continued(keeps, seed)

* The refusal follows at once, the same sentence as everywhere, with no words between. So the token
  that decides is the same wherever the refusal begins, and the decision of `objectives.sft` is made
  where recovery is wanted: after k tokens, refuse or go on. A paragraph's break before the refusal
  would read better, but would make the break a token that refuses, and benign answers have many.
* `continued` is the mirror: benign answers go on from k tokens of their own. Without it the student
  would learn that an answer already begun is a reason to refuse.

What the student says to harmful requests is in the run's journal and in memory, nowhere else: no
log, report or patch holds it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from demur.console import Advance
from demur.distill.lessons import Lesson, own_answers, refusing_lessons
from demur.errors import TrainingError
from demur.judge.verdict import Judge
from demur.models.chat_model import ChatModel, context_length
from demur.prompts.types import Prompt
from demur.run.journal import Journal, content_key

MOST = 20
AT_ONCE = 0.5


def begun_tokens(seed: int, name: str, most: int = MOST, at_once: float = AT_ONCE) -> int:
    """Return k: how many tokens of a complying answer stand before a refusal.

    Args:
        name: of the lesson; the draw depends on nothing but it and the seed.
        most: k is uniform from 1 to this,
        at_once: or 0, with this probability.
    """
    generator = random.Random(f"{seed}/{name}")
    return 0 if generator.random() < at_once else generator.randint(1, most)


def complying_answers(
    chat: ChatModel,
    prompts: Sequence[Prompt],
    journal: Journal,
    judge: Judge,
    *,
    tokens: int = MOST,
    advance: Advance = lambda count: None,
) -> list[tuple[int, ...]]:
    """Return the first tokens of the student's own answer to each request, its end mark left out.

    Where it does not comply, and there is nothing to recover from, they are none.
    """
    lessons = own_answers(chat, prompts, journal, tokens, advance)
    answers = [
        tuple(token for token in lesson.answer[:tokens] if token not in chat.stops)
        for lesson in lessons
    ]
    texts = [chat.decode(answer) for answer in answers]
    verdicts = judge.judge([prompt.text for prompt in prompts], texts)
    return [
        answer if verdict.outcome == "complied" else ()
        for answer, verdict in zip(answers, verdicts, strict=True)
    ]


def deep_lessons(
    chat: ChatModel,
    prompts: Sequence[Prompt],
    own: Sequence[Sequence[int]],
    refusals: Sequence[str],
    seed: int,
    *,
    most: int = MOST,
    at_once: float = AT_ONCE,
) -> list[Lesson]:
    """Return one `refuse` lesson a harmful prompt, half of them after k tokens of complying.

    Args:
        own: the student's complying answers, from `complying_answers`; a shorter one is the end of
            what can be begun.
        refusals: as in `refusing_lessons`.

    Raises:
        TrainingError: a refusal is empty, or `own` is not of these prompts.
    """
    if len(own) != len(prompts):
        raise TrainingError(
            f"There are {len(own)} answers to {len(prompts)} harmful requests.",
            "Give one answer a request, an empty one where the student refuses.",
        )
    room = context_length(chat.model)
    lessons = []
    for prompt, lesson, answer in zip(
        prompts, refusing_lessons(chat, prompts, refusals), own, strict=True
    ):
        left = max(0, room - len(lesson.prompt) - len(lesson.answer))
        begun = tuple(answer[: min(begun_tokens(seed, prompt.key, most, at_once), left)])
        lessons.append(replace(lesson, prompt=(*lesson.prompt, *begun)))
    return lessons


def continued(
    lessons: Sequence[Lesson], seed: int, *, most: int = MOST, at_once: float = AT_ONCE
) -> list[Lesson]:
    """Return the lessons with k tokens of each benign answer moved from it to the prompt.

    At least one token is left to learn. Lessons of other kinds stay as they are; distributions go
    with their tokens. To be called before `mostly_openings`, which leaves nothing to continue.
    """
    moved = []
    for lesson in lessons:
        if lesson.kind not in ("keep", "answer"):
            moved.append(lesson)
            continue
        drawn = begun_tokens(seed, content_key(lesson.prompt), most, at_once)
        begun = min(drawn, len(lesson.answer) - 1)
        known = lesson.log_probabilities is not None
        moved.append(
            replace(
                lesson,
                prompt=(*lesson.prompt, *lesson.answer[:begun]),
                answer=lesson.answer[begun:],
                log_probabilities=lesson.log_probabilities[begun:] if known else None,
                candidates=lesson.candidates[begun:] if known else None,
            )
        )
    return moved
