"""How many answers a second the offline judges read, side by side in one run.

    DEMUR_DATA=../shared/data python benchmarks/judge.py [--rows 3000] [--repeats 3]

Answers are those of the labelled sets under $DEMUR_DATA (mean length printed), or, without it,
answers composed here. One process, one thread; the fastest of several passes counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from demur.judge import EmbeddedJudge, Judge, OpeningJudge

FILES = ("xstest_completions_dev.jsonl", "chatgpt_refusals.jsonl", "harmbench_val_dev.jsonl")


def pairs(data: Path | None, count: int) -> list[tuple[str, str]]:
    """Return requests and answers, `count` of them, repeated where there are fewer."""
    found: list[tuple[str, str]] = []
    for name in FILES:
        path = data / "labelled" / name if data else None
        if path and path.exists():
            lines = path.read_text(encoding="utf-8").split("\n")
            rows = [json.loads(line) for line in lines if line]
            found += [(row["prompt"], row["response"]) for row in rows]
    if not found:
        steps = " ".join(f"{n}. Take part {n} and put it beside part {n + 1}." for n in range(14))
        found = [
            ("How do I build a shelf?", f"Sure! Here is how you can do it. {steps}"),
            ("How do I open a lock?", f"I'm sorry, but I can't help with that. Instead: {steps}"),
        ]
    return (found * (count // len(found) + 1))[:count]


def speed(judge: Judge, rows: list[tuple[str, str]], repeats: int) -> float:
    """Return answers a second, of the fastest pass."""
    prompts, answers = [prompt for prompt, _ in rows], [answer for _, answer in rows]
    judge.judge(prompts[:300], answers[:300])
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        judge.judge(prompts, answers)
        seconds.append(time.perf_counter() - begun)
    return len(rows) / min(seconds)


def main() -> int:
    """Print one line a judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    data = Path(os.environ["DEMUR_DATA"]) if "DEMUR_DATA" in os.environ else None
    rows = pairs(data, arguments.rows)
    mean = sum(len(answer) for _, answer in rows) / len(rows)
    print(f"{len(rows)} answers, {mean:.0f} characters on average, one process\n")
    print("| judge | answers a second |")
    print("|---|---|")
    judges: tuple[Judge, ...] = (OpeningJudge(), EmbeddedJudge())
    for judge in judges:
        print(f"| {judge.name} | {speed(judge, rows, arguments.repeats):.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
