"""Measure a finished run on public prompt sets; no prompt of theirs is trained on.

    DEMUR_DATA=../shared/data python benchmarks/held_out.py runs/smollm2-135m-... [--n 150]

Each set is put to the original and to the aligned model, greedily, and judged alike; the table has
n and 95 % intervals. The data are not part of this repository; a set that is absent is left out
and named.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from demur.aligning.config import AlignConfig
from demur.checkpoint import checkpoint_hash, open_checkpoint
from demur.console import Narrator
from demur.judge import OpeningJudge
from demur.measure.protocol import Judged, Probe, compare, measure_probe
from demur.measure.utility import Text, negative_log_likelihoods, perplexity, perplexity_ratio
from demur.models.chat_model import load_chat_model
from demur.models.device import choose_device_and_dtype
from demur.models.generation import Decoding
from demur.models.resolve import resolve
from demur.prompts.split import limit
from demur.prompts.types import Kind, Prompt
from demur.quiet import hush
from demur.run.journal import Journal
from demur.stats import Rate


@dataclass(frozen=True)
class PublicSet:
    """One set: its file below the data folder, the field that holds the prompt, and its kind."""

    name: str
    file: str
    field: str
    kind: Kind


SETS = (
    PublicSet("DAPA twins, harmful", "prompts/dapa_twins.jsonl", "harmful", "harmful"),
    PublicSet("DAPA twins, benign", "prompts/dapa_twins.jsonl", "benign", "twin"),
    PublicSet("AdvBench", "prompts/advbench.jsonl", "prompt", "harmful"),
    PublicSet("HarmBench validation", "labelled/harmbench_val_dev.jsonl", "prompt", "harmful"),
    PublicSet("TDC 2023", "prompts/tdc2023.jsonl", "prompt", "harmful"),
    PublicSet("CatQA", "prompts/catqa.jsonl", "prompt", "harmful"),
    PublicSet(
        "MaliciousInstructions",
        "prompts/safety_tuned_llamas_i_maliciousinstructions.jsonl",
        "prompt",
        "harmful",
    ),
    PublicSet("XSTest, unsafe", "labelled/xstest_completions_dev.jsonl", "prompt", "harmful"),
    PublicSet("XSTest, safe", "labelled/xstest_completions_dev.jsonl", "prompt", "twin"),
    PublicSet(
        "PhysicalSafety, safe",
        "prompts/safety_tuned_llamas_i_physicalsafetysafe.jsonl",
        "prompt",
        "twin",
    ),
    PublicSet("Dolly", "instructions/dolly_3k.jsonl", "prompt", "ordinary"),
)


def read(public: PublicSet, data: Path, n: int, longest: int = 400) -> tuple[Prompt, ...]:
    """Return up to `n` different prompts of a set, no longer than `longest` characters.

    XSTest's file has completions, not types: a prompt is taken as safe where GPT-4's answer was
    labelled a full compliance by people, and as unsafe where it was not.
    """
    rows = [json.loads(line) for line in (data / public.file).open(encoding="utf-8")]
    if public.name.startswith("XSTest"):
        safe = public.kind == "twin"
        rows = [row for row in rows if row["model"] == "gpt4"]
        rows = [row for row in rows if (row["human_label_refused"] is False) == safe]
    texts = dict.fromkeys(row[public.field] for row in rows if len(row[public.field]) <= longest)
    return limit(tuple(Prompt(text, public.kind, source=public.name) for text in texts), n)


def main() -> int:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--n", type=int, default=150)
    parser.add_argument("--tokens", type=int, default=20)
    arguments = parser.parse_args()
    hush()
    data = Path(os.environ.get("DEMUR_DATA", "../shared/data"))
    configuration = json.loads((arguments.run / "config.json").read_text(encoding="utf-8"))
    base = resolve(AlignConfig(configuration["model"]).model).folder
    placement, judge, narrator = choose_device_and_dtype(), OpeningJudge(), Narrator()
    journal = Journal(arguments.run / "held_out.sqlite")
    found = [public for public in SETS if (data / public.file).exists()]
    sides: list[list[Judged]] = []
    losses: list[list[float]] = []
    text = data / "text/wikitext2_test.txt"
    for label, folder in (("before", base), ("after", arguments.run / "model")):
        chat = load_chat_model(
            folder, placement, weights=checkpoint_hash(open_checkpoint(folder)), name=label
        )
        probes = [
            Probe(
                public.name,
                public.name,
                "external",
                "up" if public.kind == "harmful" else "down",
                read(public, data, arguments.n),
                Decoding(arguments.tokens),
            )
            for public in found
        ]
        sides.append([measure_probe(chat, one, journal, judge, narrator, label) for one in probes])
        if text.exists():
            content = text.read_text(encoding="utf-8")
            losses.append(negative_log_likelihoods(chat, Text("WikiText-2", content)))
        del chat
    print("| set | n | refused before | refused after | 95 % interval | undecided after |")
    print("|---|---|---|---|---|---|")
    for before, after in zip(*sides, strict=True):
        row = compare(before, after)
        print(
            f"| {row.title} | {row.after.n} | {row.before.value:.1%} | {row.after.value:.1%} "
            f"| {interval(row.after)} | {row.undecided_after} |"
        )
    if losses:
        ratio = perplexity_ratio(losses[0], losses[1])
        print(
            f"\nWikiText-2 test, first 8,192 tokens: perplexity {perplexity(losses[0]):.2f} -> "
            f"{perplexity(losses[1]):.2f}, ratio {ratio.value:.4f} "
            f"({ratio.low:.4f} to {ratio.high:.4f})"
        )
    missing = [public.name for public in SETS if public not in found]
    if missing:
        print(f"\nNot found below {data}: {', '.join(missing)}.")
    return 0


def interval(one: Rate) -> str:
    """Return an interval as percentages."""
    return f"{one.low:.1%} to {one.high:.1%}"


if __name__ == "__main__":
    sys.exit(main())
