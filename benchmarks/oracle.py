"""Seconds a candidate: the oracle beside the released code's way and batched `generate`.

    python benchmarks/oracle.py --donor runs/demo/model [--model smollm2-135m] [--base FOLDER]

A search by delta debugging asks the oracle about `--tests` candidates, of all modules that the
donor changed; what each took is the oracle's figure. Beside it, in the same run, for the same
prompts:

* `released`: both models loaded anew for each question, 350 tokens generated, one prompt at a time
  (timed on `--released` prompts, and multiplied);
* `generate`: the candidate in memory, transformers' `generate` of 64 tokens in left-padded batches
  (timed on `--peers` prompts in whole batches, for each size of batch, the quickest multiplied).

`--checked` candidates, spread over those that were asked for, are decided by the full evaluation
too: every answer written whole. Setting up (reading the untouched model, answering with it and with
the whole donor) is done once a search, and counted apart.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.checkpoint import open_checkpoint
from demur.graft.agreement import Agreement, agreement
from demur.graft.candidate import Candidate
from demur.graft.deltas import Deltas, find_deltas
from demur.graft.oracle import Oracle, Settings
from demur.graft.search import Outcome, Search
from demur.graft.wanted import Decision, Wanted
from demur.graft.workbench import Workbench
from demur.judge import OpeningJudge
from demur.models.anatomy import anatomy_of
from demur.models.chat_model import ChatModel, load_chat_model
from demur.models.device import choose_device_and_dtype
from demur.models.resolve import resolve
from demur.prompts.choose import gather
from demur.prompts.split import evenly
from demur.quiet import hush
from demur.run.journal import Journal

RELEASED_TOKENS, GENERATED_TOKENS = 350, 64
BEGUN = time.perf_counter()


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"{time.perf_counter() - BEGUN:7.1f} s  {text}", file=sys.stderr, flush=True)


def search(oracle: Oracle, wanted: Wanted, tests: int) -> list[Decision]:
    """Let a search by delta debugging ask the oracle, for so many candidates at most."""
    names = sorted(oracle.whole.modules, key=lambda name: -oracle.deltas[name].norm)
    weights = [float(oracle.deltas[name].module.parameters) for name in names]
    asking = Search(weights, method="ddmin", limit=tests)
    decisions: list[Decision] = []
    while not asking.done and len(decisions) < tests:
        for asked in asking.ask():
            candidate = Candidate(frozenset(names[place] for place in asked))
            decision = oracle.judge(candidate, wanted)
            decisions.append(decision)
            asking.tell(asked, Outcome("passed" if decision.passed else "failed", decision.margin))
            say(
                f"{candidate.label}: {'passed' if decision.passed else 'failed'} by "
                f"{decision.stage} in {decision.cost.seconds:.1f} s: {decision.reason}"
            )
    return decisions


def generate(chat: ChatModel, requests: Sequence[Sequence[int]], tokens: int, rows: int) -> float:
    """Return the seconds that `generate` takes, in left-padded batches of `rows`."""
    import torch

    begun = time.perf_counter()
    for start in range(0, len(requests), rows):
        part = requests[start : start + rows]
        width = max(map(len, part))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in part])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in part])
        with torch.inference_mode():
            chat.model.generate(
                ids.to(chat.model.device),
                attention_mask=mask.to(chat.model.device),
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=sorted(chat.stops),
                pad_token_id=0,
            )
    return time.perf_counter() - begun


def batched(chat: ChatModel, requests: list[list[int]], peers: int, sizes: list[int]) -> float:
    """Return the seconds a prompt of batched `generate`, at the size of batch that is quickest."""
    count = min(peers, len(requests))
    part = [requests[place * len(requests) // count] for place in range(count)]
    best = float("inf")
    for rows in sizes:
        taken = generate(chat, part, GENERATED_TOKENS, rows) / count
        say(f"generate, batches of {rows}: {taken:.2f} s a prompt")
        best = min(best, taken)
    return best


def released(
    folders: Sequence[Path], placement: Any, deltas: Deltas, candidate: Candidate, texts: list[str]
) -> float:
    """Return the seconds a prompt of the released code's way."""
    taken = []
    for text in texts:
        begun = time.perf_counter()
        recipient, _ = (load_chat_model(one, placement, weights="released") for one in folders)
        with Workbench(recipient.model, deltas) as bench:
            bench.move(candidate)
            generate(recipient, [recipient.encode(text)], RELEASED_TOKENS, 1)
            taken.append(time.perf_counter() - begun)
        say(f"released: {taken[-1]:.1f} s for one prompt")
    return statistics.mean(taken)


