"""Distilling as a treatment: lessons are made, LoRA is trained on them, validation chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from demur.distill.choose import Candidate
from demur.distill.lessons import Lesson
from demur.distill.objectives import Objective
from demur.distill.teachers.choose import FoundTeacher, find_teacher
from demur.distill.train import Recipe
from demur.distilling.config import DistillConfig
from demur.distilling.make_lessons import Made, lessons_of
from demur.distilling.objective import prepare
from demur.judge.names import Means
from demur.models.chat_model import ChatModel
from demur.prompts.types import Splits
from demur.report import figures
from demur.treating.pipeline import Treated, Treatment
from demur.treating.stages import Context, choosing_probes

TRAINING = "Training"
CHOOSING = "Choosing the stopping point and the strength on validation prompts"
Prepare = Callable[
    [DistillConfig, Context, ChatModel, Made, Recipe], tuple[list[Lesson], Objective]
]
TRAINED = {
    "sft": "to refuse the harmful requests",
    "dpo": "to prefer refusals to what the model itself says to harmful requests",
    "rloo": "on its own answers, rewarded by the judge's verdicts",
    "grpo": "on its own answers, rewarded by the judge's verdicts",
    "logits": "to agree, at every token, with what it says when it knows what is to be refused",
}


def distilling(config: DistillConfig, means: Means | None = None) -> Treatment:
    """Return the treatment that `config` describes; its teacher is looked for before anything else.

    Args:
        means: how a teacher behind an endpoint is asked.

    Raises:
        DemurError: there is no such teacher.
    """
    means = means or Means()
    found = None
    if config.teacher is not None:
        found = find_teacher(
            config.teacher,
            key_variable=means.key_variable,
            trust_remote_code=config.trust_remote_code,
        )

    def treat(context: Context, chat: ChatModel, splits: Splits) -> Treated:
        return _treat(config, context, chat, splits, found, means)

    return treat


def recipe_of(config: DistillConfig) -> Recipe:
    """Return how `config` trains."""
    return Recipe(
        rank=config.rank,
        informed=config.informed,
        first_layer=config.first_layer,
        last_layer=config.last_layer,
        learning_rate=config.learning_rate,
        batch=config.batch,
        micro_batch=config.micro_batch,
        epochs=config.epochs,
        keep_weight=config.keep_weight,
        decision_weight=config.decision_weight,
        checkpoints=config.checkpoints,
        seed=config.seed,
        objective=config.objective,
        beta=config.beta,
        on_policy=config.on_policy,
        divergence=config.divergence,
        samples=config.samples,
        sample_tokens=config.sample_tokens,
        over_refusal_price=config.over_refusal_price,
    )


def _treat(
    config: DistillConfig,
    context: Context,
    chat: ChatModel,
    splits: Splits,
    found: FoundTeacher | None,
    means: Means,
) -> Treated:
    from demur.distill.choose import low_rank_changes

    taught = teach(config, context, chat, splits, context.folder.path / "training", found, means)
    base = context.resolved.folder
    return Treated(
        lambda: low_rank_changes(chat.model, base, taught.chosen.strength),
        taught.chosen,
        taught.tried,
        _steps(config, context, taught.chosen, taught.tried),
        config.rank,
    )


@dataclass(frozen=True)
class Taught:
    """What training came to: the candidate that validation chose, and all that it compared."""

    chosen: Candidate
    tried: tuple[Candidate, ...]


def teach(
    config: DistillConfig,
    context: Context,
    chat: ChatModel,
    splits: Splits,
    folder: Path,
    found: FoundTeacher | None = None,
    means: Means | None = None,
    prepare: Prepare = prepare,
    phases: str = "",
) -> Taught:
    """Make lessons, train and choose; leaves the chosen delta in `chat.model`, wrapped by PEFT.

    Args:
        folder: where the training's checkpoints go.
        found, means: the teacher of refusals, and how it is asked where it is behind an endpoint.
        prepare: makes of the run's lessons what is trained on, and by which objective.
        phases: what the phases' names end in, where a run teaches more than once.

    Raises:
        TrainingError: there is too little to train on, or a loss that is no number.
    """
    from demur.distill.choose import choose, load_adapter, require_on_disk, set_strength
    from demur.distill.train import target_modules, train

    journal, recipe = context.folder.journal, recipe_of(config)
    require_on_disk(chat.model, context.resolved.folder, target_modules(chat.model))
    with context.phase(f"Making lessons{phases}"):
        made = lessons_of(config, context, chat, splits, found, means, phases)
        lessons, objective = prepare(config, context, chat, made, recipe)
    with context.phase(f"{TRAINING}{phases}"):
        wrapped, checkpoints = train(chat, lessons, recipe, folder, context.narrator, objective)
    chat.model = wrapped
    with context.phase(f"{CHOOSING}{phases}"):
        chosen, tried = choose(
            chat,
            checkpoints[-config.stopping_points :],
            config.strengths,
            choosing_probes(config, splits),
            journal,
            context.judge,
            context.narrator,
        )
        for candidate in tried:
            context.narrator.say(
                f"  {candidate.label}: harmful {candidate.harmful.value:.0%}, twins "
                f"{candidate.twins.value:.0%}, ordinary {candidate.ordinary.value:.0%}"
                + ("  <- chosen" if candidate is chosen else "")
            )
    load_adapter(wrapped, chosen.checkpoint)
    set_strength(wrapped, chosen.strength)
    return Taught(chosen, tuple(tried))


def _steps(
    config: DistillConfig, context: Context, chosen: Candidate, tried: Sequence[Candidate]
) -> tuple[str, ...]:
    """Return what was done, a step a sentence or two."""
    made = context.folder.journal.fact("lessons") or {}
    refusals = _taught_refusals(config, context)
    return (
        f"Lessons were made: {figures.grouped(made.get('refuse', 0))} harmful requests, each with "
        f"{refusals}, and {figures.grouped(made.get('keep', 0))} harmless ones "
        "with the model's own answers; "
        f"{figures.grouped(made.get('left_out', 0))} that the model itself had refused, or left "
        "without an answer, were not taught.",
        f"A low-rank change (rank {config.rank}) of the layers from "
        f"{figures.percent(config.first_layer)} to {figures.percent(config.last_layer)} of the "
        f"depth was trained {TRAINED[config.objective]}, and to stay close to the original's own "
        "distribution on the harmless ones.",
        f"{len(tried)} candidates (stopping points and strengths) were compared on validation "
        f"prompts: harmful requests refused, less twins and ordinary instructions refused. "
        f"{chosen.label[0].upper()}{chosen.label[1:]} was kept.",
    )


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
