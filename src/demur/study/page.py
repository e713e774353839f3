"""The study as one self-contained HTML file, in the clothes of demur's report.

Answers are untrusted text: everything is escaped, and the page's own policy forbids scripts and
network besides. Requests are not in it; refusals are folded away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from demur import figures
from demur.report import html
from demur.report.html import clip
from demur.study.definitions import definitions
from demur.study.findings import Findings
from demur.study.patterns import Refusals
from demur.study.plots import security_plot, uniformity_plot
from demur.study.tables import notes, tables

FILE = "study.html"
SHOWN = 4  # refusals of a source
_TEMPLATES = Path(__file__).parent / "templates"
_STYLE = html.TEMPLATES / "report.css"


def render_page(findings: Findings, gathered: Sequence[Refusals]) -> str:
    """Return the whole page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({"tidy": figures.tidy, "grouped": figures.grouped})
    shown = tables(findings)
    plots = {
        "uniformity": [uniformity_plot(findings)],
        "premise": [security_plot(findings, prefill) for prefill in (False, True)],
    }
    page = environment.get_template("study.html.j2").render(
        findings=findings,
        headline=headline(findings),
        css=Markup(_STYLE.read_text(encoding="utf-8")),
        tables=shown,
        plots={each.key: [plot for plot in plots.get(each.key, ()) if plot] for each in shown},
        examples=[(each.source.name, _examples(each)) for each in gathered],
        notes=notes(findings),
        definitions=definitions(findings),
    )
    return figures.plain(page)


def headline(findings: Findings) -> str:
    """Return one sentence: whether uniformity goes with security here, as far as can be said."""
    count = len(findings.sources)
    made = [t for t in findings.tests if not math.isnan(t.correlation.rho)]
    paper = [t for t in made if t.reading == "paper" and t.scope == "all sources"]
    if not paper:
        who = "one source refuses" if count == 1 else f"{count} sources refuse"
        return f"How {who}; too few to say whether uniformity goes with security."
    first = paper[0].correlation
    if first.p_value > 0.05:
        end = "no correlation that so few sources could show"
    elif paper[0].adjusted_p > 0.05:
        end = "a correlation that does not survive correction for the number of tests"
    else:
        end = "a significant correlation"
    return (
        f"Over {first.n} of {count} sources, uniformity of openings and harmful requests refused: "
        f"rho = {figures.signed(first.rho, 2)}, p = {first.p_value:.2f}: {end}."
    )


def _examples(each: Refusals) -> list[str]:
    step = max(1, len(each.entries) // SHOWN)
    return [clip(entry.answer).text for entry in each.entries[::step][:SHOWN]]
