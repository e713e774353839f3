"""Put the figures of benches that ran apart into one table: other seeds, recipients, machines.

    python scripts/join_benches.py FOLDER RUN [RUN ...]

Each RUN is the folder of a `demur bench` (of one kind, on one protocol), finished or not. Of a row
that several of them have, the first counts. FOLDER gets bench.md, bench.json and bench.svg as one
bench would have written them. Lines on standard output say what was taken from where.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from demur.errors import DemurError, RunError

# What may differ between benches that are joined: what each was asked for, and where it ran.
APART = ("rows", "seeds", "recipients", "donor", "cross_teacher", "device", "micro_batch")


def read(run: Path) -> dict[str, Any]:
    """Return a bench's figures.

    Raises:
        RunError: there are none.
    """
    try:
        found: dict[str, Any] = json.loads((run / "bench.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{run} has no figures of a bench ({error}).", "Name the run folder of a `demur bench`."
        ) from error
    return found


def protocol(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the choices that all joined benches must share."""
    return {name: value for name, value in figures["configuration"].items() if name not in APART}


def require_same(runs: dict[Path, dict[str, Any]]) -> None:
    """Check that benches asked the same prompts in the same way.

    Raises:
        RunError: two of them did not.
    """
    (first, figures), *others = runs.items()
    expected = protocol(figures)
    for run, other in others:
        found = protocol(other)
        differ = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        if differ:
            raise RunError(
                f"{run} and {first} differ in {', '.join(sorted(differ))}.",
                "Join benches of one protocol only.",
            )


def merged(runs: dict[Path, dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Return the results of all runs, each row once, as told apart by these fields."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for run, figures in runs.items():
        for one in figures["results"]:
            key = tuple(one[name] for name in names)
            if key not in kept:
                kept[key] = one
                print(*key, run, sep="\t")
    return list(kept.values())


def join_distilling(runs: dict[Path, dict[str, Any]], folder: Path) -> None:
    """Join benches of ways to distil."""
    from demur.benching.config import BenchConfig
    from demur.benching.plot import write_plot
    from demur.benching.rows import ROWS
    from demur.benching.tables import Result, by_row, write_tables

    order = {name: place for place, name in enumerate(ROWS)}
    found = [Result(**one) for one in merged(runs, "row", "seed")]
    found.sort(key=lambda one: (order[one.row], one.seed))
    first = next(iter(runs.values()))
    config = BenchConfig(**{**first["configuration"], **everything(runs, "rows", "seeds")})
    write_tables(found, first["probe"], folder, config)
    write_plot(by_row(found), first["probe"], folder)


def join_grafting(runs: dict[Path, dict[str, Any]], folder: Path) -> None:
    """Join benches of grafts."""
    from demur.benching.grafts.config import GraftBenchConfig
    from demur.benching.grafts.plot import write_plot
    from demur.benching.grafts.result import Missing, Result
    from demur.benching.grafts.rows import ROWS
    from demur.benching.grafts.tables import write_tables

    order = {name: place for place, name in enumerate(ROWS)}
    found = [Result(**one) for one in merged(runs, "recipient", "row")]
    found.sort(key=lambda one: (one.recipient, order[one.row]))
    made = {(one.recipient, one.row) for one in found}
    missing = [Missing(**one) for figures in runs.values() for one in figures["missing"]]
    missing = [one for one in missing if (one.recipient, one.row) not in made]
    first = next(iter(runs.values()))
    config = GraftBenchConfig(
        **{**first["configuration"], **everything(runs, "rows", "recipients")}
    )
    write_tables(found, missing, folder, config)
    write_plot(found, folder)


def everything(runs: dict[Path, dict[str, Any]], *names: str) -> dict[str, Iterable[Any]]:
    """Return what any of the runs was asked for, by the choice's name."""
    return {
        name: tuple(
            dict.fromkeys(one for each in runs.values() for one in each["configuration"][name])
        )
        for name in names
    }


def main() -> int:
    """Join, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    try:
        runs = {run: read(run) for run in arguments.runs}
        require_same(runs)
        arguments.folder.mkdir(parents=True, exist_ok=True)
        distilling = "probe" in next(iter(runs.values()))
        (join_distilling if distilling else join_grafting)(runs, arguments.folder)
    except DemurError as error:
        print(f"error: {error.cause}\n{error.remedy}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
