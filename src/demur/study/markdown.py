"""The study as a Markdown page: tables, definitions, and no answer."""

from __future__ import annotations

from collections.abc import Iterable

from demur import figures
from demur.study.definitions import definitions
from demur.study.findings import Findings
from demur.study.tables import Table, notes, tables


def render_markdown(findings: Findings, title: str = "How models refuse") -> str:
    """Return the page."""
    names = "; ".join(each.name for each in findings.sources)
    blocks = [
        f"# {title}",
        f"{len(findings.sources)} sources: {_line(names)}. Judge: `{findings.judge_name}`; "
        f"sentences by {findings.embedder_name}. Made by",
        f"```sh\n{figures.plain(findings.command)}\n```",
        "## What it comes to",
        _bullets(findings.conclusion),
    ]
    for table in tables(findings):
        blocks += [f"## {table.title}", table.lead, _table(table)]
    blocks += [
        "## Sources",
        _bullets(f"**{_line(name)}**: {' '.join(lines)}" for name, lines in notes(findings)),
        "## Definitions",
        "The paper's nine models and its definitions are not public; these are ours.",
        _bullets(f"**{term}.** {text}" for term, text in definitions(findings)),
    ]
    return "\n\n".join(blocks) + "\n"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"* {_line(line)}" for line in lines)


def _table(table: Table) -> str:
    rule = "|---" * len(table.head) + "|"
    return "\n".join((_row(table.head), rule, *map(_row, table.rows)))


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_line(cell).replace("|", "\\|") for cell in cells) + " |"


def _line(text: str) -> str:
    return " ".join(figures.plain(text).replace("<", "&lt;").split())
