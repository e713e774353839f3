"""How many oracle calls each way of searching takes, beside picire's ddmin and one by one.

    python benchmarks/search.py [--modules 30 100 1000] [--kinds "add up" pairs] [--seeds 11]

Synthetic oracles over modules of eight different weights: k that are needed, effects that add up,
effects of pairs besides (not monotone), answers that are wrong one time in ten; traces that are
informative, uninformative and misleading. Prints Markdown tables (docs/results/search.md). picire
is no dependency of demur; where it cannot be imported, its column is left out. Release 21.8 needs
`pip install picire 'setuptools<81'`.
"""

from __future__ import annotations

import argparse
import importlib
import math
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from demur.graft.search import NothingToFind, Outcome, Search, SequentialTest
from demur.stats import rate

Oracle = Callable[[frozenset[int]], bool]
METHODS = ("splitting", "cdd", "probdd", "ddmin", "wddmin", "prefix+ddmin", "prefix+cdd", "greedy")
WEIGHTS = (1, 1, 4, 4, 16, 16, 48, 48)  # norms, k and v, q and o, the MLP's three, in proportion
PER_WEIGHT = "informative, by weight"  # the score is divided by the weight
TRACES = {"informative": 1.0, PER_WEIGHT: 1.0, "uninformative": 0.0, "misleading": -1.0}
KINDS = ("1 needed", "3 needed", "10 needed", "add up", "pairs")


@dataclass(frozen=True)
class Task:
    """One search: weights, the trace's order, and the oracle."""

    weights: tuple[int, ...]
    order: tuple[int, ...]
    oracle: Oracle


def task(n: int, kind: str, trace: str, seed: int) -> Task:
    """Make a task.

    The trace scores each module by its effect, with noise: a needed module stands two standard
    deviations of the noise above the others, effects that add up spread over two.
    """
    generator = random.Random(f"{n} {kind} {seed}")
    weights = tuple(generator.choice(WEIGHTS) for _ in range(n))
    if kind.endswith("needed"):
        needed = frozenset(generator.sample(range(n), int(kind.split()[0])))
        effects, oracle = [int(module in needed) for module in range(n)], needed.issubset
    else:
        effects = [round(100 * generator.paretovariate(1.5)) for _ in range(n)]
        pairs = []
        if kind == "pairs":
            pairs = [
                (*generator.sample(range(n), 2), round(generator.gauss(0, 300))) for _ in range(n)
            ]
        oracle = _adding_up(effects, pairs, n)
    scale = 0.5 if kind.endswith("needed") else statistics.pstdev(effects) / 2
    sign = TRACES[trace]
    scores = [sign * effect / scale + generator.gauss(0, 1) for effect in effects]
    if trace == PER_WEIGHT:
        scores = [score / weight for score, weight in zip(scores, weights, strict=True)]
    order = tuple(sorted(range(n), key=lambda module: -scores[module]))
    return Task(weights, order, oracle)


def _adding_up(effects: list[int], pairs: list[tuple[int, int, int]], n: int) -> Oracle:
    def value(candidate: Iterable[int]) -> int:
        chosen = frozenset(candidate)
        both = sum(bonus for one, other, bonus in pairs if one in chosen and other in chosen)
        return sum(map(effects.__getitem__, chosen)) + both

    threshold = max(value(range(n)) * 0.3, 1)
    return lambda candidate: value(candidate) >= threshold


def outcome(passed: bool) -> Outcome:
    """Return an oracle's answer as a search takes it."""
    return Outcome("passed" if passed else "failed")


def ours(given: Task, method: str, **options: object) -> tuple[int, int, Search]:
    """Search; return oracle calls, rounds of questions, and the search."""
    search = Search(given.weights, given.order, method=method, **options)  # type: ignore[arg-type]
    rounds = 0
    while not search.done:
        rounds += 1
        for candidate in search.ask():
            search.tell(candidate, outcome(given.oracle(candidate)))
    return len(search.history), rounds, search


def picire_calls(given: Task, picire: object) -> tuple[int, float]:
    """Search with picire's ddmin, cache on; return oracle calls and the weight of the result."""
    calls = 0

    def test(config: list[int], config_id: object) -> object:
        nonlocal calls
        calls += 1
        passed = given.oracle(frozenset(config))
        return picire.Outcome.FAIL if passed else picire.Outcome.PASS  # type: ignore[attr-defined]

    found = picire.DD(test)(list(given.order))  # type: ignore[attr-defined]
    return calls, sum(given.weights[module] for module in found) / sum(given.weights)


