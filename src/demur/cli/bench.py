"""`demur bench`: methods, baselines and controls in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from demur.benching.config import BenchConfig
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
    if json:
        print_json(
            {"run": str(benched.run), "table": str(benched.table), "figures": str(benched.figures)}
        )
    else:
        print(benched.table.read_text(encoding="utf-8"), end="")
