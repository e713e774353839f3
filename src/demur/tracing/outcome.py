"""What a trace came to, for whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demur.tracing.findings import Findings


@dataclass(frozen=True)
class Trace:
    """What a trace came to.

    Attributes:
        run: its folder.
        report: the HTML report.
        data: `trace.json`.
        findings: all figures.
    """

    run: Path
    report: Path
    data: Path
    findings: Findings
