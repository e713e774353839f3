"""`demur distill`: teach a model to refuse, with every choice of the teaching open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from demur.cli.app import OUTPUT, Json, app, print_json
from demur.cli.judge import EndpointOptions, how_from
from demur.distilling.config import DistillConfig


@app.command
def distill(
    config: Annotated[DistillConfig, Parameter(name="*")],
    *,
    endpoint: EndpointOptions | None = None,
    run: Annotated[Path | None, OUTPUT] = None,
    json: Json = False,
) -> None:
    """Teach a model to refuse what is harmful, and to answer all else as before.

    The run folder holds the taught model, a small patch, the report and the journal. The same
    command continues a run that was interrupted.

    Args:
        run: the run folder; by default runs/<model>-<hash of all choices>.
        json: print the result as one JSON object.
    """
    from demur.distilling.distill import distill as distill_model

    how = how_from(endpoint or EndpointOptions(), config.device, config.dtype, run)
    outcome = distill_model(config, run=run, means=how.means, caps=how.caps)
    if json:
        from demur.measure.result import read_result

        print_json({"run": str(outcome.run), **read_result(outcome.run)})
