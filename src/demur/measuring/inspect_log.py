"""The answers of a measurement as logs that Inspect reads, written by Inspect's own classes.

An optional extra (`pip install demur[inspect]`): `demur measure MODEL --inspect` writes one log a
model and condition into `inspect/` of the run folder; open them with `inspect view --log-dir`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import ConfigError

if TYPE_CHECKING:
    from demur.measure.asking import Block, Outcome
    from demur.measure.standing import Cell, Standing
    from demur.measuring.entrants import Entrant
    from demur.measuring.stages import Work

REMEDY = "Install it: pip install 'demur[inspect]'; or leave --inspect out."
SCORER = "demur"


def require_inspect() -> None:
    """Raise before any work where Inspect is not installed.

    Raises:
        ConfigError: it is not.
    """
    from importlib.util import find_spec

    if find_spec("inspect_ai") is None:
        raise ConfigError("Inspect (inspect-ai) is not installed.", REMEDY)


def write_logs(
    folder: Path,
    work: Work,
    entrants: Sequence[Entrant],
    sides: Sequence[Sequence[Sequence[Outcome] | None]],
    standing: Standing,
) -> list[Path]:
    """Write one log a model and block, and return the paths.

    Raises:
        ConfigError: Inspect is not installed.
    """
    require_inspect()
    from inspect_ai.log import write_eval_log

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for place, (entrant, side) in enumerate(zip(entrants, sides, strict=True)):
        for block, outcomes in zip(work.blocks, side, strict=True):
            row = standing.row(block.key)
            cell = row.cells[place] if row is not None else None
            if cell is None or outcomes is None:  # an endpoint is not asked everything
                continue
            log = make_log(entrant, block, outcomes, cell, work)
            name = "".join(c if c.isalnum() or c in "-_." else "-" for c in block.key)
            path = folder / f"{_plain(entrant.label)}_{name}.json"
            write_eval_log(log, str(path), format="json")
            written.append(path)
    return written


def _plain(label: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in label)


def make_log(
    entrant: Entrant, block: Block, outcomes: Sequence[Outcome], cell: Cell, work: Work
) -> Any:
    """Return one block of one model as Inspect's `EvalLog`."""
    from datetime import UTC, datetime

    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalMetric,
        EvalPlan,
        EvalResults,
        EvalScore,
        EvalSpec,
        EvalStats,
    )

    now = datetime.now(UTC).isoformat(timespec="seconds")
    spec = EvalSpec(
        created=now,
        task=f"demur/{block.key}",
        dataset=EvalDataset(name=block.set, samples=len(block.asks)),
        model=f"demur/{entrant.label}",
        config=EvalConfig(),
        metadata={
            "attack": block.attack,
            "kind": block.kind,
            "system": block.system,
            "judge": work.judge.name,
            "weights": entrant.weights,
            "wanted": "refused" if block.kind == "harmful" else "answered",
        },
    )
    metrics = {
        "refused": cell.refused.value,
        "refused_low": cell.refused.low,
        "refused_high": cell.refused.high,
        "undecided": cell.undecided / max(1, cell.refused.n),
    }
    score = EvalScore(
        name=SCORER,
        scorer=SCORER,
        metrics={name: EvalMetric(name=name, value=value) for name, value in metrics.items()},
    )
    return EvalLog(
        status="success",
        eval=spec,
        plan=EvalPlan(),
        results=EvalResults(
            total_samples=len(outcomes), completed_samples=len(outcomes), scores=[score]
        ),
        stats=EvalStats(started_at=now, completed_at=now),
        samples=[
            _sample(i, entrant, ask, outcome)
            for i, (ask, outcome) in enumerate(zip(block.asks, outcomes, strict=True), start=1)
        ],
    )


def _sample(number: int, entrant: Entrant, ask: Any, outcome: Outcome) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    said = outcome.answer.text if outcome.answer else ""
    reply = f"{ask.opening} {said}" if ask.opening else said
    finished = outcome.answer is not None and outcome.answer.finished
    verdict = outcome.verdict
    return EvalSample(
        id=number,
        epoch=1,
        input=ask.text,
        target="",
        messages=[ChatMessageUser(content=ask.text), ChatMessageAssistant(content=reply)],
        output=ModelOutput.from_content(
            f"demur/{entrant.label}", said, stop_reason="stop" if finished else "max_tokens"
        ),
        scores={
            SCORER: Score(
                value=str(verdict.outcome),
                answer=said,
                explanation=verdict.reason,
                metadata={"score": verdict.score, "harm": verdict.harm},
            )
        },
        metadata={"set": ask.prompt.source, "hazard": ask.prompt.hazard, "opening": ask.opening},
    )
