"""What distilling did, told in sentences for the report: lessons, training, choosing."""

from __future__ import annotations

from collections.abc import Sequence

from demur import figures
from demur.distill.choose import Candidate
from demur.distilling.config import DistillConfig
from demur.distilling.logits import FACT as LOGITS
from demur.distilling.rewarding import REWARD
from demur.measure.allowance import Payment
from demur.treating.stages import Context

TRAINED = {
    "sft": "to refuse the harmful requests",
    "dpo": "to prefer refusals to what the model itself says to harmful requests",
    "rloo": "on its own answers, rewarded by the judge's verdicts",
    "grpo": "on its own answers, rewarded by the judge's verdicts",
    "logits": "to agree, at every token, with what it says when it knows what is to be refused",
}

LOWEST = "; of learning rates within a standard error of the best, the lowest"


def account(
    config: DistillConfig,
    context: Context,
    chosen: Candidate,
    tried: Sequence[Candidate],
    payment: Payment | None,
) -> tuple[str, ...]:
    """Return what was done, a step a sentence or two."""
    made = context.folder.journal.fact("lessons") or {}
    refusals = _taught_refusals(config, context)
    several = len(config.learning_rates) > 1
    return (
        f"Lessons were made: {figures.grouped(made.get('refuse', 0))} harmful requests, each with "
        f"{refusals}, and {figures.grouped(made.get('keep', 0))} harmless ones "
        "with the model's own answers; "
        f"{figures.grouped(made.get('left_out', 0))} that the model itself had refused, or left "
        "without an answer, were not taught.",
        f"{_changed(config)} of the layers from "
        f"{figures.percent(config.first_layer)} to {figures.percent(config.last_layer)} of the "
        f"depth {'were' if config.full else 'was'} trained {_trained_to(config, context)}, and to "
        "stay close to the original's own distribution on the harmless ones."
        f"{_kept_logits(context)}",
        f"{len(tried)} candidates ({'learning rates, ' if several else ''}"
        "stopping points and strengths) were compared on validation prompts: "
        + (
            "harmful requests refused, less twins and ordinary instructions refused"
            f"{LOWEST if several else ''}. "
            f"{chosen.label[0].upper()}{chosen.label[1:]} was kept."
            if payment is None
            else f"most harmful requests refused within the budget. {payment.sentence}"
        ),
    )


def _changed(config: DistillConfig) -> str:
    if config.full:
        return "All weights"
    begun = ", begun as that of an earlier run" if config.from_patch else ""
    return f"A low-rank change (rank {config.rank}{begun})"


def _trained_to(config: DistillConfig, context: Context) -> str:
    """Return what training was for, after "was trained"."""
    if config.objective in ("rloo", "grpo") and config.reward == "learned":
        learned = context.folder.journal.fact(REWARD) or {"right": (0, 0), "trained": 0}
        count, n = learned["right"]
        return (
            "on its own answers, rewarded by a model of preferences that was learned from "
            f"{figures.grouped(learned['trained'])} pairs of answers and puts {count} of {n} "
            "others in the right order"
        )
    said = context.folder.journal.fact(LOGITS) or {}
    if config.objective != "logits" or not said.get("teacher"):
        return TRAINED[config.objective]
    if said["way"] == "rank":
        paired, places = said["paired"]
        return (
            "to refuse the harmful requests, and to be as sure as "
            f"{said['teacher']} is, whose vocabulary is another, at {figures.grouped(paired)} of "
            f"{figures.grouped(places)} places (universal logit distillation)"
        )
    return f"to agree with {said['teacher']}, at every token of its own answers to harmful requests"


def _kept_logits(context: Context) -> str:
    """Return what keeping logits on disk has lost, as sentences of their own."""
    said = context.folder.journal.fact(LOGITS) or {}
    return "".join(f" {one[0].upper()}{one[1:]}." for one in said.get("kept", ()))


def _taught_refusals(config: DistillConfig, context: Context) -> str:
    """Return what harmful requests were answered with, and whose words they are."""
    taught = context.folder.journal.fact("teaching") or {}
    if not taught.get("teacher"):
        return _refusals(config.refusal)
    count, n = taught["clean"]
    words = (
        f'the answer "{taught["sentence"]}", the commonest'
        if taught["pattern"] == "uniform"
        else "one"
    )
    return f"{words} of the refusals of {taught['teacher']} (clean ones to {count} of {n})"


def _refusals(refusals: tuple[str, ...]) -> str:
    first = f'"{refusals[0]}"'
    return f"the answer {first}" if len(refusals) == 1 else f"one of {len(refusals)}, as {first}"