def median(values: list[float], digits: int = 0) -> str:
    """Return the median with its interval from order statistics, at least 95 % if 6 or more."""
    ordered, n = sorted(values), len(values)
    rank, tail = 0, 2.0**-n
    while rank + 1 <= (n - 1) // 2 and 2 * (tail + math.comb(n, rank + 1) * 2.0**-n) <= 0.05:
        rank += 1
        tail += math.comb(n, rank) * 2.0**-n
    middle = statistics.median(ordered)
    return f"{middle:.{digits}f} [{ordered[rank]:.{digits}f}, {ordered[-1 - rank]:.{digits}f}]"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a Markdown table."""
    head = list(head)
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


def exact(sizes: list[int], kinds: list[str], seeds: int, picire: object | None) -> None:
    """Print oracle calls, then weights, where answers are always the same."""
    weights: list[list[str]] = []

    def rows() -> Iterator[list[str]]:
        for n in sizes:
            count = min(seeds, 6) if n > 300 else seeds
            for kind in kinds:
                for trace in TRACES:
                    if trace == PER_WEIGHT and kind.endswith("needed"):
                        continue
                    calls: dict[str, list[float]] = {}
                    found: dict[str, list[float]] = {}
                    contrary = compared = 0
                    for seed in range(count):
                        given = task(n, kind, trace, seed)
                        for method in METHODS:
                            number, _, search = ours(given, method)
                            best = search.best or frozenset()
                            if not (given.oracle(best) and search.minimality.proven):
                                raise RuntimeError(f"{method} ended with no minimal set")
                            calls.setdefault(method, []).append(number)
                            share = 100 * search.weight(best) / sum(given.weights)
                            found.setdefault(method, []).append(share)
                            if kind == "pairs" and n < 300:
                                contrary += search.monotonicity.contrary
                                compared += search.monotonicity.pairs
                        if picire is not None:
                            number, share = picire_calls(given, picire)
                            calls.setdefault("picire", []).append(number)
                            found.setdefault("picire", []).append(100 * share)
                    name = [str(n), kind, trace]
                    if not kind.endswith("needed"):
                        share_text = f"{contrary / compared:.2%}" if compared else ""
                        shares = [median(values, 1) for values in found.values()]
                        weights.append([*name, *shares, share_text])
                    yield [*name, *(median(values) for values in calls.values())]

    columns = ["modules", "oracle", "trace", *METHODS] + ["picire"] * (picire is not None)
    print("## Oracle calls\n")
    table(columns, rows())
    if weights:
        print("## Weight of the result, per cent of all\n")
        table([*columns, "contrary pairs"], weights)


def noisy(seeds: int, picire: object | None) -> None:
    """Print what becomes of searches whose oracle is wrong one time in ten."""
    wrong, n, kind = 0.1, 100, "3 needed"

    def deciding() -> SequentialTest:
        return SequentialTest(0.3, 0.7, 1e-4, 1e-4, n_max=99)

    def rows() -> Iterator[list[str]]:
        for method in (*METHODS, *["picire"] * (picire is not None)):
            for repeated in (False, True):
                if method == "picire" and repeated:
                    continue
                right, calls = 0, []
                for seed in range(seeds):
                    clean = task(n, kind, "informative", seed)
                    flips = random.Random(seed)

                    def oracle(candidate: frozenset[int], clean=clean, flips=flips) -> bool:  # type: ignore[no-untyped-def]
                        return clean.oracle(candidate) != (flips.random() < wrong)

                    given = Task(clean.weights, clean.order, oracle)
                    needed = [m for m in range(n) if not clean.oracle(frozenset(range(n)) - {m})]
                    weight = sum(clean.weights[m] for m in needed)
                    try:
                        if method == "picire":
                            number, share = picire_calls(given, picire)
                            right += share == weight / sum(clean.weights)
                        else:
                            repeat = deciding if repeated else None
                            number, _, search = ours(given, method, repeat=repeat)
                            right += search.best == frozenset(needed)
                        calls.append(float(number))
                    except (NothingToFind, AssertionError):
                        continue
                share = rate(right, seeds)
                yield [
                    method,
                    "sequential test" if repeated else "once",
                    f"{right} of {seeds} ({share.low:.0%} to {share.high:.0%})",
                    str(seeds - len(calls)),
                    median(calls) if len(calls) > 5 else "",
                ]

    print(f"## Wrong answers: {n} modules, {kind}, {wrong:.0%} of the answers wrong\n")
    table(["method", "asked", "found what is needed", "gave up", "oracle calls"], rows())


def batched(seeds: int) -> None:
    """Print how many rounds of questions batches take."""
    sizes = (1, 4, 8, 16)

    def rows() -> Iterator[list[str]]:
        for kind in ("3 needed", "10 needed", "add up"):
            for method in METHODS:
                cells = []
                for size in sizes:
                    results = [
                        ours(task(100, kind, "informative", seed), method, batch=size)
                        for seed in range(seeds)
                    ]
                    rounds = statistics.median(result[1] for result in results)
                    calls = statistics.median(result[0] for result in results)
                    cells.append(f"{rounds:.0f} ({calls:.0f})")
                yield [kind, method, *cells]

    print("## Batches: rounds (oracle calls), 100 modules, informative trace\n")
    table(["oracle", "method", *(f"batch of {size}" for size in sizes)], rows())


def main() -> int:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modules", type=int, nargs="+", default=[30, 100, 1000])
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=11)
    arguments = parser.parse_args()
    begun = time.process_time()
    picire: object | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picire = importlib.import_module("picire")
        except ImportError as error:
            print(f"picire is left out ({error}).\n")
    exact(arguments.modules, arguments.kinds, arguments.seeds, picire)
    if 100 in arguments.modules:
        noisy(4 * arguments.seeds, picire)
        batched(arguments.seeds)
    print(f"{time.process_time() - begun:.0f} s of processor time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
