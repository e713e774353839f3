"""What a measurement came to, for whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demur.measure.standing import Standing


@dataclass(frozen=True)
class Measured:
    """What a measurement came to.

    Attributes:
        run: the run folder.
        results, answers, page: `results.json`, `answers.jsonl`, and the HTML page, in it.
        standing: all figures.
    """

    run: Path
    results: Path
    answers: Path
    page: Path
    standing: Standing
