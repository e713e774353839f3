"""How much faster the head is over positions that are named than over a slice of as many.

    python benchmarks/head.py [--rows 32] [--width 24] [--count 3]

Both are what transformers' `logits_to_keep` takes; the slice (a number) is what its own generation
loop uses. Prints seconds a call of each, side by side in one run, and their ratio.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable


def fastest(call: Callable[[], object], repeats: int = 7) -> float:
    """Return the seconds of the fastest of several calls, after one that warms up."""
    call()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def main() -> int:
    """Print the comparison for the demo model's head (576 to 49,152) and a larger one's."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--count", type=int, default=3)
    arguments = parser.parse_args()
    print("| hidden x vocabulary | slice, s | named, s | ratio |")
    print("|---|---|---|---|")
    for hidden, vocabulary in ((576, 49152), (2048, 128256)):
        states = torch.randn(arguments.rows, arguments.width, hidden)
        head = torch.randn(vocabulary, hidden)
        places = torch.arange(arguments.width - arguments.count, arguments.width)
        with torch.inference_mode():
            linear = torch.nn.functional.linear
            sliced = fastest(lambda: linear(states[:, -arguments.count :], head))  # noqa: B023
            named = fastest(lambda: linear(states[:, places], head))  # noqa: B023
        print(f"| {hidden} x {vocabulary} | {sliced:.4f} | {named:.4f} | {sliced / named:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
