"""The objective that a recipe names, with the recipe's prices.

train(chat, lessons, recipe, folder, narrator, make_objective(chat, lessons, recipe, judge))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from demur.distill.lessons import Lesson
from demur.distill.objectives.base import Objective
from demur.distill.objectives.dpo import DirectPreference
from demur.distill.objectives.policy import PolicyGradient
from demur.distill.objectives.rewards import Reward, VerdictReward
from demur.distill.recipe import Recipe
from demur.distill.train import supervised
from demur.errors import ConfigError
from demur.judge.settled import is_quick
from demur.judge.verdict import Judge
from demur.models.chat_model import ChatModel


def make_objective(
    chat: ChatModel,
    lessons: Sequence[Lesson],
    recipe: Recipe,
    judge: Judge | None = None,
    reward: Reward | None = None,
) -> Objective:
    """Return the objective; the lessons must be those that are trained on.

    Args:
        judge: its verdicts are the reward of reinforcement, unless there is another.
        reward: of reinforcement.

    Raises:
        ConfigError: the recipe names none of those made here, or reinforcement has no reward.
    """
    own: dict[str, Any] = {} if recipe.beta is None else {"beta": recipe.beta}
    if recipe.objective == "sft":
        return supervised(lessons, recipe)
    if recipe.objective == "dpo":
        return DirectPreference(
            keep_weight=recipe.keep_weight,
            sft_weight=recipe.sft_weight,
            normalised=recipe.normalised,
            **own,
        )
    if recipe.objective not in ("rloo", "grpo"):
        raise ConfigError(
            f"There is no objective '{recipe.objective}' of this kind.",
            "Choose sft, dpo, rloo or grpo.",
        )
    decided = None
    if reward is None and judge is not None:
        reward = VerdictReward(chat, judge, recipe.over_refusal_price)
        decided = reward.decided if is_quick(judge) else None
    if reward is None:
        raise ConfigError("Reinforcement has nothing to reward by.", "Give a judge or a reward.")
    return PolicyGradient(
        lessons,
        reward,
        chat.stops,
        cast(Literal["rloo", "grpo"], recipe.objective),
        samples=recipe.samples,
        tokens=recipe.sample_tokens,
        guided=recipe.guided,
        keep_weight=recipe.keep_weight,
        decided=decided,
        **own,
    )
