"""Whose refusals a student learns where nobody said it, and why: in one sentence.

    choice = choose_teaching(config, context, chat, splits)
    treatment = distilling(choice.config)

A teacher that is given is taken. Else a student that refuses half of what is harmful when it is
told to becomes its own teacher, since what it says itself is the least change to it. One that is
too weak for that, or that refuses harmless requests as well when it is told to, learns the
sentence of `--refusal`. What is chosen depends on nothing but answers, so that it is the same on a
slow machine and on a fast one. The objective is what was asked for, and SFT by default: it takes
the least time a lesson (docs/results/distilling.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from demur.distill.baselines.context import INSTRUCTIONS, ContextBaseline
from demur.distill.teachers.choose import SELF
from demur.distill.teachers.filtering import MOST_BENIGN
from demur.distilling.config import REFUSAL, DistillConfig
from demur.errors import PromptError
from demur.figures import counts
from demur.measure.protocol import standard_probes
from demur.measure.validation import refusal_rates
from demur.models.chat_model import ChatModel
from demur.models.endpoint import is_endpoint
from demur.prompts.split import evenly
from demur.prompts.types import Splits
from demur.treating.stages import Context

PILOT = 24  # harmful requests, and as many twins
PILOT_TOKENS = 16
STRONG = 0.5  # the share of harmful requests that its own teacher refuses when it is told to
OBJECTIVES = {
    "sft": "by imitating them (SFT), which takes the least time a lesson",
    "dpo": "by preferring them to its own compliance (DPO), as asked",
    "rloo": "with verdicts as the reward (RLOO), as asked",
    "grpo": "with verdicts as the reward (GRPO), as asked",
    "logits": "token by token (logits), as asked",
}


@dataclass(frozen=True)
class Choice:
    """A configuration with nothing left open, and a sentence: what was chosen, and why."""

    config: DistillConfig
    sentence: str


def choose_teaching(
    config: DistillConfig, context: Context, chat: ChatModel, splits: Splits
) -> Choice:
    """Choose a teacher where none was given; a run that goes on keeps to what it chose.

    Args:
        chat: the untouched student; where nothing is given it is asked a few training requests.
    """
    journal, how = context.folder.journal, OBJECTIVES[config.objective]
    if config.teacher is not None:
        return Choice(config, f"It learns refusals {_whose(config.teacher)}, {how}.")
    if config.refusal != REFUSAL:
        return Choice(config, f"It learns the refusal that was given with --refusal, {how}.")
    known = journal.fact("chosen teaching")
    if known is None:
        itself, why = _itself(config, context, chat, splits)
        known = {"self": itself, "why": why}
        journal.keep_fact("chosen teaching", known)
    if known["self"]:
        return Choice(
            replace(config, teacher=SELF), f"It learns refusals of its own, {how}: {known['why']}."
        )
    return Choice(config, f"It learns the sentence of --refusal, {how}: {known['why']}.")


def _whose(teacher: str) -> str:
    if teacher == SELF:
        return "of its own, as told"
    if is_endpoint(teacher):
        return f"of {teacher}, of which an endpoint gives the words only"
    return f"of {teacher}"


def _itself(
    config: DistillConfig, context: Context, chat: ChatModel, splits: Splits
) -> tuple[bool, str]:
    """Return whether the student can be its own teacher, and why or why not."""
    told = ContextBaseline("plain", INSTRUCTIONS["plain"]).applied(chat)
    asked = standard_probes(
        evenly(splits.harmful("train"), PILOT, config.seed),
        evenly(splits.twins("train"), PILOT, config.seed),
        (),
        split="train",
        tokens=PILOT_TOKENS,
        prefilled=0,
    )
    probes = {probe.key: probe for probe in asked}
    try:
        harmful, twins, _ = refusal_rates(
            *(told, probes, context.folder.journal, context.judge, context.narrator),
            "told to refuse what is harmful",
        )
    except PromptError:
        return False, "it has no room for an instruction beside a request"
    said = f"told to refuse what is harmful, it refuses {counts(harmful)} such requests"
    if harmful.value < STRONG:
        return False, f"{said}, too few to be its own teacher"
    if twins.n and twins.value > MOST_BENIGN:
        return False, f"{said}, but also {counts(twins)} harmless twins"
    return True, said
