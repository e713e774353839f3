"""Objectives: what a step of training makes smaller. One file each; `trainer` calls them."""

from demur.distill.objectives.base import OBJECTIVES, Objective
from demur.distill.objectives.dpo import DirectPreference
from demur.distill.objectives.logits import Distilled
from demur.distill.objectives.policy import PolicyGradient
from demur.distill.objectives.reward import LearnedReward
from demur.distill.objectives.rewards import Reward, VerdictReward
from demur.distill.objectives.sft import Supervised
from demur.distill.objectives.universal import Universal

__all__ = [
    "OBJECTIVES",
    "DirectPreference",
    "Distilled",
    "LearnedReward",
    "Objective",
    "PolicyGradient",
    "Reward",
    "Supervised",
    "Universal",
    "VerdictReward",
]
