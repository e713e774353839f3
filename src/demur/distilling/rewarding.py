"""Learning the reward of a run: all processes train it together, and the run folder keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from demur.distill.lessons import Lesson
from demur.distill.objectives import LearnedReward, Objective, RewardModel
from demur.distill.objectives.make import make_objective
from demur.distill.objectives.reward import load_reward, save_reward
from demur.distill.recipe import Recipe
from demur.distill.reward_training import learn_reward, learnt_from
from demur.errors import CheckpointError
from demur.figures import counts, rate_text
from demur.models.chat_model import ChatModel
from demur.treating.stages import Context

CHANCE = 0.5  # of putting two answers in the right order
REWARD = "reward"


@dataclass(frozen=True)
class Unrewarded:
    """Reinforcement whose reward is still to be learned.

    Attributes:
        lessons: what is trained on.
        pairs: of answers, the better and the worse.
    """

    lessons: Sequence[Lesson]
    pairs: Sequence[Lesson]


def rewarded(context: Context, chat: ChatModel, waiting: Unrewarded, recipe: Recipe) -> Objective:
    """Return the objective, its reward learned now or by a run that was broken off since.

    Raises:
        TrainingError: there are too few pairs.
    """
    pairs, narrator, folder = waiting.pairs, context.narrator, context.folder.path
    key = learnt_from(chat, pairs, recipe)
    path = folder / f"reward-{recipe.seed}.safetensors"
    learned = _kept(path, chat, key)
    if learned is None:
        steps = folder / "training" / f"reward-{key[:12]}"
        learned = learn_reward(chat, pairs, recipe, steps, narrator)
        if not context.folder.follows:
            save_reward(learned, path)
    right = learned.held_out
    narrator.say(
        f"  the learned reward puts {counts(right)} pairs of held-out requests in the right order, "
        f"{rate_text(right)}: harmful {counts(learned.harmful)}, benign {counts(learned.benign)}"
    )
    if right.low <= CHANCE:
        narrator.say("  that is no better than chance, as far as so many pairs can show")
    context.folder.journal.keep_fact(
        REWARD, {"right": [right.count, right.n], "trained": learned.trained}
    )
    brief = replace(recipe, sample_tokens=min(recipe.sample_tokens, learned.longest))
    return make_objective(chat, waiting.lessons, brief, reward=LearnedReward(chat, learned))


def _kept(path: Path, chat: ChatModel, key: str) -> RewardModel | None:
    """Return the reward model in a file; None where it is not there or not what is to be learnt."""
    try:
        found = load_reward(path, chat)
    except CheckpointError:
        return None
    return found if found.learnt_from == key else None
