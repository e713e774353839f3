"""`demur align`, the autopilot: it looks at a model, and treats it as fits what it finds.

demur align smollm2-135m          # or demur.align("smollm2-135m") in Python
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demur.aligning.config import AlignConfig
from demur.console import Narrator
from demur.distilling.treatment import distilling
from demur.treating.pipeline import Outcome, run_treatment


def align(
    model: str | AlignConfig,
    *,
    run: Path | None = None,
    narrator: Narrator | None = None,
    **choices: Any,
) -> Outcome:
    """Give a model its refusals back.

    Args:
        model: the model's name, or a whole configuration.
        run: the run folder; by default `runs/<model>-<hash of the configuration>`.
        narrator: who tells the user; by default on stderr.
        choices: any field of `AlignConfig`.

    Raises:
        DemurError: something is wrong that the user can put right; nothing is half-written.
        Interrupted: Ctrl-C; the same call continues.
    """
    config = AlignConfig.of(model, **choices)
    return run_treatment(config, distilling(config), run, narrator)
