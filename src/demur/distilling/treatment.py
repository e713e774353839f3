"""Distilling as a treatment: lessons are made, LoRA is trained on them, validation chooses."""

from __future__ import annotations

from collections.abc import Sequence

from demur.distill.choose import Candidate
from demur.distill.teachers.choose import FoundTeacher, find_teacher
from demur.distill.train import Recipe
from demur.distilling.config import DistillConfig
from demur.distilling.make_lessons import lessons_of
from demur.judge.names import Means
from demur.measure.protocol import standard_probes
from demur.models.chat_model import ChatModel
from demur.prompts.split import evenly
from demur.prompts.types import Splits
from demur.report import figures
from demur.treating.pipeline import Treated, Treatment
from demur.treating.stages import Context

# Candidates differ in whether an answer begins with the refusal, which is seen in so many tokens.
CHOOSING_TOKENS = 8


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
    )


def _treat(
    config: DistillConfig,
    context: Context,
    chat: ChatModel,
    splits: Splits,
    found: FoundTeacher | None,
    means: Means,
) -> Treated:
    """Make lessons, train, choose; leaves the chosen delta in `chat.model`."""
    from demur.distill.choose import (
        choose,
        load_adapter,
        low_rank_changes,
        require_on_disk,
        set_strength,
    )
    from demur.distill.train import target_modules, train

    journal, recipe = context.folder.journal, recipe_of(config)
    require_on_disk(chat.model, context.resolved.folder, target_modules(chat.model))
    with context.phase("Making lessons"):
        lessons = lessons_of(config, context, chat, splits, found, means)
    with context.phase("Training"):
        wrapped, checkpoints = train(
            chat, lessons, recipe, context.folder.path / "training", context.narrator
        )
    chat.model = wrapped
    with context.phase("Choosing the stopping point and the strength on validation prompts"):
        probes = standard_probes(
            evenly(splits.harmful("validation"), config.validation_pairs, config.seed),
            evenly(splits.twins("validation"), config.validation_pairs, config.seed),
            evenly(splits.ordinary("validation"), config.validation_pairs, config.seed),
            split="validation",
            tokens=min(config.answer_tokens, CHOOSING_TOKENS),
            prefilled=0,
        )
        named = {probe.key: probe for probe in probes}
        chosen, tried = choose(
            chat,
            checkpoints[-config.stopping_points :],
            config.strengths,
            named,
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
    base = context.resolved.folder
    return Treated(
        lambda: low_rank_changes(wrapped, base, chosen.strength),
        chosen,
        tuple(tried),
        _steps(config, context, chosen, tried),
        config.rank,
    )


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
        "depth was trained to refuse the harmful requests, and to stay close to the original's "
        "own distribution on the harmless ones.",
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
