"""Training a student on its lessons: LoRA by PEFT or its own weights, checkpoints that survive.

The order of lessons is fixed by the seed (`recipe`), and a checkpoint counts only when all of it is
on disk (`steps`); a training that was killed goes on from the last one that counts and takes the
very steps that it would have taken.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.checkpoint import LowRank, open_checkpoint
from demur.console import Narrator
from demur.distill import whole
from demur.distill.lessons import Lesson
from demur.distill.objectives import Distilled, Objective, Supervised
from demur.distill.recipe import Recipe, lesson_order, trained_layers
from demur.distill.steps import complete_checkpoints, progress_of, quick_arithmetic, trainer_of
from demur.distill.warm_start import begin_from
from demur.errors import TrainingError
from demur.models.attention import quick_attention
from demur.models.chat_model import ChatModel
from demur.run.folder import require_room, room_on_disk
from demur.run.processes import launched

PROJECTIONS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj"),
    *("gate_proj", "up_proj", "down_proj", "gate_up_proj"),
)
STORED = 4  # of full fine-tuning, in weights: AdamW's two moments, in two checkpoints for a moment


def target_modules(model: Any) -> list[str]:
    """Return the names of the linear projections to train, as this architecture calls them.

    Raises:
        TrainingError: the model has none of the known ones and none that PEFT knows.
    """
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    names = {name.split(".")[-1] for name, _ in model.named_modules()}
    found = [name for name in PROJECTIONS if name in names]
    if not found:
        found = [name for name in KNOWN.get(model.config.model_type, []) if name in names]
    if not found:
        raise TrainingError(
            f"No projections to train were found in the architecture {model.config.model_type} "
            f"(its modules: {', '.join(sorted(names)[:12])}).",
            "Open an issue with this line, so that the architecture can be added.",
        )
    return found


def supervised(lessons: Sequence[Lesson], recipe: Recipe) -> Supervised:
    """Return supervised fine-tuning as the recipe prices it."""
    firsts = {lesson.answer[0] for lesson in lessons if lesson.kind == "refuse"}
    return Supervised(tuple(sorted(firsts)), recipe.keep_weight, recipe.decision_weight)


def distilled(
    chat: ChatModel,
    lessons: Sequence[Lesson],
    recipe: Recipe,
    contexts: Mapping[int, tuple[int, ...]],
    teacher: ChatModel | None = None,
) -> Distilled:
    """Return logit distillation as the recipe prices it; see `objectives.logits`."""
    shares = (recipe.on_policy, recipe.divergence, recipe.keep_weight)
    model = teacher and teacher.model
    return Distilled(lessons, chat.stops, contexts, model, *shares, tokens=recipe.sample_tokens)


def train(
    chat: ChatModel,
    lessons: Sequence[Lesson],
    recipe: Recipe,
    folder: Path,
    narrator: Narrator,
    objective: Objective | None = None,
    start: Mapping[str, LowRank] | None = None,
) -> tuple[Any, list[Path]]:
    """Train LoRA weights on `lessons`, or the student's own (`recipe.full`).

    Args:
        chat: the student; its model is changed, and with LoRA wrapped.
        folder: where checkpoints go, and from where a broken-off training goes on.
        objective: what a step makes smaller; by default supervised fine-tuning on the lessons.
        start: a low-rank change that LoRA begins as, by the tensor's name on disk.

    Returns:
        The model that was trained, by PEFT where LoRA was, and the checkpoints' folders, first to
        last.

    Raises:
        TrainingError: fewer lessons than a batch, a loss that is no number, too little memory for
            full fine-tuning, or a start that does not fit what is trained.
        ValueError: preference lessons without references.
    """
    import torch
    from transformers import set_seed

    objective = objective or supervised(lessons, recipe)
    if objective.name == "dpo" and any(one.rejected and not one.reference for one in lessons):
        raise ValueError("preference lessons need `with_references` before training")
    order = lesson_order(lessons, recipe)
    steps = len(order) // recipe.batch
    if steps == 0:
        raise TrainingError(
            f"There are {len(lessons)} lessons, fewer than one batch of {recipe.batch}.",
            "Give more prompts, or lower --batch.",
        )
    set_seed(recipe.seed)
    dtypes = {name: one.dtype for name, one in chat.model.named_parameters()}
    if recipe.full:
        model = _unfrozen(chat.model, recipe, folder, narrator)
    else:
        model = wrapped(chat.model, recipe)
    with launched().leader_first(on_cpu=chat.placement.device == "cpu"):
        known = complete_checkpoints(folder)
    if not recipe.full and not known:
        _begin(chat, model, lessons, recipe, start, narrator)
    done = int(known[-1].name.split("-")[1]) if known else 0
    if done < steps:
        with room_on_disk(folder), narrator.progress("training steps", steps) as advance:
            ordered = order[: steps * recipe.batch]
            trainer = trainer_of(chat, model, lessons, ordered, recipe, folder, objective)
            # It saves at the end whatever the interval.
            trainer.args.save_steps = max(1, math.ceil(steps / recipe.checkpoints))
            trainer.state.save_steps = trainer.args.save_steps
            trainer.add_callback(progress_of(model, narrator, folder, advance, done))
            with quick_arithmetic(), quick_attention(model, max(map(_length, lessons))):
                trainer.train(resume_from_checkpoint=str(known[-1]) if known else None)
        del trainer
    model.eval()
    model.requires_grad_(False)
    if recipe.full:
        whole.cast(model, dtypes)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return model, complete_checkpoints(folder)


def _unfrozen(model: Any, recipe: Recipe, folder: Path, narrator: Narrator) -> Any:
    """Return the model with the weights of its layers to be trained, if there is room for that."""
    layers = trained_layers(_depth(model), recipe)
    count = sum(one.numel() for one in whole.begin(model, layers).values())
    require_room(folder, (STORED + recipe.checkpoints) * 4 * count)
    narrator.say(f"  all weights of {len(layers)} layers are trained: {count / 1e6:.1f} M")
    return model


def _begin(
    chat: ChatModel,
    peft: Any,
    lessons: Sequence[Lesson],
    recipe: Recipe,
    start: Mapping[str, LowRank] | None,
    narrator: Narrator,
) -> None:
    """Have LoRA begin as an earlier change, or with the directions of the student's own states."""
    if start is not None:
        count = begin_from(peft, start, open_checkpoint(chat.folder).tensors)
        narrator.say(f"  {count} adapters begin with what an earlier run taught them")
    elif recipe.informed:
        _inform(peft, lessons, recipe, narrator)


