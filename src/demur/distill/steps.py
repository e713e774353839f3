"""The steps of a training: TRL's trainer as demur sets it up, and what is done along the way.

A checkpoint counts only when all of it is on disk. A loss, or weights, that are no numbers end the
training; the checkpoints before stay.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demur.console import Narrator
from demur.distill.divided import frozen_names
from demur.distill.lessons import Lesson
from demur.distill.objectives import PAIRED, Objective
from demur.distill.recipe import Recipe, micro_batch
from demur.distill.whole import WEIGHTS
from demur.errors import TrainingError
from demur.models.chat_model import ChatModel
from demur.run.processes import launched

COMPLETE = "complete"


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints that are wholly on disk, by step; remove what is not."""
    found = []
    for path in folder.glob("checkpoint-*"):
        if (path / COMPLETE).exists():
            found.append(path)
        else:
            shutil.rmtree(path)
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def _require_finite(model: Any, step: int) -> None:
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise TrainingError(
                f"The trained weights became NaN or infinite by step {step}.",
                "Lower --learning-rate, or use --dtype float32.",
            )


def progress_of(model: Any, narrator: Narrator, folder: Path, advance: Any, done: int) -> Any:
    """Return the callback that watches over a training.

    Args:
        advance: called with the number of steps done; `done` were done before.
    """
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
            processes = launched()
            processes.meet(on_cpu=model.device.type == "cpu")  # each has written its part
            if processes.follows:
                return
            checkpoint = folder / f"checkpoint-{state.global_step}"
            _require_finite(model, state.global_step)
            os.sync()
            (checkpoint / COMPLETE).touch()
            for earlier in complete_checkpoints(folder)[:-1]:
                if (earlier / WEIGHTS).exists():  # whole weights: their moments take twice as much
                    (earlier / "optimizer.pt").unlink(missing_ok=True)

    return Progress()


@contextmanager
def quick_arithmetic() -> Iterator[None]:
    """Take the tiniest gradients, which are slow numbers on CPUs, for zero.

    Only for as long as training lasts: patches are exact to the bit, tiny numbers included.
    """
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def optimizer_of(model: Any, recipe: Recipe) -> Any:
    """Return AdamW for what is trained: LoRA's down-projections at a rate of their own."""
    import torch

    trained: list[tuple[str, Any]] = [
        (name, one) for name, one in model.named_parameters() if one.requires_grad
    ]
    down = [one for name, one in trained if "lora_A" in name]
    up = [one for name, one in trained if "lora_A" not in name]
    share = recipe.down_share if recipe.informed else 1.0
    groups: list[dict[str, Any]] = [{"params": up}]
    if down:
        groups.insert(0, {"params": down, "lr": recipe.learning_rate * share})
    return torch.optim.AdamW(
        groups,
        lr=recipe.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )


def _arguments(chat: ChatModel, recipe: Recipe, steps: int, folder: Path) -> Any:
    """Return the trainer's settings."""
    from trl import SFTConfig

    autocast = chat.placement.dtype if recipe.full else "float32"
    processes = launched()
    rows_at_once = micro_batch(recipe, processes.count)
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=rows_at_once,
        gradient_accumulation_steps=recipe.batch // processes.count // rows_at_once,
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
        bf16=autocast == "bfloat16",
        fp16=autocast == "float16",
        use_cpu=chat.placement.device == "cpu",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
    )


def _rows(order: Sequence[int], texts: int, recipe: Recipe) -> Any:
    """Return a data set of the lessons' places, with the place of a step's first text in each step.

    One process reads them, but for a divided student: all then make the same forward passes.

    Args:
        texts: how many there are.
    """
    from datasets import Dataset

    processes = launched()
    readers = processes.count if processes.divided else 1
    at_once = micro_batch(recipe, processes.count)  # processes take them in turn
    turns = range(0, len(order), recipe.batch) if texts else ()
    text = {
        place + reader * at_once: turn * recipe.step_texts % texts
        for turn, place in enumerate(turns)
        for reader in range(readers)
    }
    return Dataset.from_dict(
        {
            "lesson": list(order),
            "text": [text.get(place, -1) for place in range(len(order))],
            "labels": [[0]] * len(order),
        }
    )


def trainer_of(
    chat: ChatModel,
    model: Any,
    lessons: Sequence[Lesson],
    order: Sequence[int],
    recipe: Recipe,
    folder: Path,
    objective: Objective,
) -> Any:
    """Return the trainer that takes the steps.

    Args:
        model: what is trained: the student whole, or wrapped by PEFT.
        order: the lessons of all steps, one after the other.
        folder: where checkpoints go.
    """
    import torch
    from torch.nn.parallel import DistributedDataParallel
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from demur.distill.collate import Collator, shared_prefix
    from demur.distill.trainer import RefusalTrainer

    texts = [lesson for lesson in lessons if lesson.kind == "text"]
    processes = launched()
    if chat.tokenizer.pad_token is None:
        chat.tokenizer.pad_token = chat.tokenizer.eos_token
    if processes.divided:
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(  # type: ignore[no-untyped-call]
            model, frozen_names(model)
        )
    trainer = RefusalTrainer(
        model=model,
        args=_arguments(chat, recipe, len(order) // recipe.batch, folder),
        train_dataset=_rows(order, len(texts), recipe),
        data_collator=Collator(
            lessons,
            shared_prefix(chat.model, lessons),
            texts,
            step_texts=recipe.step_texts,
            pairs=objective.name in PAIRED,
            branch=not processes.divided,
        ),
        processing_class=chat.tokenizer,
        optimizers=(optimizer_of(model, recipe), None),
    )
    trainer.objective = objective
    if recipe.full:
        trainer.whole = {name: one for name, one in model.named_parameters() if one.requires_grad}
    # A step's texts are read by one process, and gradients are averaged over all of them.
    alone = 1 if processes.divided else processes.count
    trainer.text_weight = recipe.keep_weight * recipe.text_weight * alone
    if processes.follows:  # each draws other numbers where the student writes
        torch.manual_seed(recipe.seed + processes.rank)
    trainer.model_accepts_loss_kwargs = True  # compute_loss divides by the accumulation itself
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer
