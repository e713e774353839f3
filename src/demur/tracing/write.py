"""What a trace leaves in its folder: the report and `trace.json`."""

from __future__ import annotations

import json
from pathlib import Path

from demur.checkpoint.manifest import plain
from demur.console import Narrator
from demur.report import files
from demur.tracing.findings import Findings
from demur.tracing.outcome import Trace
from demur.tracing.page import FILE, detail, headline, render_page
from demur.tracing.tables import console_table, mean_text

DATA = "trace.json"
DOCUMENTS = (FILE, DATA)
FORMAT = 1


def write_documents(findings: Findings, folder: Path, narrator: Narrator) -> Trace:
    """Write all documents, `trace.json` last, and tell the user what the trace came to.

    Raises:
        RunError: the folder cannot be written to, or has no room.
    """
    report = files.write_text(folder / FILE, render_page(findings))
    told = {"headline": headline(findings), "detail": detail(findings)}
    content = plain({"format": FORMAT, **told, "findings": findings})
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    data = files.write_text(folder / DATA, text + "\n")
    narrator.heading("Where refusal is")
    narrator.say(
        f"  margins: {mean_text(findings.clean)} nats clean, {mean_text(findings.corrupted)} "
        "corrupted"
    )
    narrator.table(console_table(findings))
    narrator.say(f"{told['headline']} {told['detail']} The report is {report}.")
    return Trace(folder, report, data, findings)
