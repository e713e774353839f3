"""Training beside plain TRL: the same lessons, LoRA and steps, in one run on the real model.

    python benchmarks/training.py [--model smollm2-135m] [--lessons 128] [--batch 16]

Both train the same adapters by cross-entropy over the answers, at the same rate, on the same
lessons: harmful requests with a refusal, and their twins with the model's own answers. The peer is
TRL's SFTTrainer on prompts and completions, once as it comes (gradient checkpointing on) and once
with checkpointing off; float32 on CPUs, where bfloat16 is slow. Prints seconds, ratio, peak memory
(each in a process of its own), the loss a token on held-out lessons before and after, and the share
of the machine's measured matrix product that the useful arithmetic comes to.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from apart import apart

OURS, DEFAULTS, UNCHECKPOINTED = "demur", "TRL, defaults", "TRL, no checkpointing"
TOKENS = 24
RATE = 2e-4


def lessons_of(model: str, count: int, path: Path) -> None:
    """Write `count` lessons as prompt and answer texts, half of them refusals."""
    from demur.distilling.config import REFUSAL
    from demur.models.chat_model import load_chat_model
    from demur.models.device import choose_device_and_dtype
    from demur.models.generation import Decoding, answer
    from demur.models.resolve import resolve
    from demur.prompts.choose import gather
    from demur.prompts.split import limit
    from demur.run.journal import Journal

    splits = gather()
    chat = load_chat_model(resolve(model).folder, choose_device_and_dtype(), weights="benchmark")
    harmful = [one.text for one in limit(splits.harmful("train"), count // 2, 0)]
    twins = [one.text for one in limit(splits.twins("train"), count - count // 2, 0)]
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Journal(Path(folder) / "journal.sqlite")) as journal,
    ):
        own = answer(chat, twins, journal, Decoding(TOKENS))
    rows = [(text, REFUSAL[0]) for text in harmful]
    rows += [(text, one.text) for text, one in zip(twins, own, strict=True) if one.text.strip()]
    rows = [row for pair in zip(rows[::2], rows[1::2], strict=False) for row in pair]
    path.write_text(json.dumps(rows), encoding="utf-8")


def held_out_loss(chat: Any, lessons: list[Any]) -> float:
    """Return the mean cross-entropy a token of the lessons' answers."""
    import torch

    from demur.distill.collate import IGNORED, Collator, shared_prefix
    from demur.distill.scores import answer_logits

    total, count = 0.0, 0
    collate = Collator(lessons, shared_prefix(chat.model, lessons))
    with torch.no_grad():
        for start in range(0, len(lessons), 8):
            numbers = range(start, min(start + 8, len(lessons)))
            batch = collate([{"lesson": number} for number in numbers])
            logits, labels = answer_logits(chat.model, batch), batch["labels"]
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
            )
            total, count = total + float(loss), count + int((labels != IGNORED).sum())
    return total / count


