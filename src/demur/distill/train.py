"""Training a student on its lessons: LoRA by PEFT, steps by TRL, checkpoints that survive a kill.

The order of lessons is fixed by the seed and written down before the first step, and a checkpoint
counts only when all of it is on disk; a training that was killed goes on from the last one that
counts and takes the very steps that it would have taken.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.console import Narrator
from demur.distill.lessons import Lesson
from demur.distill.objectives import Distilled, Objective, Supervised
from demur.errors import TrainingError
from demur.models.chat_model import ChatModel
from demur.run.folder import room_on_disk

COMPLETE = "complete"
OPENING = 4
PROJECTIONS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj"),
    *("gate_proj", "up_proj", "down_proj", "gate_up_proj"),
)


@dataclass(frozen=True)
class Recipe:
    """How a student is trained; the defaults are those that measured best (docs/results).

    Attributes:
        rank: LoRA rank; the scaling is 1 (alpha = rank).
        informed: requests of each side that LoRA's beginning is drawn from (`initialise`); 0 for
            LoRA's usual random beginning.
        first_layer, last_layer: the trained layers as fractions of the model's depth.
        learning_rate: of AdamW for the up-projections, with a short warm-up and a cosine descent
            to a twentieth; down_share of it for the down-projections.
        batch: lessons a step; micro_batch: lessons a forward pass.
        epochs: how often each lesson is seen.
        keep_weight: the price of divergence on benign requests.
        decision_weight: the weight of the first token's decision; see `objectives.sft`.
        on_policy, divergence: the share of answers that the student writes in training, and the
            coefficient of the divergence from the teacher; see `objectives.logits`.
        checkpoints: how often it is written down, to go on from and to choose from.
        seed: of the order of lessons and of LoRA's initial weights.
        objective: one of `objectives.OBJECTIVES`; what follows is theirs (`objectives.make`).
        beta: how departing from the student is held in: see `objectives.dpo` and
            `objectives.policy`, each of which has a default of its own.
        sft_weight, normalised: of direct preference.
        samples, sample_tokens, guided: of reinforcement.
        over_refusal_price: what refusing a benign request costs, where helping earns 1.
    """

    rank: int = 8
    informed: int = 200
    first_layer: float = 0.4
    last_layer: float = 1.0
    learning_rate: float = 1e-3
    down_share: float = 0.2
    batch: int = 16
    micro_batch: int = 16
    epochs: int = 1
    keep_weight: float = 1.0
    decision_weight: float = 1.0
    on_policy: float = 0.5
    divergence: float = 0.5
    checkpoints: int = 3
    seed: int = 0
    objective: str = "sft"
    beta: float | None = None
    sft_weight: float = 1.0
    normalised: bool = False
    samples: int = 4
    sample_tokens: int = 24
    guided: int = 1
    over_refusal_price: float = 1.0


def trained_layers(depth: int, recipe: Recipe) -> list[int]:
    """Return the indices of the layers that the recipe trains in a model of `depth` layers."""
    first = min(round(recipe.first_layer * depth), depth - 1)
    last = max(first + 1, round(recipe.last_layer * depth))
    return list(range(first, min(last, depth)))


def micro_batch(recipe: Recipe) -> int:
    """Return the lessons of a forward pass: as many as allowed that divide a step evenly."""
    most = min(recipe.micro_batch, recipe.batch)
    return next(rows for rows in range(most, 0, -1) if recipe.batch % rows == 0)


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


def lesson_order(lessons: Sequence[Lesson], recipe: Recipe) -> list[int]:
    """Return the order of lessons over all epochs: mixed, but of like length within a batch."""
    generator = random.Random(recipe.seed)
    order: list[int] = []
    pool = recipe.batch * 16

    def shape(index: int) -> tuple[bool, int]:
        # The head is applied to as many positions of every row as the longest answer has.
        lesson = lessons[index]
        return max(len(lesson.answer), len(lesson.rejected)) > OPENING, len(lesson.prompt)

    for _ in range(recipe.epochs):
        indices = [index for index, lesson in enumerate(lessons) if lesson.kind != "text"]
        generator.shuffle(indices)
        batches: list[list[int]] = []
        for start in range(0, len(indices), pool):
            part = sorted(indices[start : start + pool], key=shape)
            batches += [part[i : i + recipe.batch] for i in range(0, len(part), recipe.batch)]
        full = [batch for batch in batches if len(batch) == recipe.batch] or batches
        generator.shuffle(full)
        order += [index for batch in full for index in batch]
    return order


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


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints that are wholly on disk, by step; remove what is not."""
    found = []
    for path in folder.glob("checkpoint-*"):
        if (path / COMPLETE).exists():
            found.append(path)
        else:
            shutil.rmtree(path)
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def _require_finite(peft: Any, step: int) -> None:
    import torch

    for parameter in peft.parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise TrainingError(
                f"The trained weights became NaN or infinite by step {step}.",
                "Lower --learning-rate, or use --dtype float32.",
            )


