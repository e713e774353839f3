"""`demur graft`: what carries refusal in a donor, put into a relative.

demur graft ./my-model --donor runs/smollm2-135m-1a2b3c4d/model --base smollm2-135m
demur graft ./my-model --donor runs/smollm2-135m-1a2b3c4d/patch.safetensors
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demur.console import Narrator
from demur.grafting.config import GraftConfig
from demur.grafting.treatment import grafting
from demur.treating.pipeline import run_treatment
from demur.treating.treated import Outcome


def graft(
    recipient: str | GraftConfig,
    *,
    run: Path | None = None,
    narrator: Narrator | None = None,
    **choices: Any,
) -> Outcome:
    """Put into a model what makes an aligned relative refuse.

    Args:
        recipient: the model's name, or a whole configuration.
        run: the run folder; by default `runs/<model>-<hash of the configuration>`.
        narrator: who tells the user; by default on stderr.
        choices: any field of `GraftConfig`, `donor` above all.

    Raises:
        DemurError: something is wrong that the user can put right; nothing is half-written.
        Interrupted: Ctrl-C; the same call continues.
    """
    config = GraftConfig.of(recipient, **choices)
    return run_treatment(config, grafting(config), run, narrator)
