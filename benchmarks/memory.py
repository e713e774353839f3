"""What keeping freed memory does for a model on the CPU: time, page faults and peak memory.

    python benchmarks/memory.py [--model smollm2-135m] [--n 64] [--tokens 16] [--rounds 2]

Each measurement is a process of its own that decodes the same prompts, with the allocator as glibc
has it and with freed memory kept; the two take turns, and the faster round of each counts.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time


def measure(model: str, n: int, tokens: int, *, keep: bool) -> dict[str, float]:
    """Decode `n` prompts in this process and return seconds, page faults and peak memory."""
    import demur.models.chat_model as loading
    from demur.models.device import choose_device_and_dtype
    from demur.models.generation import decode_all
    from demur.models.resolve import resolve
    from demur.prompts.choose import gather
    from demur.prompts.split import evenly
    from demur.quiet import hush

    hush()
    if not keep:
        loading.keep_freed_memory = lambda: False
    placement = choose_device_and_dtype("cpu")
    chat = loading.load_chat_model(resolve(model).folder, placement, weights="benchmark")
    requests = [chat.encode(prompt.text) for prompt in evenly(gather().harmful("test"), n)]
    list(decode_all(chat, requests[:8], 2))
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    begun = time.perf_counter()
    list(decode_all(chat, requests, tokens))
    seconds = time.perf_counter() - begun
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "faults": usage.ru_minflt - faults,
        "peak": usage.ru_maxrss / 1024**2,
    }


def main() -> int:
    """Print both kinds side by side, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", choices=["kept", "as-is"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.model, given.n, given.tokens, keep=given.one == "kept")))
        return 0
    best: dict[str, dict[str, float]] = {}
    shared = [f"--model={given.model}", f"--n={given.n}", f"--tokens={given.tokens}"]
    for _ in range(given.rounds):
        for kind in ("as-is", "kept"):
            command = [sys.executable, __file__, *shared, f"--one={kind}"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            if kind not in best or found["seconds"] < best[kind]["seconds"]:
                best[kind] = found
    print("| freed memory | seconds | page faults | peak, GiB |")
    print("|---|---|---|---|")
    for kind, found in best.items():
        print(f"| {kind} | {found['seconds']:.1f} | {found['faults']:.0f} | {found['peak']:.2f} |")
    print(f"ratio of seconds: {best['as-is']['seconds'] / best['kept']['seconds']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
