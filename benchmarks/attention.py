"""How much faster a training step is on a CPU with attention written out than with the fused one.

    python benchmarks/attention.py [--rows 32] [--widths 24 64 128] [--prefix 20]

One step is forward and back through the demo model with LoRA on its upper layers, rows of random
tokens behind a prefix that is computed once, as the trainer does; the loss and the optimiser are
left out. Prints seconds of the fastest of several steps of each way, taken in turns in one run, and
their ratio. `demur.models.attention` does what this shows to be worth it.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any


def batch_of(model: Any, rows: int, width: int, prefix: int) -> dict[str, Any]:
    """Return a batch of random tokens as the trainer's collator makes them."""
    import torch

    vocabulary = model.config.vocab_size
    ids = torch.randint(0, vocabulary, (rows, width))
    return {
        "prefix": torch.randint(0, vocabulary, (1, prefix)),
        "input_ids": ids,
        "attention_mask": torch.ones(rows, prefix + width, dtype=torch.long),
        "position_ids": torch.arange(prefix, prefix + width).expand(rows, -1),
        "labels": torch.full((rows, 1), 1),
    }


def seconds_of(model: Any, batch: dict[str, Any], attention: str) -> float:
    """Return the seconds of one step, forward and back, with an implementation of transformers."""
    from demur.distill.scores import answer_logits

    model.get_base_model().set_attn_implementation(attention)
    begun = time.perf_counter()
    answer_logits(model, batch).logsumexp(-1).sum().backward()
    seconds = time.perf_counter() - begun
    model.zero_grad(set_to_none=True)
    return seconds


def main() -> int:
    """Print the comparison, in float32 and, where the processor has it, in bfloat16."""
    from demur.distill.recipe import Recipe
    from demur.distill.train import wrapped
    from demur.models.chat_model import load_chat_model
    from demur.models.device import choose_device_and_dtype
    from demur.models.resolve import resolve

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--widths", type=int, nargs="+", default=[24, 64, 128])
    parser.add_argument("--prefix", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    found = resolve("smollm2-135m")
    own = choose_device_and_dtype("cpu").dtype
    print("| numbers | tokens of a row | fused, s | plain, s | ratio |")
    print("|---|---|---|---|---|")
    for dtype in dict.fromkeys(("float32", own)):
        chat = load_chat_model(found.folder, choose_device_and_dtype("cpu", dtype), weights="-")
        model = wrapped(chat.model, Recipe())
        for width in arguments.widths:
            batch = batch_of(chat.model, arguments.rows, width, arguments.prefix)
            fused = plain = float("inf")
            for _ in range(arguments.repeats):
                fused = min(fused, seconds_of(model, batch, "sdpa"))
                plain = min(plain, seconds_of(model, batch, "eager"))
            print(f"| {dtype} | {width} | {fused:.2f} | {plain:.2f} | {fused / plain:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
