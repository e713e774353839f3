"""Any task of EleutherAI's lm-evaluation-harness, in this process, on a model already in memory.

An optional extra: `pip install demur[lm-eval]`. The harness brings its tasks and data; demur hands
it the model and takes each task's first metric with its standard error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demur.errors import ConfigError
from demur.models.chat_model import ChatModel

REMEDY = "Install it: pip install 'demur[lm-eval]'; or leave --lm-eval out."


@dataclass(frozen=True)
class TaskScore:
    """One task's figure: its metric's name, value and standard error (NaN where it has none)."""

    task: str
    metric: str
    value: float
    error: float
    n: int


def require_harness() -> None:
    """Raise before any work where the harness is not installed.

    Raises:
        ConfigError: it is not.
    """
    from importlib.util import find_spec

    if find_spec("lm_eval") is None:
        raise ConfigError("lm-evaluation-harness is not installed.", REMEDY)


def run_tasks(chat: ChatModel, tasks: Sequence[str], limit: int | None) -> list[TaskScore]:
    """Return the scores of the harness's tasks on a model.

    Args:
        limit: documents a task, at most; None for all.

    Raises:
        ConfigError: the harness is not installed, or does not know a task.
    """
    require_harness()
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    try:
        found = simple_evaluate(
            model=HFLM(pretrained=chat.model, tokenizer=chat.tokenizer, batch_size=16),
            tasks=list(tasks),
            limit=limit,
            log_samples=False,
            random_seed=0,
            numpy_random_seed=0,
            torch_random_seed=0,
        )
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"lm-evaluation-harness cannot run {', '.join(tasks)} ({error}).",
            "See the names of its tasks with: lm-eval ls tasks.",
        ) from error
    return scores_of(found)


def scores_of(found: Mapping[str, Any]) -> list[TaskScore]:
    """Return the first metric of each task in what `simple_evaluate` returns.

    Its results have keys such as `acc,none` with `acc_stderr,none` beside them.
    """
    scores = []
    for task, figures in found["results"].items():
        metrics = [
            key
            for key, value in figures.items()
            if "," in key and "_stderr," not in key and isinstance(value, int | float)
        ]
        if not metrics:
            continue
        name, _, filtered = metrics[0].partition(",")
        error = figures.get(f"{name}_stderr,{filtered}")
        n = found.get("n-samples", {}).get(task, {}).get("effective", 0)
        known = isinstance(error, int | float)
        scores.append(
            TaskScore(
                task, name, float(figures[metrics[0]]), float(error) if known else float("nan"),
                int(n),
            )
        )  # fmt: skip
    return scores
