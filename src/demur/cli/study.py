"""`demur study`: how models refuse, and whether uniform refusals are secure ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from demur.cli.app import OUTPUT, Json, app, print_json
from demur.cli.judge import EndpointOptions, how_from
from demur.study.config import StudyConfig


@app.command
def study(
    config: Annotated[StudyConfig, Parameter(name="*")],
    *,
    endpoint: EndpointOptions | None = None,
    run: Annotated[Path | None, OUTPUT] = None,
    json: Json = False,
) -> None:
    """Study how models refuse: patterns, their uniformity, and whether it goes with security.

    Sources are files of recorded answers (prompt, response, model), folders of finished runs
    (before and after), and models and endpoints, which are asked the built-in test prompts. The
    study's folder holds the report, its tables and the journal; the same command continues a study
    that was interrupted.

    Args:
        run: the study's folder; by default runs/study-<hash of all choices>.
        json: print the findings as one JSON object.
    """
    from demur.study.study import study_refusals

    how = how_from(endpoint or EndpointOptions(), config.device, config.dtype, run)
    done = study_refusals(config, run=run, means=how.means, caps=how.caps)
    if json:
        import json as json_format

        print_json(
            {"run": str(done.run), **json_format.loads(done.data.read_text(encoding="utf-8"))}
        )