def _length(lesson: Lesson) -> int:
    return len(lesson.prompt) + max(len(lesson.answer), len(lesson.rejected))


def _depth(model: Any) -> int:
    return int(model.config.get_text_config().num_hidden_layers)


def wrapped(model: Any, recipe: Recipe) -> Any:
    """Return the model wrapped by PEFT, LoRA on every projection of the layers that are trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.rank,
        lora_dropout=0.0,
        target_modules=target_modules(model),
        layers_to_transform=trained_layers(_depth(model), recipe),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _inform(peft: Any, lessons: Sequence[Lesson], recipe: Recipe, narrator: Narrator) -> None:
    from demur.distill.initialise import inform

    generator = random.Random(recipe.seed)
    sides: dict[str, list[tuple[int, ...]]] = {"refuse": [], "keep": []}
    for lesson in lessons:
        if lesson.kind != "text":
            sides["refuse" if lesson.kind == "refuse" else "keep"].append(lesson.prompt)
    drawn = {
        kind: generator.sample(prompts, min(recipe.informed, len(prompts)))
        for kind, prompts in sides.items()
    }
    count = inform(peft, drawn["refuse"], drawn["keep"])
    narrator.say(
        f"  {count} adapters begin with the directions that already tell harmful from benign"
        if count
        else "  too few lessons to begin with known directions; LoRA begins at random"
    )
