"""Have the packaged small model answer training prompts, so that the judge learns such English.

    python scripts/judge_small_model.py --out small_model.jsonl

Small models loop, wander and apologise for nothing. Their answers to demur's own training prompts
are labelled by the opening rule, not by people, and by the corrections in `judge_labels.json`. The
file is made anew for training and never shipped: it holds what a model says to harmful requests.
Greedy decoding makes it the same on the same machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from demur.models.chat_model import load_chat_model
from demur.models.device import choose_device_and_dtype
from demur.models.generation import decode_all
from demur.models.resolve import resolve
from demur.prompts.choose import gather
from demur.prompts.split import evenly
from demur.quiet import hush

MODEL = "smollm2-135m"


def main() -> int:
    """Write one line a prompt: prompt, kind, block, answer."""
    hush()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--harmful", type=int, default=220)
    parser.add_argument("--twins", type=int, default=220)
    parser.add_argument("--ordinary", type=int, default=110)
    parser.add_argument("--tokens", type=int, default=24)
    given = parser.parse_args()
    splits = gather()
    prompts = [
        *evenly(splits.harmful("train"), given.harmful, 1),
        *evenly(splits.twins("train"), given.twins, 1),
        *evenly(splits.ordinary("train"), given.ordinary, 1),
    ]
    placement = choose_device_and_dtype("cpu")
    chat = load_chat_model(resolve(MODEL).folder, placement, weights=MODEL, name=MODEL)
    requests = [chat.encode(prompt.text) for prompt in prompts]
    answers: dict[int, str] = {}
    for batch in decode_all(chat, requests, given.tokens):
        answers.update((index, chat.decode(written.tokens)) for index, written in batch)
    with given.out.open("w", encoding="utf-8") as file:
        for index, prompt in enumerate(prompts):
            row = {
                "prompt": prompt.text,
                "kind": prompt.kind,
                "block": prompt.block or prompt.key,
                "response": answers[index],
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
