"""Make a family of 17 fine-tuned siblings of SmolLM2-135M-Instruct to graft into, all benign.

    DEMUR_DATA=../shared/data python benchmarks/siblings.py FOLDER [--only NAME ...] [--steps N]

Every sibling of the table in `sibling_recipes.py` is what a user makes who means no harm: role
play, school maths, instructions written by people, short instructions, and a long mixture; by LoRA,
merged, and in full; with other seeds, rates and lengths. The rows are public instruction data as
they are: refusals among them stay, and rows that look like help with harm are left out and counted.
Answers alone are learnt, in the model's own chat template, in float32.

Each sibling is written whole or not at all, as FOLDER/NAME, and FOLDER/manifest.json tells of all:
hashes of base, data and result, steps, the loss an answer token on held-out rows before and after,
seconds. Siblings that are there are left as they are, so that the same command goes on where it
was stopped. The whole family takes 9.2 GB, and took 38 minutes on two cores that others shared.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sibling_recipes import SIBLINGS, Sibling

from demur.checkpoint import checkpoint_hash, find_nonfinite, open_checkpoint
from demur.checkpoint.storage import require_empty, require_room
from demur.console import Narrator
from demur.errors import ConfigError, DemurError, PromptError, TrainingError
from demur.models.resolve import resolve
from demur.quiet import hush
from demur.run.folder import folder_that_appears_whole, write_atomically
from demur.run.journal import content_key

BASE = "smollm2-135m"
HELD_OUT = 16
ABOUT, ALL = "sibling.json", "manifest.json"


@dataclass(frozen=True)
class Rows:
    """What a sibling is trained and tried on, and what the check of it found.

    Attributes:
        taught, held_out: lessons, and none in both.
        data_hash: of the texts of both, in order.
        looks_harmful: rows that were drawn and left out by the check.
        refusals: rows among the taught whose answer refuses; they stay.
    """

    taught: tuple[Any, ...]
    held_out: tuple[Any, ...]
    data_hash: str
    looks_harmful: int
    refusals: int


def data_folder() -> Path:
    """Return where the public data lie.

    Raises:
        PromptError: they are not there.
    """
    folder = Path(os.environ.get("DEMUR_DATA", "../shared/data")) / "instructions"
    if not folder.is_dir():
        raise PromptError(
            f"The instruction data are not in {folder}.", "Set DEMUR_DATA to the data folder."
        )
    return folder


def read(name: str) -> list[tuple[str, str]]:
    """Return the different requests of a file with their answers, in its order."""
    path = data_folder() / f"{name}.jsonl"
    found: dict[str, str] = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["prompt"].strip() and row["response"].strip():
                found.setdefault(row["prompt"], row["response"])
    return list(found.items())


def benign(rows: Sequence[tuple[str, str]], count: int) -> tuple[list[tuple[str, str]], int]:
    """Return the first `count` rows, or all, that do not look like help with harm.

    A row is left out where its request nearly repeats a harmful one of demur's own, or where the
    embedded judge calls its answer harmful.

    Returns:
        The rows, and how many were left out on the way.
    """
    from demur.judge import EmbeddedJudge
    from demur.prompts.builtin import builtin_set
    from demur.prompts.duplicates import near_duplicates

    harmful = [prompt.text for prompt in builtin_set().of("harmful")]
    judge = EmbeddedJudge()
    kept: list[tuple[str, str]] = []
    read = 0
    while len(kept) < count and read < len(rows):
        part = rows[read : read + count - len(kept)]
        read += len(part)
        repeated = {pair.left for pair in near_duplicates([row[0] for row in part], harmful)}
        verdicts = judge.judge(*(list(column) for column in zip(*part, strict=True)))
        kept += [
            row
            for place, (row, verdict) in enumerate(zip(part, verdicts, strict=True))
            if place not in repeated and verdict.harm != "harmful"
        ]
    return kept, read - len(kept)


def choose_rows(chat: Any, sibling: Sibling) -> Rows:
    """Return a sibling's rows as lessons.

    Raises:
        PromptError: too few are short enough.
    """
    from demur.distill.lessons import Lesson, ended_answer
    from demur.judge import OpeningJudge
    from demur.models.forward import common_prefix

    shared = common_prefix([chat.encode("Why?"), chat.encode("How so?")])
    generator = random.Random(sibling.seed)
    taught: list[tuple[tuple[str, str], Any]] = []
    held_out: list[tuple[tuple[str, str], Any]] = []
    left_out = 0
    for name in sibling.data:
        fitting = {}
        for request, answer in read(name):
            if len(request) + len(answer) > 8 * sibling.longest:  # too long to be worth reading
                continue
            prompt = tuple(chat.encode(request))
            lesson = Lesson("answer", prompt, ended_answer(chat, request, answer))
            if len(prompt) + len(lesson.answer) - shared <= sibling.longest:
                fitting[request, answer] = lesson
        count, tried = sibling.rows // len(sibling.data), HELD_OUT // len(sibling.data)
        order = list(fitting)
        generator.shuffle(order)
        kept, out = benign(order, count + tried)
        left_out += out
        if len(kept) < count + tried:
            raise PromptError(
                f"{name} has {len(kept)} benign rows of at most {sibling.longest} tokens, and "
                f"{sibling.name} needs {count + tried}.",
                "Raise `longest` or lower `rows` in the table.",
            )
        taught += [(row, fitting[row]) for row in kept[:count]]
        held_out += [(row, fitting[row]) for row in kept[count : count + tried]]
    texts = [row for row, _ in taught]
    verdicts = OpeningJudge().judge(*(list(column) for column in zip(*texts, strict=True)))
    return Rows(
        taught=tuple(lesson for _, lesson in taught),
        held_out=tuple(lesson for _, lesson in held_out),
        data_hash=content_key(texts, [row for row, _ in held_out]),
        looks_harmful=left_out,
        refusals=sum(verdict.refused for verdict in verdicts),
    )


def batches(lessons: Sequence[Any], sibling: Sibling) -> Iterator[list[int]]:
    """Yield the rows of each step, over all epochs: mixed, but of like length within a step."""
    generator = random.Random(sibling.seed)
    for _ in range(sibling.epochs):
        order = list(range(len(lessons)))
        generator.shuffle(order)
        order.sort(key=lambda row: (len(lessons[row].prompt) + len(lessons[row].answer)) // 8)
        steps = [order[i : i + sibling.batch] for i in range(0, len(order), sibling.batch)]
        generator.shuffle(steps)
        yield from steps


def loss(model: Any, batch: dict[str, Any]) -> Any:
    """Return the mean cross-entropy a token of the answers of a batch."""
    from torch.nn.functional import cross_entropy

    from demur.distill.collate import IGNORED
    from demur.distill.scores import answer_logits

    batch = {name: value.to(model.device) for name, value in batch.items()}
    logits, labels = answer_logits(model, batch), batch["labels"]
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def held_out_loss(model: Any, lessons: Sequence[Any]) -> float:
    """Return the mean cross-entropy a token over the answers of lessons that are not taught."""
    import torch

    from demur.distill.collate import Collator, shared_prefix

    collate = Collator(lessons, shared_prefix(model, lessons))
    order = sorted(range(len(lessons)), key=lambda row: len(lessons[row].answer))
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(order), 8):
            rows = order[start : start + 8]
            tokens = sum(len(lessons[row].answer) for row in rows)
            total += tokens * float(loss(model, collate([{"lesson": row} for row in rows])))
    return total / sum(len(lesson.answer) for lesson in lessons)


def train(
    chat: Any, lessons: Sequence[Any], sibling: Sibling, most: int | None
) -> tuple[Any, int, int]:
    """Fine-tune the model.

    Returns:
        The model, LoRA merged; steps; tokens read, the common beginning of all chats left out.

    Raises:
        TrainingError: a loss is no number.
    """
    import torch
    from transformers import get_cosine_schedule_with_warmup, set_seed

    from demur.distill.collate import Collator, shared_prefix

    plan = list(batches(lessons, sibling))[:most]
    set_seed(sibling.seed)
    model = with_lora(chat.model, sibling) if sibling.method == "lora" else chat.model
    if sibling.method == "full":
        model.requires_grad_(True)
    model.train()
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=sibling.learning_rate, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, max(1, len(plan) // 10), len(plan) + 1)
    shared = shared_prefix(chat.model, lessons)
    collate = Collator(lessons, shared)
    taken = [lessons[row] for rows in plan for row in rows]
    tokens = sum(len(one.prompt) + len(one.answer) - 1 - shared for one in taken)
    torch.set_flush_denormal(True)
    with Narrator().progress(f"steps of {sibling.name}", len(plan)) as advance:
        for step, rows in enumerate(plan):
            value = loss(model, collate([{"lesson": row} for row in rows]))
            if not bool(torch.isfinite(value)):
                raise TrainingError(
                    f"The loss of {sibling.name} became {float(value)} at step {step}.",
                    "Lower its learning rate in the table.",
                )
            value.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            advance(1)
    torch.set_flush_denormal(False)
    model = model.merge_and_unload() if sibling.method == "lora" else model
    return model.eval().requires_grad_(False), len(plan), tokens


def with_lora(model: Any, sibling: Sibling) -> Any:
    """Return the model with LoRA on all its projections."""
    from peft import LoraConfig, get_peft_model

    from demur.distill.train import target_modules

    return get_peft_model(
        model,
        LoraConfig(
            r=sibling.rank,
            lora_alpha=2 * sibling.rank,
            lora_dropout=0.0,
            target_modules=target_modules(model),
            task_type="CAUSAL_LM",
        ),
    )


def make(sibling: Sibling, base: Path, base_hash: str, target: Path, most: int | None) -> None:
    """Make one sibling, which appears whole.

    Raises:
        DemurError: the data or the disk do not suffice, or training came out with no numbers.
    """
    from demur.models.cache import save_model
    from demur.models.chat_model import load_chat_model
    from demur.models.device import choose_device_and_dtype

    begun = time.perf_counter()
    placement = choose_device_and_dtype(dtype="float32")
    chat = load_chat_model(base, placement, weights=base_hash, name=BASE)
    rows = choose_rows(chat, sibling)
    before = held_out_loss(chat.model, rows.held_out)
    ready = time.perf_counter()
    model, steps, tokens = train(chat, rows.taught, sibling, most)
    trained = time.perf_counter()
    after = held_out_loss(model, rows.held_out)
    with folder_that_appears_whole(target) as folder:
        save_model(model, chat.tokenizer, folder)
        written = open_checkpoint(folder)
        require_relative(written, open_checkpoint(base))
        told = {
            "base": BASE,
            "base_hash": base_hash,
            "recipe": asdict(sibling),
            "most_steps": most,
            "steps": steps,
            "data_hash": rows.data_hash,
            "rows_left_out_as_harmful": rows.looks_harmful,
            "refusals_kept": rows.refusals,
            "tokens": tokens,
            "held_out_rows": len(rows.held_out),
            "loss_before": before,
            "loss_after": after,
            "result_hash": checkpoint_hash(written),
            "seconds_of_training": trained - ready,
            "seconds": time.perf_counter() - begun,
        }
        write_atomically(folder / ABOUT, json.dumps(told, indent=1))


def require_relative(written: Any, base: Any) -> None:
    """Check that a sibling has its base's tensors, and numbers in them.

    Raises:
        TrainingError: it has not.
    """
    forms = [
        {name: (one.dtype, one.shape) for name, one in checkpoint.tensors.items()}
        for checkpoint in (written, base)
    ]
    broken = find_nonfinite(written)
    if forms[0] != forms[1] or broken:
        raise TrainingError(
            f"The sibling's tensors are not those of its base, or not finite: {broken[:3]}.",
            "Lower its learning rate in the table, or report this.",
        )


def is_there(sibling: Sibling, base_hash: str, target: Path, most: int | None) -> bool:
    """Return whether a sibling was made before, by the same recipe.

    Raises:
        ConfigError: it was made by another.
        CheckpointError: something else is in its place.
    """
    if not (target / ABOUT).is_file():
        require_empty(target)
        return False
    told = json.loads((target / ABOUT).read_text(encoding="utf-8"))
    asked = json.loads(json.dumps([asdict(sibling), base_hash, most]))
    if [told["recipe"], told["base_hash"], told["most_steps"]] != asked:
        raise ConfigError(
            f"{target} was made by another recipe, or from another base.",
            "Delete it, or choose another folder.",
        )
    return True


def write_manifest(folder: Path) -> None:
    """Write what is told of all siblings that are there, in the table's order."""
    places = [folder / sibling.name / ABOUT for sibling in SIBLINGS]
    told = [json.loads(place.read_text(encoding="utf-8")) for place in places if place.is_file()]
    write_atomically(folder / ALL, json.dumps(told, indent=1))


