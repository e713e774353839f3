"""demur gives open-weight language models their refusals back, and proves it.

The verbs of the command line are functions here: `demur.align("org/model")`. They are imported
when first used, so that `import demur` and `demur --help` stay quick.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Threads of torch that wait for work spin by default, and so take the processor from the very
# threads that they wait for wherever cores are shared: decoding is then several times slower
# (benchmarks/threads.py). It is read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from demur.errors import DemurError

if TYPE_CHECKING:
    from demur.aligning.align import align
    from demur.checkpoint import apply_patch, revert_patch
    from demur.distilling.distill import distill
    from demur.grafting.graft import graft
    from demur.judging.judge import rejudge, score_judges
    from demur.measuring.measure import measure_models
    from demur.study.study import study_refusals
    from demur.tracing.trace import trace

__version__ = "0.2.0"
__all__ = [
    "DemurError",
    "__version__",
    "align",
    "apply_patch",
    "distill",
    "graft",
    "measure_models",
    "rejudge",
    "revert_patch",
    "score_judges",
    "study_refusals",
    "trace",
]

_HOMES = {
    "align": "demur.aligning.align",
    "apply_patch": "demur.checkpoint",
    "distill": "demur.distilling.distill",
    "graft": "demur.grafting.graft",
    "measure_models": "demur.measuring.measure",
    "rejudge": "demur.judging.judge",
    "revert_patch": "demur.checkpoint",
    "score_judges": "demur.judging.judge",
    "study_refusals": "demur.study.study",
    "trace": "demur.tracing.trace",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'demur' has no attribute '{name}'")
