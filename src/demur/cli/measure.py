"""`demur measure`: one or several models on one protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from demur.cli.app import OUTPUT, Json, app, print_json
from demur.cli.judge import EndpointOptions, how_from
from demur.measure.settings import MeasureConfig


@app.command
def measure(
    config: Annotated[MeasureConfig, Parameter(name="*")],
    *,
    endpoint: EndpointOptions | None = None,
    run: Annotated[Path | None, OUTPUT] = None,
    inspect: Annotated[bool, OUTPUT] = False,
    json: Json = False,
) -> None:
    """Measure one or several models on the same prompts: refusals, over-refusals, utility.

    The run folder holds a leaderboard page, results.json, every answer with its verdict, and the
    journal. The same command continues a measurement that was interrupted.

    Args:
        run: the run folder; by default runs/measure-<model>-<hash of all choices>.
        inspect: also write the answers as logs that Inspect reads (pip install 'demur[inspect]').
        json: print the results as one JSON object.
    """
    from demur.console import Narrator
    from demur.measuring.measure import measure_models

    how = how_from(endpoint or EndpointOptions(), config.device, config.dtype, run)
    measured = measure_models(
        config,
        run=run,
        narrator=Narrator(),
        means=how.means,
        caps=how.caps,
        inspect=inspect,
    )
    if json:
        import json as json_format

        print_json(json_format.loads(measured.results.read_text(encoding="utf-8")))