def main() -> int:
    """Make the siblings that are not there yet, and print the table of all in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=[one.name for one in SIBLINGS], default=None)
    parser.add_argument("--steps", type=int, default=None, help="at most: for a trial")
    arguments = parser.parse_args()
    hush()
    wanted = [one for one in SIBLINGS if arguments.only is None or one.name in arguments.only]
    try:
        base = resolve(BASE).folder
        checkpoint = open_checkpoint(base)
        base_hash = checkpoint_hash(checkpoint)
        missing = [
            one
            for one in wanted
            if not is_there(one, base_hash, arguments.folder / one.name, arguments.steps)
        ]
        size = sum(one.bytes for one in checkpoint.tensors.values()) + (8 << 20)
        require_room(arguments.folder, len(missing) * size)
        for sibling in missing:
            make(sibling, base, base_hash, arguments.folder / sibling.name, arguments.steps)
            write_manifest(arguments.folder)
    except DemurError as error:
        print(f"{error.cause}\n{error.remedy}", file=sys.stderr)
        return error.exit_code
    print("| sibling | method | steps | tokens | refusals kept | loss before | after | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for told in json.loads((arguments.folder / ALL).read_text(encoding="utf-8")):
        print(
            f"| {told['recipe']['name']} | {told['recipe']['method']} | {told['steps']} "
            f"| {told['tokens']} | {told['refusals_kept']} of {told['recipe']['rows']} "
            f"| {told['loss_before']:.3f} | {told['loss_after']:.3f} | {told['seconds']:.0f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
