"""`demur align`, the autopilot: it looks at a model, and treats it as fits what it finds.

demur align smollm2-135m          # or demur.align("smollm2-135m") in Python
demur align ./my-model --donor org/aligned
demur align ./my-model --teacher openai:gpt-4o-mini --max-requests 2000
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from demur.aligning.config import AlignConfig
from demur.aligning.treatment import aligning
from demur.console import Narrator
from demur.judge.names import Means
from demur.models.budget import Budget, Caps
from demur.treating.pipeline import run_treatment
from demur.treating.treated import Outcome


def align(
    model: str | AlignConfig,
    *,
    run: Path | None = None,
    narrator: Narrator | None = None,
    means: Means | None = None,
    caps: Caps | None = None,
    **choices: Any,
) -> Outcome:
    """Give a model its refusals back.

    Args:
        model: the model's name, or a whole configuration.
        run: the run folder; by default `runs/<model>-<hash of the configuration>`.
        narrator: who tells the user; by default on stderr.
        means: how a teacher behind an endpoint is asked.
        caps: what may be spent on it, earlier tries of the same run included.
        choices: any field of `AlignConfig`.

    Raises:
        DemurError: something is wrong that the user can put right; nothing is half-written.
        Interrupted: Ctrl-C; the same call continues.
    """
    config = AlignConfig.of(model, **choices)
    means = replace(means or Means(), budget=Budget(caps))
    return run_treatment(config, aligning(config, means), run, narrator)
