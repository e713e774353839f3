"""`demur graft`: put into a model what makes an aligned relative refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from demur.cli.app import OUTPUT, Json, app, print_json
from demur.grafting.config import GraftConfig


@app.command
def graft(
    config: Annotated[GraftConfig, Parameter(name="*")],
    *,
    run: Annotated[Path | None, OUTPUT] = None,
    json: Json = False,
) -> None:
    """Put into a model what makes an aligned relative refuse; nothing is trained.

    The donor and the model must come from one base. The run folder holds the grafted model, a
    small patch, the report and everything that the search found. The same command continues a run
    that was interrupted.

    Args:
        run: the run folder; by default runs/<model>-<hash of all choices>.
        json: print the result as one JSON object.
    """
    from demur.grafting.graft import graft as graft_model

    outcome = graft_model(config, run=run)
    if json:
        from demur.measure.result import read_result

        print_json({"run": str(outcome.run), **read_result(outcome.run)})