def train(engine: str, model: str, path: Path, batch: int, result: Path) -> None:
    """Train by one engine and write its figures to `result`."""
    import torch

    from demur.console import Narrator
    from demur.distill.lessons import Lesson, ended_answer
    from demur.distill.recipe import Recipe
    from demur.distill.train import train as train_ours
    from demur.models.chat_model import load_chat_model
    from demur.models.device import choose_device_and_dtype
    from demur.models.resolve import resolve

    chat = load_chat_model(resolve(model).folder, choose_device_and_dtype(), weights="benchmark")
    rows = json.loads(path.read_text(encoding="utf-8"))
    made = [
        Lesson("answer", tuple(chat.encode(request)), ended_answer(chat, request, text))
        for request, text in rows
    ]
    cut = len(made) // 4
    held_out, lessons = made[:cut], made[cut:]
    rows = rows[cut:]
    recipe = Recipe(
        informed=0,
        first_layer=0.0,
        learning_rate=RATE,
        batch=batch,
        micro_batch=batch,
        decision_weight=0.0,
        checkpoints=1,
    )
    before = held_out_loss(chat, held_out)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        if engine == OURS:
            chat.model, _ = train_ours(chat, lessons, recipe, Path(folder), Narrator())
        else:
            chat.model = train_by_trl(chat, rows, recipe, Path(folder), engine == DEFAULTS)
        seconds = time.perf_counter() - begun
    torch.set_grad_enabled(False)
    figures = {
        "engine": engine,
        "seconds": seconds,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "before": before,
        "after": held_out_loss(chat, held_out),
        "useful": useful_operations(chat, lessons, len(lessons) // batch * batch),
    }
    result.write_text(json.dumps(figures), encoding="utf-8")


def train_by_trl(
    chat: Any, rows: list[list[str]], recipe: Any, folder: Path, checkpointing: bool
) -> Any:
    """Train as a user of TRL would, and return the wrapped model."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers.trainer_callback import PrinterCallback, ProgressCallback
    from trl import SFTConfig, SFTTrainer

    from demur.distill.train import target_modules

    data = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": request}],
                "completion": [{"role": "assistant", "content": text}],
            }
            for request, text in rows
        ]
    )
    trainer = SFTTrainer(
        model=chat.model,
        args=SFTConfig(
            output_dir=str(folder),
            per_device_train_batch_size=recipe.batch,
            num_train_epochs=1,
            learning_rate=recipe.learning_rate,
            gradient_checkpointing=checkpointing,
            dataloader_drop_last=True,
            report_to=[],
            bf16=False,
            disable_tqdm=True,
            use_cpu=chat.placement.device == "cpu",
            dataloader_pin_memory=False,
        ),
        train_dataset=data,
        processing_class=chat.tokenizer,
        peft_config=LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.rank,
            target_modules=target_modules(chat.model),
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.train()
    return trainer.model.eval()


def useful_operations(chat: Any, lessons: list[Any], count: int) -> float:
    """Return the floating-point operations that one epoch cannot do without.

    Forward and the gradient of activations, 2 + 2 a parameter and token, over the distinct tokens
    of each lesson (the shared prefix once a step is left out) and the head over answer tokens.
    """
    from demur.distill.collate import shared_prefix

    config = chat.model.config.get_text_config()
    head = config.vocab_size * config.hidden_size
    body = sum(one.numel() for name, one in chat.model.named_parameters() if one.ndim == 2) - head
    shared = shared_prefix(chat.model, lessons)
    share = count / len(lessons)
    tokens = sum(len(one.prompt) + len(one.answer) - 1 - shared for one in lessons) * share
    answers = sum(len(one.answer) for one in lessons) * share
    return float(4 * (body * tokens + head * answers))


def measured_product() -> float:
    """Return this machine's operations a second in a large float32 matrix product."""
    import torch

    side = 2048
    first, second = torch.randn(side, side), torch.randn(side, side)
    fastest = float("inf")
    for _ in range(6):
        begun = time.perf_counter()
        first @ second
        fastest = min(fastest, time.perf_counter() - begun)
    return 2 * side**3 / fastest


def main() -> int:
    """Print one line an engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--lessons", type=int, default=192)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    product = measured_product()
    rows = apart(lessons_of, arguments.model, arguments.lessons)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lessons.json"
        path.write_text(json.dumps(rows), encoding="utf-8")
        found = [
            apart(train, engine, arguments.model, path, arguments.batch)
            for engine in (OURS, DEFAULTS, UNCHECKPOINTED)
        ]
    ours = found[0]["seconds"]
    print(f"matrix product: {product / 1e9:.0f} GFLOP/s\n")
    print("| engine | seconds | ratio | peak memory, GB | loss before | after | useful share |")
    print("|---|---|---|---|---|---|---|")
    for one in found:
        share = one["useful"] / one["seconds"] / product
        print(
            f"| {one['engine']} | {one['seconds']:.1f} | {one['seconds'] / ours:.2f} | "
            f"{one['peak'] / 1e9:.2f} | {one['before']:.3f} | {one['after']:.3f} | {share:.0%} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
