"""What it costs and gains that torch's threads sleep, rather than spin, while they wait.

    python benchmarks/threads.py [--model smollm2-135m] [--n 48] [--tokens 8] [--rounds 2]

Decodes the same prompts in processes that differ in OMP_WAIT_POLICY alone, alone on the machine and
beside another process that keeps one core busy. Prints seconds and their ratio.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

POLICIES = ("ACTIVE", "PASSIVE")
BUSY = "while True: pass"


def seconds(model: str, n: int, tokens: int) -> float:
    """Return how long this process takes to decode `n` prompts."""
    import time

    from demur.models.chat_model import load_chat_model
    from demur.models.device import choose_device_and_dtype
    from demur.models.generation import decode_all
    from demur.models.resolve import resolve
    from demur.prompts.choose import gather
    from demur.prompts.split import evenly
    from demur.quiet import hush

    hush()
    chat = load_chat_model(resolve(model).folder, choose_device_and_dtype(), weights="benchmark")
    requests = [chat.encode(one.text) for one in evenly(gather().harmful("test"), n, 0)]
    list(decode_all(chat, requests[:8], 2))
    begun = time.perf_counter()
    list(decode_all(chat, requests, tokens))
    return time.perf_counter() - begun


def main() -> int:
    """Print one line a neighbour."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--n", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(seconds(arguments.model, arguments.n, arguments.tokens))
        return 0
    print("| beside | spinning, s | sleeping, s | ratio |")
    print("|---|---|---|---|")
    for name in ("nobody", "one busy process"):
        found: dict[str, list[float]] = {policy: [] for policy in POLICIES}
        busy = subprocess.Popen([sys.executable, "-c", BUSY]) if name != "nobody" else None
        try:
            for _ in range(arguments.rounds):
                for policy in POLICIES:
                    done = subprocess.run(
                        [sys.executable, *sys.argv, "--inside"],
                        env={**os.environ, "OMP_WAIT_POLICY": policy},
                        stdout=subprocess.PIPE,
                        text=True,
                        check=True,
                    )
                    found[policy].append(float(done.stdout.split()[-1]))
        finally:
            if busy is not None:
                busy.kill()
        spinning, sleeping = (min(found[policy]) for policy in POLICIES)
        print(f"| {name} | {spinning:.1f} | {sleeping:.1f} | {spinning / sleeping:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
