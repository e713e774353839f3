"""Distilling as a treatment: lessons are made, LoRA is trained on them, validation chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demur.checkpoint import LowRank
from demur.distill.choose import Candidate
from demur.distill.lessons import Lesson
from demur.distill.objectives import Objective
from demur.distill.recipe import Recipe, trained_layers
from demur.distill.teachers.choose import FoundTeacher, find_teacher
from demur.distilling.account import account
from demur.distilling.config import DistillConfig
from demur.distilling.make_lessons import Made, lessons_of
from demur.distilling.objective import prepare
from demur.distilling.rewarding import Unrewarded, rewarded
from demur.distilling.seen import require_refusals, require_soon
from demur.distilling.start import read_start, require_start
from demur.errors import ConfigError, TrainingError
from demur.judge import OpeningJudge
from demur.judge.names import Means
from demur.measure.validation import refusal_rates
from demur.models.chat_model import ChatModel
from demur.prompts.types import Splits
from demur.run.processes import launched
from demur.treating.stages import (
    Context,
    allowance,
    choosing_probes,
    divergence_of_candidates,
)
from demur.treating.treated import Treated, Treatment

TRAINING = "Training"
CHOOSING = "Choosing the stopping point and the strength on validation prompts"
# Objectives of which every process makes the same forward passes; what logits are read from is not
# the same in all.
DIVISIBLE = ("sft", "dpo", "rloo", "grpo")
Prepare = Callable[
    [DistillConfig, Context, ChatModel, Made, Recipe], tuple[list[Lesson], Objective | Unrewarded]
]


def distilling(config: DistillConfig, means: Means | None = None) -> Treatment:
    """Return the treatment that `config` describes; its teacher is looked for before anything else.

    Args:
        means: how a teacher behind an endpoint is asked.

    Raises:
        ConfigError: a batch cannot be divided among the processes that were launched, or the model
            not for such a training; the patch to begin from was trained on test prompts; or a
            sentence to teach is none that verdicts see.
        DemurError: there is no such teacher.
    """
    count = launched().count
    if config.batch % count:
        raise ConfigError(
            f"A batch of {config.batch} lessons cannot be divided among {count} processes.",
            f"Give a --batch that is a multiple of {count}, or launch another number of them.",
        )
    require_start(config)
    require_refusals(config.refusal, OpeningJudge())
    if launched().divided:
        _require_divisible(config)
    means = means or Means()
    found = teacher_of(config, means)

    def treat(context: Context, chat: ChatModel, splits: Splits) -> Treated:
        return _treat(config, context, chat, splits, found, means)

    return treat


def _require_divisible(config: DistillConfig) -> None:
    """Check that a training can be done by processes that each hold a share of the model.

    Raises:
        ConfigError: it cannot.
    """
    reinforced = config.objective in ("rloo", "grpo")
    cannot = {
        "all weights": config.full,
        "a learned reward": reinforced and config.reward == "learned",
        "several learning rates": len(config.learning_rates) > 1,
        config.objective: config.objective not in DIVISIBLE,
    }
    asked = [what for what, wanted in cannot.items() if wanted]
    if asked:
        raise ConfigError(
            "The processes were launched to divide the model among them (FSDP), which can be done "
            f"for a low-rank change by {', '.join(DIVISIBLE)} on verdicts, and not for {asked[0]}.",
            "Choose so, or launch them without FSDP: each then holds the whole model.",
        )


def teacher_of(config: DistillConfig, means: Means) -> FoundTeacher | None:
    """Return the teacher that a configuration names; None where it names none.

    Raises:
        DemurError: there is no such teacher.
    """
    if config.teacher is None:
        return None
    return find_teacher(
        config.teacher,
        key_variable=means.key_variable,
        trust_remote_code=config.trust_remote_code,
    )


def recipe_of(config: DistillConfig) -> Recipe:
    """Return how `config` trains."""
    return Recipe(
        full=config.full,
        rank=config.rank,
        informed=config.informed,
        first_layer=config.first_layer,
        last_layer=config.last_layer,
        learning_rate=config.full_learning_rate if config.full else config.learning_rate,
        batch=config.batch,
        micro_batch=config.micro_batch,
        epochs=config.epochs,
        keep_weight=config.keep_weight,
        step_texts=config.step_texts,
        text_weight=config.text_weight,
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
    from demur.distill.choose import changes_of

    require_soon(config.refusal, chat, context.judge, config.answer_tokens)
    taught = teach(config, context, chat, splits, context.folder.path / "training", found, means)
    _require_no_fewer(config, context, chat, splits, taught.chosen)
    base, chosen = context.resolved.folder, taught.chosen
    payment = allowance(config).payment(chosen, taught.tried)
    return Treated(
        lambda: changes_of(chat.model, base, chosen.checkpoint, chosen.strength),
        chosen,
        taught.tried,
        account(config, context, chosen, taught.tried, payment),
        None if config.full else config.rank,
        payment,
    )


def _require_no_fewer(
    config: DistillConfig, context: Context, chat: ChatModel, splits: Splits, chosen: Candidate
) -> None:
    """Check, before anything is written, that the student still refuses what it refused.

    Reinforcement by a reward that tells little can teach the contrary. `chat.model` is left as the
    chosen candidate.

    Raises:
        TrainingError: it refuses fewer harmful validation requests than before, beyond chance.
    """
    from demur.distill.choose import put

    asked = {"harmful": choosing_probes(config, splits)["harmful"]}
    put(chat.model, chosen.checkpoint, 0.0)
    shared = (context.folder.journal, context.judge, context.narrator)
    before, *_ = refusal_rates(chat, asked, *shared, "untouched")
    put(chat.model, chosen.checkpoint, chosen.strength)
    if chosen.harmful.high < before.value:
        raise TrainingError(
            f"It was taught to refuse less: {chosen.harmful.count} of {chosen.harmful.n} harmful "
            f"validation requests, and {before.count} before. Nothing was written.",
            "Give more prompts (--train-pairs), or take another --objective or --reward.",
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
    start: Mapping[str, LowRank] | None = None,
) -> Taught:
    """Make lessons, train and choose; leaves the chosen delta in `chat.model`.

    With LoRA, `chat.model` is then wrapped by PEFT.

    Args:
        folder: where the training's checkpoints go.
        found, means: the teacher of refusals, and how it is asked where it is behind an endpoint.
        prepare: makes of the run's lessons what is trained on, and by which objective.
        phases: what the phases' names end in, where a run teaches more than once.
        start: a change that training begins from, in place of the patch that `config` names.

    Raises:
        ConfigError: the patch to begin from is another model's, or was trained on test prompts.
        TrainingError: there is too little to train on, or a loss that is no number.
        SystemExit: this process followed another one (`run.processes`), and its part is done.
    """
    from demur.distill.choose import at_rate, choose, put

    recipe = recipe_of(config)
    recipes = {
        at_rate(folder, rate): replace(recipe, learning_rate=rate) for rate in config.learning_rates
    } or {folder: recipe}
    probes = choosing_probes(config, splits)
    _require_possible(context, chat, recipe)
    start = read_start(config, context.base_hash) if start is None else start
    leader_first = launched().leader_first(on_cpu=context.on_cpu)
    with leader_first, context.phase(f"Making lessons{phases}"):
        made = lessons_of(config, context, chat, splits, found, means, phases)
        lessons, objective = prepare(config, context, chat, made, recipe)
        diverging = divergence_of_candidates(config, context, chat, probes)
    if isinstance(objective, Unrewarded):
        with context.phase(f"Learning a reward{phases}"):
            objective = rewarded(context, chat, objective, recipe)
    with context.phase(f"{TRAINING}{phases}"):
        trained = _train(context, chat, lessons, recipes, objective, start)
    with context.phase(f"{CHOOSING}{phases}"):
        chosen, tried = choose(
            chat,
            [one for each in trained for one in each[-config.stopping_points :]],
            config.strengths,
            probes,
            context.folder.journal,
            context.judge,
            context.narrator,
            allowance(config),
            diverging,
        )
        for candidate in tried:
            context.narrator.say(
                f"  {candidate.label}: harmful {candidate.harmful.value:.0%}, twins "
                f"{candidate.twins.value:.0%}, ordinary {candidate.ordinary.value:.0%}"
                + ("" if candidate.divergence is None else f", KL {candidate.divergence:.3f}")
                + ("  <- chosen" if candidate is chosen else "")
            )
        if payment := allowance(config).payment(chosen, tried):
            context.narrator.say(f"  {payment.sentence}")
    put(chat.model, chosen.checkpoint, chosen.strength)
    return Taught(chosen, tuple(tried))


def _train(
    context: Context,
    chat: ChatModel,
    lessons: Sequence[Lesson],
    recipes: Mapping[Path, Recipe],
    objective: Objective,
    start: Mapping[str, LowRank] | None,
) -> list[list[Path]]:
    """Train the chat's model, with all processes that were launched; leaves it as last trained.

    Args:
        recipes: by the folder where a training's checkpoints go; each begins anew.

    Returns:
        The checkpoints of each training, first to last.

    Raises:
        SystemExit: this process followed another one, and its part is done.
    """
    from demur.distill.choose import put_back
    from demur.distill.divided import divided, release
    from demur.distill.train import train, wrapped

    processes = launched()
    held = divided(chat, context.config.trust_remote_code) if processes.divided else chat
    model: Any = held.model
    trained: dict[Path, list[Path]] = {}
    for folder, recipe in recipes.items():
        if trained:
            put_back(model, list(trained.values())[-1][-1])
        if len(recipes) > 1:
            context.narrator.say(f"  at a learning rate of {recipe.learning_rate:g}:")
        try:
            model, trained[folder] = train(
                held, lessons, recipe, folder, context.narrator, objective, start
            )
        except TrainingError as error:
            if not trained or processes.several:
                raise
            context.narrator.say(f"  {error.cause} No higher rate is tried.")
            # Loaded anew, and wrapped as the last training that ended, which trains nothing now.
            model = chat.model = None
            chat.model = context.load(context.resolved.folder, context.base_hash).model
            last = list(trained)[-1]
            model, _ = train(chat, lessons, recipes[last], last, context.narrator, objective)
            break
    chat.model = model
    del held
    if processes.divided:
        release(chat)
    processes.part(on_cpu=context.on_cpu)
    if processes.follows:
        raise SystemExit(0)
    if processes.divided:  # the leader goes on with the whole model; what to put in is on disk
        whole = context.load(context.resolved.folder, context.base_hash)
        chat.model = wrapped(whole.model, recipe)
    return list(trained.values())


def _require_possible(context: Context, chat: ChatModel, recipe: Recipe) -> None:
    """Check, before hours of work, that memory will do and that a patch can be written.

    Raises:
        ModelError: what is trained has no tensor of its own on disk.
        TrainingError: full fine-tuning takes more memory than is free.
    """
    from demur.distill import whole
    from demur.distill.choose import require_on_disk
    from demur.distill.train import target_modules

    folder = context.resolved.folder
    if recipe.full:
        depth = int(chat.model.config.get_text_config().num_hidden_layers)
        layers = trained_layers(depth, recipe)
        whole.require_memory(chat.model, layers)
        whole.require_whole_on_disk(chat.model, folder, layers)
    else:
        require_on_disk(chat.model, folder, target_modules(chat.model))