def _callback(peft: Any, narrator: Narrator, folder: Path, advance: Any, done: int) -> Any:
    import os

    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        """Counts steps, marks whole checkpoints, stops on a loss that is no number."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            advance(done)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            advance(1)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
        ) -> None:
            loss = (logs or {}).get("loss", (logs or {}).get("train_loss"))
            if loss is None:
                return
            if not math.isfinite(float(loss)):
                raise TrainingError(
                    f"The training loss became {loss} at step {state.global_step}.",
                    "Lower --learning-rate, or use --dtype float32.",
                )
            figures = [
                f"{name.replace('_', ' ')} {logs[name]:.2f}" for name in logs if "_reward" in name
            ]
            told = ", ".join([f"loss {float(loss):.4f}", *figures])
            narrator.log_only(f"step {state.global_step}: {told}")

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            checkpoint = folder / f"checkpoint-{state.global_step}"
            _require_finite(peft, state.global_step)
            os.sync()
            (checkpoint / COMPLETE).touch()

    return Progress()


def train(
    chat: ChatModel,
    lessons: Sequence[Lesson],
    recipe: Recipe,
    folder: Path,
    narrator: Narrator,
    objective: Objective | None = None,
) -> tuple[Any, list[Path]]:
    """Train LoRA weights on `lessons`.

    Args:
        chat: the student; its model is wrapped and comes back wrapped.
        folder: where checkpoints go, and from where a broken-off training goes on.
        objective: what a step makes smaller; by default supervised fine-tuning on the lessons.

    Returns:
        The PEFT model, and the checkpoints' folders, first to last.

    Raises:
        TrainingError: fewer lessons than a batch, or a loss that is no number.
        ValueError: preference lessons without references.
    """
    import torch
    from peft import LoraConfig, get_peft_model
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
    depth = int(chat.model.config.get_text_config().num_hidden_layers)
    set_seed(recipe.seed)
    peft = get_peft_model(
        chat.model,
        LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.rank,
            lora_dropout=0.0,
            target_modules=target_modules(chat.model),
            layers_to_transform=trained_layers(depth, recipe),
            task_type="CAUSAL_LM",
        ),
    )
    known = complete_checkpoints(folder)
    if recipe.informed and not known:
        _inform(peft, lessons, recipe, narrator)
    every = max(1, math.ceil(steps / recipe.checkpoints))
    last = steps  # the Trainer saves at the end whatever the interval
    if not known or int(known[-1].name.split("-")[1]) < last:
        with room_on_disk(folder), narrator.progress("training steps", steps) as advance:
            done = int(known[-1].name.split("-")[1]) if known else 0
            trainer = _trainer(
                chat,
                peft,
                lessons,
                order[: steps * recipe.batch],
                recipe,
                folder,
                objective,
            )
            trainer.args.save_steps = every
            trainer.state.save_steps = every
            trainer.add_callback(_callback(peft, narrator, folder, advance, done))
            with _quick_arithmetic():
                trainer.train(resume_from_checkpoint=str(known[-1]) if known else None)
        del trainer
    peft.eval()
    peft.requires_grad_(False)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return peft, complete_checkpoints(folder)


@contextmanager
def _quick_arithmetic() -> Iterator[None]:
    """Take the tiniest gradients, which are slow numbers on CPUs, for zero.

    Only for as long as training lasts: patches are exact to the bit, tiny numbers included.
    """
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


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


def _optimizer(peft: Any, recipe: Recipe) -> Any:
    import torch

    trained: list[tuple[str, Any]] = [
        (name, one) for name, one in peft.named_parameters() if one.requires_grad
    ]
    down = [one for name, one in trained if "lora_A" in name]
    up = [one for name, one in trained if "lora_A" not in name]
    share = recipe.down_share if recipe.informed else 1.0
    groups: list[dict[str, Any]] = [
        {"params": down, "lr": recipe.learning_rate * share},
        {"params": up},
    ]
    return torch.optim.AdamW(
        groups,
        lr=recipe.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )


def _trainer(
    chat: ChatModel,
    peft: Any,
    lessons: Sequence[Lesson],
    order: Sequence[int],
    recipe: Recipe,
    folder: Path,
    objective: Objective,
) -> Any:
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback, ProgressCallback
    from trl import SFTConfig

    from demur.distill.collate import Collator, shared_prefix
    from demur.distill.trainer import TEXT_EVERY, TEXT_WEIGHT, RefusalTrainer

    steps = len(order) // recipe.batch
    rows_at_once = micro_batch(recipe)
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=rows_at_once,
        gradient_accumulation_steps=recipe.batch // rows_at_once,
        max_steps=steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.05},
        warmup_steps=max(1, steps // 10),
        max_grad_norm=1.0,
        seed=recipe.seed,
        data_seed=recipe.seed,
        train_sampling_strategy="sequential",
        save_strategy="steps",
        logging_steps=5,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
        bf16=False,
        fp16=False,
        use_cpu=chat.placement.device == "cpu",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
    )
    texts = [lesson for lesson in lessons if lesson.kind == "text"]
    turns = range(0, len(order), recipe.batch * TEXT_EVERY) if texts else ()
    text = {place: turn % len(texts) for turn, place in enumerate(turns)}
    rows = Dataset.from_dict(
        {
            "lesson": list(order),
            "text": [text.get(place, -1) for place in range(len(order))],
            "labels": [[0]] * len(order),
        }
    )
    if chat.tokenizer.pad_token is None:
        chat.tokenizer.pad_token = chat.tokenizer.eos_token
    trainer = RefusalTrainer(
        model=peft,
        args=arguments,
        train_dataset=rows,
        data_collator=Collator(
            lessons, shared_prefix(chat.model, lessons), texts, pairs=objective.name == "dpo"
        ),
        processing_class=chat.tokenizer,
        optimizers=(_optimizer(peft, recipe), None),
    )
    trainer.objective = objective
    trainer.text_weight = recipe.keep_weight * TEXT_WEIGHT
    trainer.model_accepts_loss_kwargs = True  # compute_loss divides by the accumulation itself
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer
