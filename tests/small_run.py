"""A whole run of `demur align` that is over in seconds: a tiny model and few prompts."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from demur.prompts.builtin import builtin_set
from tests.tiny import tiny_llama

OPTIONS = shlex.split(
    "--pairs pairs.jsonl --ordinary ordinary.jsonl --train-pairs 48 --train-ordinary 16 "
    "--test-pairs 12 --test-ordinary 8 --validation-pairs 8 --prefill 4 --checkpoints 2 "
    "--text-tokens 600 --answer-tokens 8 --longest 300 --batch 16 --micro-batch 8 "
    "--device cpu --dtype float32"
)
SMALLEST: dict[str, Any] = {
    "checkpoints": 1,
    "answer_tokens": 6,
    "sample_tokens": 4,
    "longest": 300,
    "batch": 8,
    "micro_batch": 8,
    "prefill": 2,
    "device": "cpu",
    "dtype": "float32",
}
SMALL: dict[str, Any] = {
    **SMALLEST,
    "train_pairs": 16,
    "train_ordinary": 8,
    "test_pairs": 6,
    "test_ordinary": 4,
    "validation_pairs": 4,
    "text_tokens": 200,
    "train_texts": 2,
}
SOURCES = Path(__file__).parents[1] / "src"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, (str(SOURCES), os.environ.get("PYTHONPATH")))),
    "OMP_NUM_THREADS": "1",
}


def prepare(folder: Path, pairs: int = 110, ordinary: int = 60) -> None:
    """Put a tiny model and a few of the built-in prompts into `folder`."""
    tiny_llama(folder / "tiny")
    harmful, twins = builtin_set().of("harmful"), builtin_set().of("twin")
    step = len(harmful) // pairs
    rows = [
        {"harmful": first.text, "benign": second.text, "hazard": first.hazard}
        for first, second in list(zip(harmful, twins, strict=True))[::step]
    ]
    others = builtin_set().of("ordinary")
    plain = [{"prompt": each.text} for each in others[:: len(others) // ordinary]]
    for name, lines in (("pairs.jsonl", rows), ("ordinary.jsonl", plain)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / name).write_text(text, encoding="utf-8")


def demur(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, in `folder`, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "demur", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def heed_interrupts() -> None:
    """Have a child process take SIGINT, which it would ignore as a job in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def without_cost(result: dict[str, Any], *others: str) -> dict[str, Any]:
    """Return a result without what differs from run to run."""
    return {key: value for key, value in result.items() if key not in ("cost", *others)}
