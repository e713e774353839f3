"""The study in one table for the terminal: refusal, over-refusal, uniformity, prefill."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur import figures
from demur.study.findings import Findings, SourceFindings
from demur.study.tables import FEW, UNKNOWN, short

if TYPE_CHECKING:
    from rich.table import Table


def console_table(findings: Findings) -> Table:
    """Return one row a source: percent and uniformity, each with its 95 % interval."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold", min_width=14)
    table.add_column("refusals", justify="right", no_wrap=True)
    for title in ("harmful refused, %", "benign refused, %", "held under prefill, %"):
        table.add_column(title, justify="right")
    table.add_column("openings", justify="right", no_wrap=True)
    table.add_column("clusters", justify="right", no_wrap=True)
    for each in findings.sources:
        rates = (each.security.harmful, each.security.benign, each.security.held)
        table.add_row(
            Text(figures.plain(each.name)),
            f"{each.refusals:,}/{each.answers:,}",
            *(Text(short(one) if one.n else UNKNOWN) for one in rates),
            *(Text(_uniform(each, pattern)) for pattern in ("openings", "clusters")),
        )
    return table


def _uniform(each: SourceFindings, pattern: str) -> str:
    found = each.uniformity[pattern]
    if found is None:
        return FEW if each.refusals else "none"
    value = found.uniformity
    return f"{value.value:.2f} {value.low:.2f}{figures.DASH}{value.high:.2f}"
