"""A measurement as one self-contained HTML page: a leaderboard, sortable without a network.

Answers are untrusted text: everything is escaped, and the page's policy allows one script alone,
the small one below, by its hash. Without scripts the page is the same, in the order of the models.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from demur import figures
from demur.measure.scorecard import CurvePoint
from demur.measure.standing import Standing
from demur.report import html
from demur.report.leaderboard_table import (
    COLUMNS,
    corrected_text,
    row_title,
    rows_to_show,
    shows_from,
    undecided,
    utility_titles,
)

if TYPE_CHECKING:
    from demur.report.plots import Plot

FILE = "leaderboard.html"
SCRIPT = "leaderboard.js"
STYLE = "leaderboard.css"


def render(standing: Standing) -> str:
    """Return the whole page."""
    from markupsafe import Markup

    templates = html.TEMPLATES
    script = (templates / SCRIPT).read_text(encoding="utf-8").strip()
    css = "\n".join(
        (templates / name).read_text(encoding="utf-8") for name in ("report.css", STYLE)
    )
    environment = html.environment()
    environment.filters["signed"] = figures.signed
    environment.globals.update(
        corrected_text=corrected_text,
        row_title=row_title,
        shows_from=shows_from,
        undecided=undecided,
    )
    notes = sorted(
        {
            cell.corrected.note
            for row in standing.rows
            for cell in row.cells
            if cell and cell.corrected and cell.corrected.note
        }
    )
    shown = [(row, title, want) for key, title, want in COLUMNS if (row := standing.row(key))]
    page = environment.get_template("leaderboard.html.j2").render(
        standing=standing,
        css=Markup(css),
        script=Markup(script),
        digest=_digest(script),
        shown=shown,
        rows=rows_to_show(standing),
        utility=utility_titles(standing),
        plot=_plot(standing),
        folded=[s for s in standing.samples if s.kind == "harmful"],
        open=[s for s in standing.samples if s.kind != "harmful"],
        notes=notes,
        headline=_headline(standing),
    )
    return figures.plain(page)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _plot(standing: Standing) -> Plot | None:
    """Return harmful against benign refused, one point a model; None where one was not measured."""
    from demur.report.curve import draw_curve
    from demur.report.plots import NARROW, WIDE, Plot
    from demur.report.svg import embed

    harmful, benign = standing.row("direct/pooled:harmful"), standing.row("direct/pooled:twin")
    if harmful is None or benign is None:
        return None
    points = [
        CurvePoint(model.label, up.refused, down.refused, model.reference)
        for model, up, down in zip(standing.models, harmful.cells, benign.cells, strict=True)
        if up is not None and down is not None
    ]
    label = figures.plain(
        "; ".join(
            f"{each.label}: {figures.percent(each.harmful.value)} of harmful and "
            f"{figures.percent(each.benign.value)} of benign refused"
            for each in points
        )
    )
    drawings = [
        embed(
            draw_curve(points, width, height, word="reference", joined=False),
            f"models-{shape}",
            "Models: harmful against benign refused",
            label,
            shape,
        )
        for shape, width, height in (("wide", WIDE, 440), ("narrow", NARROW, 340))
    ]
    return Plot(*drawings)


def _headline(standing: Standing) -> str:
    """Return what was measured in one sentence; of a single model, what it does."""
    count = len(standing.models)
    harmful, benign = standing.row("direct/pooled:harmful"), standing.row("direct/pooled:twin")
    if count == 1 and harmful and benign:
        up, down = harmful.cells[0], benign.cells[0]
        if up is not None and down is not None:
            return (
                f"{standing.models[0].label} refuses {figures.percent(up.refused.value)} of "
                f"harmful requests and {figures.percent(down.refused.value)} of benign ones that "
                "sound harmful."
            )
    return f"{count} models on the same prompts: what they refuse, and what they should not have."
