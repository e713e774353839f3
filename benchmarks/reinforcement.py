"""A step of reinforcement beside TRL's: the same requests, answers a request, LoRA and reward.

    python benchmarks/reinforcement.py [--model smollm2-135m] [--steps 3] [--requests 16]

The student draws four answers of 24 tokens at most to each request, a judge's verdict is the
reward, and LoRA on all projections takes one step of leave-one-out REINFORCE with a price on
divergence. The peer is TRL's RLOOTrainer; demur is run as it comes (an answer is written until its
verdict is known, and one of four to a harmful request is demonstrated) and with all answers written
to the end. Each engine has a process of its own; the first step, which warms up, is not counted.
Prints seconds a step, ratio to demur's, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apart import apart

if TYPE_CHECKING:
    from demur.console import Advance

OURS, WHOLE, PEER = "demur", "demur, answers to the end", "TRL, RLOOTrainer"
SAMPLES, TOKENS = 4, 24
RATE, BETA = 2e-4, 0.02


def steps_noted(marks: list[float]) -> Any:
    """Return a callback that notes when each step ended."""
    from transformers import TrainerCallback

    class Marks(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *given: Any, **named: Any) -> None:
            marks.append(time.perf_counter())

    return Marks()


def by_demur(
    chat: Any, rows: Sequence[tuple[str, str]], count: int, folder: Path, whole: bool
) -> Any:
    """Take the steps with demur's trainer; return when each ended."""
    from dataclasses import replace

    from demur.console import Narrator
    from demur.distill.lessons import Lesson, ended_answer
    from demur.distill.objectives.make import make_objective
    from demur.distill.recipe import Recipe
    from demur.distill.train import train
    from demur.distilling.config import REFUSAL
    from demur.judge.opening import OpeningJudge

    lessons = [
        Lesson(
            "refuse" if kind == "harmful" else "answer",
            tuple(chat.encode(text)),
            ended_answer(
                chat, text, REFUSAL[0] if kind == "harmful" else "Here is how it is done."
            ),
            request=text,
        )
        for kind, text in rows
    ]
    recipe = Recipe(
        objective="rloo",
        informed=0,
        first_layer=0.0,
        learning_rate=RATE,
        beta=BETA,
        batch=count,
        micro_batch=count,
        samples=SAMPLES,
        sample_tokens=TOKENS,
        checkpoints=1,
    )
    objective = make_objective(chat, lessons, recipe, OpeningJudge())
    if whole:
        objective = replace(objective, decided=None)  # type: ignore[type-var]
    marks: list[float] = []

    class Noting(Narrator):
        """Notes when it is told of progress."""

        @contextmanager
        def progress(self, description: str, total: int | None) -> Iterator[Advance]:
            yield lambda count: marks.append(time.perf_counter())

    train(chat, lessons, recipe, folder, Noting(), objective)
    return marks[1:]  # of the first it is told when it begins


def by_trl(chat: Any, rows: Sequence[tuple[str, str]], count: int, folder: Path) -> Any:
    """Take the steps as a user of TRL would; return when each ended."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import RLOOConfig, RLOOTrainer

    from demur.distill.objectives import VerdictReward
    from demur.distill.train import target_modules
    from demur.judge.opening import OpeningJudge

    judge = OpeningJudge()
    paid = VerdictReward(chat, judge)
    kinds = {text: kind for kind, text in rows}

    def reward(prompts: Any, completions: Any, **named: Any) -> list[float]:
        texts = [prompt[-1]["content"] for prompt in prompts]
        answers = [completion[0]["content"] for completion in completions]
        verdicts = judge.judge(texts, answers)
        return [
            paid.worth(kinds[text] == "harmful", verdict)
            for text, verdict in zip(texts, verdicts, strict=True)
        ]

    marks: list[float] = []
    trainer = RLOOTrainer(
        model=chat.model,
        reward_funcs=reward,
        args=RLOOConfig(
            output_dir=str(folder),
            per_device_train_batch_size=count * SAMPLES,
            num_generations=SAMPLES,
            max_completion_length=TOKENS,
            beta=BETA,
            max_steps=len(rows) // count,
            learning_rate=RATE,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            bf16=False,
            disable_tqdm=True,
            use_cpu=chat.placement.device == "cpu",
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": text}]} for _, text in rows]
        ),
        processing_class=chat.tokenizer,
        peft_config=LoraConfig(
            r=8, lora_alpha=8, target_modules=target_modules(chat.model), task_type="CAUSAL_LM"
        ),
        callbacks=[steps_noted(marks)],
    )
    trainer.train()
    return marks


def measure(engine: str, model: str, steps: int, count: int, result: Path) -> None:
    """Take the steps by one engine and write its figures to `result`."""
    from demur.models.chat_model import load_chat_model
    from demur.models.device import choose_device_and_dtype
    from demur.models.resolve import resolve
    from demur.prompts.choose import gather
    from demur.prompts.split import limit

    placement = choose_device_and_dtype()
    chat = load_chat_model(resolve(model).folder, placement, weights="benchmark")
    splits, half = gather(), (steps + 1) * count // 2
    sides = (limit(splits.harmful("train"), half, 0), limit(splits.twins("train"), half, 0))
    rows = [(one.kind, one.text) for pair in zip(*sides, strict=True) for one in pair]
    with tempfile.TemporaryDirectory() as folder:
        if engine == PEER:
            marks = by_trl(chat, rows, count, Path(folder))
        else:
            marks = by_demur(chat, rows, count, Path(folder), engine == WHOLE)
    figures = {
        "engine": engine,
        "dtype": placement.dtype,
        "seconds": (marks[-1] - marks[0]) / (len(marks) - 1),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    result.write_text(json.dumps(figures), encoding="utf-8")


def main() -> int:
    """Print one line an engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--requests", type=int, default=16)
    arguments = parser.parse_args()
    asked = (arguments.model, arguments.steps, arguments.requests)
    found = [apart(measure, engine, *asked) for engine in (OURS, WHOLE, PEER)]
    ours = found[0]["seconds"]
    print(f"{arguments.requests} requests a step, {found[0]['dtype']}\n")
    print("| engine | seconds a step | ratio | peak memory, GB |")
    print("|---|---|---|---|")
    for one in found:
        print(
            f"| {one['engine']} | {one['seconds']:.1f} | {one['seconds'] / ours:.2f} | "
            f"{one['peak'] / 1e9:.2f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
