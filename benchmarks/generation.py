"""How many prompts a second are decoded: demur's engine beside transformers' own, same verdicts.

    python benchmarks/generation.py [--model smollm2-135m] [--n 96] [--tokens 64] [--peers 48]

In one run, on the same test prompts, greedily:

* `generate`: transformers' generate, prompts left-padded in batches in the order given, with each
  of `--rows` rows a batch;
* `continuous`: transformers' continuous batching (`generate_batch`), where it runs on this device;
* `demur`: the whole answers;
* `demur, settled`: each answer ends once its verdict is settled.

Prints prompts a second and their ratio to the quickest `generate`; on how many prompts the tokens
equal those of `generate`, as far as they were written; and on how many the verdict does.
transformers' engines are slow and can be given fewer prompts (`--peers`, spread over all): enough
to fill whole batches, or their prompts a second suffer. Engines are run in turn, `--rounds` times,
and the fastest round of each counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from demur.judge import OpeningJudge
from demur.judge.settled import settled
from demur.models.chat_model import ChatModel, load_chat_model
from demur.models.device import choose_device_and_dtype
from demur.models.generation import decode_all
from demur.models.resolve import resolve
from demur.prompts.choose import gather
from demur.prompts.split import evenly
from demur.quiet import hush
from demur.stats import rate

Engine = Callable[[], dict[int, tuple[int, ...]]]


def trimmed(tokens: Sequence[int], stops: frozenset[int]) -> tuple[int, ...]:
    """Return the tokens up to the first end mark, that one included."""
    for place, token in enumerate(tokens):
        if token in stops:
            return tuple(tokens[: place + 1])
    return tuple(tokens)


def plain_generate(
    chat: ChatModel, requests: list[list[int]], tokens: int, rows: int
) -> dict[int, tuple[int, ...]]:
    """Decode with `generate`, in left-padded batches of `rows` in the order given."""
    import torch

    found: dict[int, tuple[int, ...]] = {}
    for start in range(0, len(requests), rows):
        part = requests[start : start + rows]
        width = max(map(len, part))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in part])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in part])
        with torch.inference_mode():
            written = chat.model.generate(
                ids.to(chat.model.device),
                attention_mask=mask.to(chat.model.device),
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=sorted(chat.stops),
                pad_token_id=0,
            )
        for place, row in enumerate(written[:, width:].tolist()):
            found[start + place] = trimmed(row, chat.stops)
    return found


def continuous(
    chat: ChatModel, requests: list[list[int]], tokens: int
) -> dict[int, tuple[int, ...]]:
    """Decode with transformers' continuous batching."""
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, eos_token_id=sorted(chat.stops), pad_token_id=0
    )
    outputs = chat.model.generate_batch(
        inputs=requests, generation_config=config, progress_bar=False
    )
    ordered = sorted(outputs.values(), key=lambda one: int(str(one.request_id).split("_")[-1]))
    return {index: trimmed(one.generated_tokens, chat.stops) for index, one in enumerate(ordered)}


def ours(
    chat: ChatModel, requests: list[list[int]], tokens: int, ends: Any = None
) -> dict[int, tuple[int, ...]]:
    """Decode with demur's engine."""
    batches = decode_all(chat, requests, tokens, settled=ends)
    return {index: written.tokens for batch in batches for index, written in batch}


def judged(
    chat: ChatModel, judge: OpeningJudge, texts: list[str], rows: dict[int, tuple[int, ...]]
) -> dict[int, str | None]:
    """Return the outcome of each answer."""
    verdicts = judge.judge(
        [texts[index] for index in rows], [chat.decode(tokens) for tokens in rows.values()]
    )
    return {index: one.outcome for index, one in zip(rows, verdicts, strict=True)}


