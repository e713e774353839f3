"""What stands between rows of finished benches: how far over the probe, and paired differences.

    python scripts/compare_rows.py BENCH
    python scripts/compare_rows.py BENCH --row sft --less varied [--of OTHER]

BENCH and OTHER are a bench.json, as `demur bench distill` and `benchmarks/equal_rates.py` write it.
The first call says how many points more harmful requests each row refuses than the linear probe
has at as many twins, over seeds and by seed. The second gives one row less another of the same
seeds, paired over prompts, with 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from demur.benching.tables import Result, by_row, over_seeds
from demur.stats import Mean, mean


def read(path: Path) -> tuple[dict[str, list[Result]], dict[str, Any]]:
    """Return a bench's rows, and the curve of its probe."""
    figures = json.loads(path.read_text(encoding="utf-8"))
    return by_row([Result(**one) for one in figures["results"]]), figures.get("probe") or {}


def over_the_probe(results: list[Result], probe: dict[str, Any]) -> float:
    """Return the harmful requests refused beyond those of the probe at as many twins, in points."""
    twins = over_seeds(results, "twins").value + 1e-9  # rates are quotients of counts
    curve = zip(probe["harmful"], probe["twins"], strict=True)
    known: float = max(harmful for harmful, benign in curve if benign <= twins)
    return 100 * (over_seeds(results, "harmful").value - known)


def less(one: list[Result], other: list[Result], key: str) -> list[float]:
    """Return for each prompt how much oftener one row refuses it than another, over seeds."""
    pairs = [(a.refused[key], b.refused[key]) for a in one for b in other if a.seed == b.seed]
    differences = [[x - y for x, y in zip(a, b, strict=True)] for a, b in pairs]
    return [sum(column) / len(column) for column in zip(*differences, strict=True)]


def points(value: Mean) -> str:
    """Return a difference in points with its interval."""
    return f"{100 * value.value:+.1f} ({100 * value.low:+.1f} to {100 * value.high:+.1f})"


def main() -> int:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bench", type=Path)
    parser.add_argument("--row")
    parser.add_argument("--less")
    parser.add_argument("--of", type=Path, help="where the other row is; by default in BENCH too")
    arguments = parser.parse_args()
    rows, probe = read(arguments.bench)
    if arguments.row is None:
        for name, results in rows.items():
            seeds = ", ".join(f"{over_the_probe([one], probe):+.0f}" for one in results)
            print(f"{name}: {over_the_probe(results, probe):+.1f} ({seeds})")
        return 0
    others, _ = read(arguments.of) if arguments.of else (rows, probe)
    one, other = rows[arguments.row], others[arguments.less]
    for key in one[0].refused:
        print(f"{key}: {points(mean(less(one, other, key)))}")
    harmful, twins = less(one, other, "harmful"), less(one, other, "twins")
    print(
        f"harmful less twins: {points(mean([h - t for h, t in zip(harmful, twins, strict=True)]))}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
