"""What a study leaves in its folder: the report, the tables as Markdown, and `study.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from demur.checkpoint.manifest import plain
from demur.console import Narrator
from demur.report import files
from demur.study.console_table import console_table
from demur.study.findings import Findings
from demur.study.markdown import render_markdown
from demur.study.outcome import Study
from demur.study.page import FILE, headline, render_page
from demur.study.patterns import Refusals

DATA, MARKDOWN = "study.json", "study.md"
DOCUMENTS = (FILE, MARKDOWN, DATA)
FORMAT = 1


def write_documents(
    findings: Findings, gathered: Sequence[Refusals], folder: Path, narrator: Narrator
) -> Study:
    """Write all documents, `study.json` last, and tell the user what the study came to.

    Raises:
        RunError: the folder cannot be written to, or has no room.
    """
    report = files.write_text(folder / FILE, render_page(findings, gathered))
    markdown = files.write_text(folder / MARKDOWN, render_markdown(findings))
    content = plain({"format": FORMAT, "headline": headline(findings), "findings": findings})
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    data = files.write_text(folder / DATA, text + "\n")
    narrator.heading("How they refuse")
    narrator.table(console_table(findings))
    for line in findings.conclusion:
        narrator.say(f"  {line}")
    narrator.say(f"{headline(findings)} The report is {report}.")
    return Study(folder, report, data, markdown, findings)
