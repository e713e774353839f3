"""Objectives: what a step of training makes smaller. One file each; `trainer` calls them."""

from demur.distill.objectives.base import OBJECTIVES, PAIRED, Objective
from demur.distill.objectives.bradley_terry import BradleyTerry
from demur.distill.objectives.dpo import DirectPreference
from demur.distill.objectives.logits import Distilled
from demur.distill.objectives.policy import PolicyGradient
from demur.distill.objectives.reward import LearnedReward, RewardModel
from demur.distill.objectives.rewards import Reward, VerdictReward
from demur.distill.objectives.sft import Supervised
from demur.distill.objectives.universal import Universal

__all__ = [
    "OBJECTIVES",
    "PAIRED",
    "BradleyTerry",
    "DirectPreference",
    "Distilled",
    "LearnedReward",
    "Objective",
    "PolicyGradient",
    "Reward",
    "RewardModel",
    "Supervised",
    "Universal",
    "VerdictReward",
]