def table(
    decisions: Sequence[Decision], prompts: int, theirs: dict[str, float], ours: float
) -> list[str]:
    """Return the rows of the table."""
    mean = statistics.mean(one.cost.passes for one in decisions)
    tokens = statistics.mean(one.cost.tokens for one in decisions)
    rows = [
        "| way | seconds a candidate | times the oracle's | forward passes | tokens |",
        "|---|---|---|---|---|",
    ]
    for name, seconds in theirs.items():
        rows.append(f"| {name} | {seconds * prompts:.0f} | {seconds * prompts / ours:.0f} | | |")
    rows.append(f"| oracle | {ours:.2f} | 1 | {mean:.0f} | {tokens:.0f} |")
    for label, passed in (("that passed", True), ("that failed", False)):
        costs = [one.cost for one in decisions if one.passed == passed]
        if costs:
            seconds, passes, count = (
                statistics.mean(getattr(one, name) for one in costs)
                for name in ("seconds", "passes", "tokens")
            )
            rows.append(
                f"| oracle, the {len(costs)} {label} | {seconds:.2f} | {seconds / ours:.2f} "
                f"| {passes:.0f} | {count:.0f} |"
            )
    return rows


def parsed() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--donor", type=Path, required=True)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--pairs", type=int, default=128, help="harmful prompts, and twins")
    parser.add_argument("--ordinary", type=int, default=64)
    parser.add_argument("--tests", type=int, default=40, help="candidates that the search may ask")
    parser.add_argument("--checked", type=int, default=8, help="candidates fully evaluated")
    parser.add_argument("--peers", type=int, default=64, help="prompts that `generate` is timed on")
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 64])
    parser.add_argument(
        "--released", type=int, default=3, help="prompts the released way is timed on"
    )
    parser.add_argument("--share", type=float, default=0.8, help="of the donor's gain wanted")
    parser.add_argument("--slack", type=float, default=0.05, help="of twins beyond the donor's")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


@dataclass(frozen=True)
class Asked:
    """What asking the oracle came to.

    Attributes:
        decisions: in the order of the search.
        agreed: how many of some are those of the full evaluation; None where none was checked.
        prepared: seconds that setting up took.
        generated: seconds a prompt of batched `generate`.
        whole, texts: the candidate of all modules, and the search prompts.
    """

    decisions: Sequence[Decision]
    agreed: Agreement | None
    prepared: float
    generated: float
    whole: Candidate
    texts: list[str]


def ask(oracle: Oracle, chat: ChatModel, arguments: argparse.Namespace) -> Asked:
    """Search with the oracle, check some of its decisions, and time `generate` beside it."""
    begun = time.perf_counter()
    before, donor = oracle.before, oracle.donor
    oracle.prepare()
    prepared = time.perf_counter() - begun
    wanted = Wanted.of(before, donor, share=arguments.share, slack=arguments.slack)
    say(f"set up in {prepared:.1f} s: {before} {donor} {wanted}")
    decisions = search(oracle, wanted, arguments.tests)
    count = min(arguments.checked, len(decisions))
    checked = [decisions[place * len(decisions) // count].candidate for place in range(count)]
    agreed = agreement(oracle, checked, wanted) if checked else None
    say("checked")
    requests = [chat.encode(text) for text in oracle.texts]
    oracle.bench.move(oracle.whole)
    generated = batched(chat, requests, arguments.peers, arguments.rows)
    return Asked(decisions, agreed, prepared, generated, oracle.whole, oracle.texts)


def main() -> int:
    """Run all three and print the table."""
    hush()
    arguments = parsed()
    resolved = resolve(arguments.model)
    placement = choose_device_and_dtype(arguments.device)
    chat = load_chat_model(resolved.folder, placement, weights="benchmark", name=arguments.model)
    splits = gather()
    prompts = {
        "harmful": evenly(splits.harmful("validation"), arguments.pairs),
        "twins": evenly(splits.twins("validation"), arguments.pairs),
        "ordinary": evenly(splits.ordinary("validation"), arguments.ordinary),
    }
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch)
        begun = time.perf_counter()
        anatomy = anatomy_of(chat.model, open_checkpoint(resolved.folder))
        deltas = find_deltas(
            anatomy, resolved.folder, arguments.donor, arguments.base, store=store / "deltas"
        )
        compared = time.perf_counter() - begun
        say(f"{len(deltas.changed)} modules changed, rank {deltas.low_rank}: {compared:.1f} s")
        journal = Journal(store / "journal.sqlite")
        with Oracle(chat, deltas, prompts, OpeningJudge(), journal, settings=Settings()) as oracle:
            found = ask(oracle, chat, arguments)
        journal.close()
        places = range(arguments.released)
        asked = [found.texts[place * len(found.texts) // len(places)] for place in places]
        folders = (resolved.folder, arguments.donor)
        alone = released(folders, placement, deltas, found.whole, asked)
    ours = statistics.mean(one.cost.seconds for one in found.decisions)
    print(
        f"{arguments.model} and {arguments.donor.name}, {placement.sentence} {len(found.texts)} "
        f"search prompts; {len(found.decisions)} candidates of a search by delta debugging, "
        f"{sum(one.passed for one in found.decisions)} passed; "
        f"{sum(one.stage == 'reading' for one in found.decisions)} decided by reading alone. Once "
        f"a search: {compared:.1f} s to compare donor and recipient, {found.prepared:.1f} s to set "
        "up.\n"
    )
    ways = {
        f"released code's way, {RELEASED_TOKENS} tokens, one by one": alone,
        f"batched `generate`, {GENERATED_TOKENS} tokens": found.generated,
    }
    print("\n".join(table(found.decisions, len(found.texts), ways, ours)))
    if found.agreed is not None:
        print(f"\n{found.agreed.sentence}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
