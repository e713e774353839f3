"""`demur distill`: teach a model to refuse, by an objective and from a teacher of one's choice.

demur distill smollm2-135m          # or demur.distill("smollm2-135m") in Python
demur distill smollm2-135m --teacher self
demur distill smollm2-135m --teacher openai:gpt-4o-mini --max-requests 2000
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from demur.console import Narrator
from demur.distilling.config import DistillConfig
from demur.distilling.treatment import distilling
from demur.judge.names import Means
from demur.models.budget import Budget, Caps
from demur.treating.pipeline import run_treatment
from demur.treating.treated import Outcome


def distill(
    student: str | DistillConfig,
    *,
    run: Path | None = None,
    narrator: Narrator | None = None,
    means: Means | None = None,
    caps: Caps | None = None,
    **choices: Any,
) -> Outcome:
    """Teach a model to refuse what is harmful, and to answer all else as before.

    Args:
        student: the model's name, or a whole configuration.
        run: the run folder; by default `runs/<model>-<hash of the configuration>`.
        narrator: who tells the user; by default on stderr.
        means: how a teacher behind an endpoint is asked.
        caps: what may be spent on it, earlier tries of the same run included.
        choices: any field of `DistillConfig`.

    Raises:
        DemurError: something is wrong that the user can put right; nothing is half-written.
        Interrupted: Ctrl-C; the same call continues.
    """
    config = DistillConfig.of(student, **choices)
    means = replace(means or Means(), budget=Budget(caps))
    return run_treatment(config, distilling(config, means), run, narrator)
