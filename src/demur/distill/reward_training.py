"""Learning a reward: the student is trained to tell the better of two answers, and put back.

    learned = learn_reward(chat, pairs, recipe, folder, narrator)

A fifth of the requests is held out, and tells how often it does. The training is `train`'s, with
its checkpoints: LoRA that begins with the directions in which the student tells harmful from
benign. What it learnt is taken off the student again, as a low-rank change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from demur.console import Narrator
from demur.distill.lessons import Lesson
from demur.distill.objectives.bradley_terry import BradleyTerry
from demur.distill.objectives.reward import RewardModel, score_texts
from demur.distill.recipe import Recipe
from demur.errors import TrainingError
from demur.models.chat_model import ChatModel
from demur.run.journal import content_key
from demur.stats import Rate, rate

LEAST = 10  # pairs on either side of the division
HELD_OUT = 5  # one request of so many
LEARNING_RATE = 1e-3


def learnt_from(chat: ChatModel, pairs: Sequence[Lesson], recipe: Recipe) -> str:
    """Return the key of what a reward is learnt from and how; see `RewardModel`."""
    texts = [(one.kind, one.prompt, one.answer, one.rejected) for one in pairs]
    return content_key("reward", chat.identity, repr(_recipe(recipe)), texts)


def learn_reward(
    chat: ChatModel, pairs: Sequence[Lesson], recipe: Recipe, folder: Path, narrator: Narrator
) -> RewardModel:
    """Learn from pairs of answers which are good.

    Args:
        chat: the untouched student; it is so again in the end.
        pairs: preference lessons (`preference_lessons`), each with `rejected`; of `refuse` lessons
            the request is harmful.
        recipe: of which batches, layers, rank and seed are taken.
        folder: where checkpoints go, and from where a broken-off training goes on.

    Raises:
        TrainingError: too few pairs.
    """
    import torch

    from demur.distill.choose import lora_changes, put, put_back
    from demur.distill.train import train

    out = [_held_out(one) for one in pairs]
    if min(sum(out), len(out) - sum(out)) < LEAST:
        raise TrainingError(
            f"There are {len(pairs)} pairs of answers, {sum(out)} of them held out: too few to "
            "learn a reward from.",
            "Give more prompts, or take the judge's verdict as the reward.",
        )
    width = chat.model.get_input_embeddings().weight.shape[1]
    generator = torch.Generator().manual_seed(recipe.seed)
    readout = torch.randn(width, generator=generator) / width**0.5
    # What is scored is followed by one token more, which collating takes away.
    whole = [
        replace(one, kind=_side(one), answer=(*one.answer, 0), rejected=(*one.rejected, 0))
        for one, held in zip(pairs, out, strict=True)
        if not held
    ]
    objective = _objective(whole, readout)
    peft, checkpoints = train(chat, whole, _recipe(recipe), folder, narrator, objective)
    put(peft, checkpoints[-1], 1.0)  # a training that had ended before has loaded nothing
    changes = lora_changes(peft)
    put_back(peft, checkpoints[-1])
    held = [one for one, is_out in zip(pairs, out, strict=True) if is_out]
    texts = [(one.prompt, answer) for one in held for answer in (one.answer, one.rejected)]
    found = score_texts(chat.model, texts, changes, readout)
    right = (found[::2] > found[1::2]).tolist()

    def share(kinds: Sequence[str]) -> Rate:
        of = [is_so for one, is_so in zip(held, right, strict=True) if _side(one) in kinds]
        return rate(sum(of), len(of))

    return RewardModel(
        changes,
        readout,
        float(found.mean()),
        float(found.std()) + 1e-6,
        chat.identity,
        learnt_from(chat, pairs, recipe),
        max(len(answer) for one in pairs for answer in (one.answer, one.rejected)),
        len(whole),
        share(("refuse", "answer")),
        share(("refuse",)),
        share(("answer",)),
    )


def _side(lesson: Lesson) -> Any:
    return "refuse" if lesson.kind == "refuse" else "answer"


def _held_out(lesson: Lesson) -> bool:
    return int(content_key("held out", lesson.prompt), 16) % HELD_OUT == 0


def _recipe(recipe: Recipe) -> Recipe:
    """Return how a reward is trained by a run whose student is trained as `recipe` says."""
    shared = ("rank", "informed", "first_layer", "last_layer", "batch", "micro_batch", "seed")
    return Recipe(
        objective="reward",
        learning_rate=LEARNING_RATE,
        checkpoints=recipe.checkpoints,
        **{name: getattr(recipe, name) for name in shared},
    )


def _objective(pairs: Sequence[Lesson], readout: Any) -> BradleyTerry:
    """Return the objective in which both sides weigh as much, and a pair 1 in the mean."""
    harmful = sum(one.kind == "refuse" for one in pairs)
    half = len(pairs) / 2
    return BradleyTerry(readout, half / max(1, harmful), half / max(1, len(pairs) - harmful))
