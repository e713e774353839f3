"""`demur bench`: methods, baselines and controls in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from demur.benching.config import BenchConfig
from demur.benching.grafts.config import GraftBenchConfig
from demur.cli.app import OUTPUT, Json, app, print_json

bench = App(name="bench", help="Compare methods with baselines and controls, on one protocol.")
app.command(bench)


@bench.command
def distill(
    config: Annotated[BenchConfig, Parameter(name="*")],
    *,
    run: Annotated[Path | None, OUTPUT] = None,
    json: Json = False,
) -> None:
    """Compare ways of teaching refusals, each for several seeds, on the same test prompts.

    Args:
        run: the run folder; by default runs/<model>-<hash of all choices>.
        json: print where the table and the figures are as one JSON object.
    """
    from demur.benching.bench import bench_distill

    benched = bench_distill(config, run=run)
    _print(benched.run, benched.table, benched.figures, json)


@bench.command
def graft(
    config: Annotated[GraftBenchConfig, Parameter(name="*")],
    *,
    run: Annotated[Path | None, OUTPUT] = None,
    json: Json = False,
) -> None:
    """Graft what one donor has into many recipients, beside rivals and controls.

    MODEL is the base that the donor and all recipients were made from. Nothing is written but the
    tables and the figures: models are changed in memory.

    Args:
        run: the run folder; by default runs/<model>-<hash of all choices>.
        json: print where the tables and the figures are as one JSON object.
    """
    from demur.benching.grafts.bench import bench_graft

    benched = bench_graft(config, run=run)
    _print(benched.run, benched.table, benched.figures, json)


def _print(run: Path, table: Path, figures: Path, json: bool) -> None:
    if json:
        print_json({"run": str(run), "table": str(table), "figures": str(figures)})
    else:
        print(table.read_text(encoding="utf-8"), end="")
