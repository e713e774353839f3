"""Preference lessons: of two answers to one request, which is the better.

On a harmful request the refusal is chosen and the student's own compliance rejected; on a benign
one the student's own answer is chosen and the refusal rejected, so that what is learnt is when to
refuse, not to refuse. How likely the untouched student finds either is computed once, before
training.

    pairs = preference_lessons(chat, harmful, refusing, complying, benign, judge)
    lessons = with_references(chat, pairs.lessons, journal, advance)
    train(chat, lessons, recipe, folder, narrator, DirectPreference())
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from demur.console import Advance
from demur.distill.collate import Collator, shared_prefix
from demur.distill.lessons import Lesson, sorted_by_verdict
from demur.distill.scores import answer_logits, token_log_probabilities, without_dropout
from demur.errors import TrainingError
from demur.judge.verdict import Judge
from demur.models.batch import plan
from demur.models.chat_model import ChatModel
from demur.prompts.types import Prompt
from demur.run.journal import Journal, content_key

PAIRS = 32  # scored at once


@dataclass(frozen=True)
class Preferences:
    """What `preference_lessons` makes.

    Attributes:
        lessons: harmful requests first; each has `answer` and `rejected`.
        not_complied: harmful requests left out, since the student does not comply with them.
    """

    lessons: list[Lesson]
    not_complied: int


def preference_lessons(
    chat: ChatModel,
    harmful: Sequence[Prompt],
    refusing: Sequence[Lesson],
    complying: Sequence[Lesson],
    benign: Sequence[Lesson],
    judge: Judge,
    tokens: int = 32,
    *,
    going_on: Mapping[tuple[int, ...], tuple[int, ...]] | None = None,
) -> Preferences:
    """Make pairs of refusals, of what the student says instead, and of its benign answers.

    Args:
        harmful: the requests that `complying` answers, in the same order.
        refusing: `refuse` lessons (`lessons.refusing_lessons`); of requests that are not among
            `harmful` none is used.
        complying: the student's own answers to `harmful` (`lessons.own_answers`), opened or not;
            only those that the judge calls complied are used.
        benign: `keep` and `answer` lessons; the answers chosen.
        tokens: of a rejected compliance at most so many.
        going_on: of refusals from within an answer that has begun, by their prompts, the tokens
            with which the student would go on complying; they are rejected.

    Raises:
        TrainingError: there is no refusal, or the student complies with nothing.
    """
    if not refusing:
        raise TrainingError(
            "There is no refusal to prefer to anything.", "Give harmful prompts to train on."
        )
    complied, _ = sorted_by_verdict(chat, harmful, complying, judge)
    begun = {prompt: answer for prompt, answer in (going_on or {}).items() if answer}
    instead = begun | {lesson.prompt: lesson.answer[:tokens] for lesson in complied}
    pairs = [
        replace(lesson, rejected=instead[lesson.prompt], reference=None)
        for lesson in refusing
        if lesson.prompt in instead
    ]
    if not pairs:
        raise TrainingError(
            f"The student complies with none of {len(refusing)} harmful requests, so that there is "
            "nothing that its refusals could be preferred to.",
            "Use another objective, such as sft.",
        )
    refusals = sorted({lesson.answer for lesson in refusing})
    for lesson in benign:
        turn = int(content_key(lesson.prompt), 16) % len(refusals)
        # Where the student's own answer is that refusal, there is nothing to prefer.
        rejected = () if lesson.answer == refusals[turn] else refusals[turn]
        pairs.append(replace(lesson, rejected=rejected, reference=None))
    refused = sum(lesson.prompt not in instead for lesson in refusing)
    return Preferences(pairs, refused)


def with_references(
    chat: ChatModel, lessons: Sequence[Lesson], journal: Journal, advance: Advance
) -> list[Lesson]:
    """Return the lessons with the student's log-probabilities, summed over each answer's tokens.

    Call it before training, with the answers as they are to be trained on. What the journal
    knows is not computed again.

    Args:
        advance: called with the number of lessons whose log-probabilities have become known.
    """
    import torch

    paired = [place for place, lesson in enumerate(lessons) if lesson.rejected]
    keys = {
        place: content_key(
            *("reference", chat.identity, lessons[place].prompt),
            *(lessons[place].answer, lessons[place].rejected),
        )
        for place in paired
    }
    known = journal.arrays(keys.values())
    advance(sum(key in known for key in keys.values()))
    if paired:
        shared = shared_prefix(chat.model, [lessons[place] for place in paired])
        collate = Collator(lessons, shared, pairs=True)
    for turns in plan([len(lessons[place].prompt) for place in paired], PAIRS):
        places = [paired[turn] for turn in turns]
        if all(keys[place] in known for place in places):
            continue
        rows = [{"lesson": place} for place in places]
        batch = {name: one.to(chat.model.device) for name, one in collate(rows).items()}
        with torch.inference_mode(), without_dropout(chat.model):
            logits = answer_logits(chat.model, batch)
            sums = token_log_probabilities(logits, batch["labels"]).sum(1).tolist()
        fresh = [
            (keys[place], struct.pack("<2d", *scores))
            for place, *scores in zip(places, sums[: len(places)], sums[len(places) :], strict=True)
            if keys[place] not in known
        ]
        journal.add_arrays(fresh)
        known.update(fresh)
        advance(len(fresh))
    scored = list(lessons)
    for place, key in keys.items():
        chosen, rejected = struct.unpack("<2d", known[key])
        scored[place] = replace(lessons[place], reference=(chosen, rejected))
    return scored
