"""Objectives: what a step of training makes smaller. One file each; `trainer` calls them."""

from demur.distill.objectives.base import OBJECTIVES, Objective
from demur.distill.objectives.logits import Distilled
from demur.distill.objectives.sft import Supervised
from demur.distill.objectives.universal import Universal

__all__ = ["OBJECTIVES", "Distilled", "Objective", "Supervised", "Universal"]
