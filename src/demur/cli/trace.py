"""`demur trace`: where refusal is decided in a model, and which modules carry it over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from demur.cli.app import OUTPUT, Json, app, print_json
from demur.tracing.config import TraceConfig


@app.command
def trace(
    config: Annotated[TraceConfig, Parameter(name="*")],
    *,
    run: Annotated[Path | None, OUTPUT] = None,
    json: Json = False,
) -> None:
    """Trace where a model decides to refuse, and which modules of a donor carry that over.

    Harmful requests are corrupted, and states, MLPs and attentions put back from the clean run,
    one layer and place at a time. With --donor, the donor's modules are tried in the model, one by
    one, and back. The run folder holds the report with its heat maps, trace.json and the journal;
    the same command continues a trace that was interrupted.

    Args:
        run: the run folder; by default runs/trace-<model>-<hash of all choices>.
        json: print the findings as one JSON object.
    """
    import json as json_format

    from demur.tracing.trace import trace as trace_model

    done = trace_model(config, run=run)
    if json:
        content = json_format.loads(done.data.read_text(encoding="utf-8"))
        print_json({"run": str(done.run), **content})