def timed(
    engines: dict[str, Engine], rounds: int
) -> tuple[dict[str, float], dict[str, dict[int, tuple[int, ...]]]]:
    """Return the seconds of each engine, the best of so many rounds, and its answers.

    One that does not run here is said and left out.
    """
    seconds: dict[str, float] = {}
    found: dict[str, dict[int, tuple[int, ...]]] = {}
    running = dict(engines)
    for _ in range(rounds):
        for name, engine in list(running.items()):
            begun = time.perf_counter()
            try:
                rows = engine()
            except (RuntimeError, ImportError, ValueError, NotImplementedError) as error:
                print(f"{name} does not run here: {str(error).splitlines()[0]}", file=sys.stderr)
                del running[name]
                continue
            taken = time.perf_counter() - begun
            print(f"{name}: {len(rows)} prompts in {taken:.1f} s", file=sys.stderr, flush=True)
            seconds[name] = min(seconds.get(name, taken), taken)
            found[name] = rows
    return seconds, found


def table(
    seconds: dict[str, float],
    found: dict[str, dict[int, tuple[int, ...]]],
    verdicts: dict[str, dict[int, str | None]],
    shared: Sequence[int],
) -> list[str]:
    """Return the rows of the table; all engines beside the quickest `generate`.

    Args:
        shared: the prompts that all engines answered.
    """
    speed = {name: len(found[name]) / taken for name, taken in seconds.items()}
    plain = max((name for name in speed if name.startswith("generate")), key=speed.__getitem__)
    lines = [
        "| engine | prompts a second | ratio | tokens an answer | same tokens | same verdicts |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        same = sum(rows[index] == found[plain][index][: len(rows[index])] for index in shared)
        agreed = rate(
            sum(verdicts[name][index] == verdicts[plain][index] for index in shared), len(shared)
        )
        lines.append(
            f"| {name} | {speed[name]:.2f} | {speed[name] / speed[plain]:.2f} "
            f"| {sum(map(len, rows.values())) / len(rows):.1f} | {same} of {len(shared)} "
            f"| {agreed.count} of {agreed.n} ({agreed.low:.1%} to {agreed.high:.1%}) |"
        )
    return lines


def parsed() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--n", type=int, default=96, help="prompts, half of them harmful")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--peers", type=int, help="prompts for transformers' engines; all")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[32, 64], help="rows of a batch of `generate`"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def main() -> int:
    """Run the engines in turn and print the table."""
    hush()
    arguments = parsed()
    resolved = resolve(arguments.model)
    placement = choose_device_and_dtype(arguments.device)
    chat = load_chat_model(resolved.folder, placement, weights="benchmark", name=arguments.model)
    splits = gather()
    half = arguments.n // 2
    prompts = [*evenly(splits.harmful("test"), half), *evenly(splits.twins("test"), half)]
    texts = [prompt.text for prompt in prompts]
    requests = [chat.encode(text) for text in texts]
    judge = OpeningJudge()

    def ends(index: int, new: Sequence[int]) -> bool:
        return settled(judge, texts[index], chat.decode(tuple(new)))

    count = min(arguments.peers or len(texts), len(texts))
    theirs = [place * len(texts) // count for place in range(count)]
    asked = [requests[index] for index in theirs]
    tokens = arguments.tokens
    engines: dict[str, Engine] = {
        **{
            f"generate, {rows} rows": partial(plain_generate, chat, asked, tokens, rows)
            for rows in arguments.rows
        },
        "continuous": partial(continuous, chat, asked, tokens),
        "demur": partial(ours, chat, requests, tokens),
        "demur, settled": partial(ours, chat, requests, tokens, ends),
    }
    seconds, found = timed(engines, arguments.rounds)
    for name in found:
        if not name.startswith("demur"):
            found[name] = {theirs[place]: written for place, written in found[name].items()}
    verdicts = {name: judged(chat, judge, texts, rows) for name, rows in found.items()}
    print(
        f"{arguments.model}, {placement.sentence} {len(texts)} prompts, {len(theirs)} of them for "
        f"transformers' engines, {tokens} tokens"
    )
    print("\n".join(table(seconds, found, verdicts, theirs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
