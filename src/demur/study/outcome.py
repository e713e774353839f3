"""What a study came to, for whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demur.study.findings import Findings


@dataclass(frozen=True)
class Study:
    """What a study came to.

    Attributes:
        run: its folder.
        report: the HTML report.
        data: `study.json`.
        markdown: the tables as Markdown.
        findings: all figures.
    """

    run: Path
    report: Path
    data: Path
    markdown: Path
    findings: Findings
