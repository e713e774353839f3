"""The report as one self-contained HTML file: no script, no network, no font of its own.

Prompts and answers are untrusted text. Everything is escaped, and the page's own policy forbids
scripts and network besides, so that an answer can neither run nor call home.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demur import figures
from demur.measure.scorecard import Comparison, Example, Utility
from demur.report import files
from demur.report.content import ReportContent

if TYPE_CHECKING:
    from jinja2 import Environment

FILE = "report.html"
LONGEST = 900
TEMPLATES = Path(__file__).parent / "templates"
_OPEN_KINDS = ("twin", "ordinary")
_FILTERS = (
    figures.percent,
    figures.span,
    figures.counts,
    figures.grouped,
    figures.points,
    figures.p_text,
    figures.number,
    figures.mean_text,
    figures.duration,
    figures.size,
    figures.parameters,
    figures.short,
    figures.tidy,
)


@dataclass(frozen=True)
class Tile:
    """One of the large figures at the top; `rates` draws a scale below it."""

    title: str
    aim: str
    before: str
    after: str
    interval: str
    sample: str
    change: str
    rates: Comparison | None


@dataclass(frozen=True)
class Clipped:
    """An answer as it is shown: at most `LONGEST` characters of `total`."""

    text: str
    shown: int
    total: int


def render_html(content: ReportContent) -> str:
    """Return the whole report as one HTML page."""
    from markupsafe import Markup

    from demur.report.graft_plots import front_plot, modules_plot
    from demur.report.plots import comparison_plot, curve_plot

    card = content.scorecard
    folded = [each for each in card.examples if each.kind not in _OPEN_KINDS]
    measured = [each for each in card.curve if each.harmful.n and each.benign.n]
    prefill = [each for each in card.comparisons if each.key.startswith("prefill")]
    graft = content.graft
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            content=content,
            card=card,
            css=Markup(css),
            tiles=tiles(content),
            rates=comparison_plot(card.comparisons) if card.comparisons else None,
            curve=curve_plot(measured) if measured else None,
            front=front_plot(graft.points) if graft and graft.points else None,
            modules=modules_plot(graft) if graft and graft.modules else None,
            prefill=prefill,
            forced=[each for each in (content.comparison("harmful"), *prefill) if each],
            folded=folded,
            shown={kind: _of_kind(card.examples, kind) for kind in _OPEN_KINDS},
            met=sum(goal.met for goal in content.goals),
            longest_phase=max((phase.seconds for phase in content.phases), default=0.0),
        )
    )
    return figures.plain(page)


def write_report(content: ReportContent, folder: Path) -> Path:
    """Write `report.html` into `folder`, whole or not at all, and return its path.

    Raises:
        RunError: the folder cannot be written to, or has no room.
    """
    return files.write_text(folder / FILE, render_html(content))


def tiles(content: ReportContent) -> list[Tile]:
    """Return the large figures: three rates of refusal where measured, perplexity, divergence."""
    names = {
        "harmful": "Harmful requests refused",
        "twins": "Harmless twins refused",
        "ordinary": "Ordinary requests refused",
    }
    found = [(name, content.comparison(key)) for key, name in names.items()]
    rates = [_rate_tile(name, each) for name, each in found if each is not None]
    return rates + _utility_tiles(content.scorecard.utility)


def _rate_tile(title: str, each: Comparison) -> Tile:
    after, difference = each.after, each.difference
    return Tile(
        title=title,
        aim="higher is better" if each.wanted == "up" else "lower is better",
        before=figures.percent(each.before.value),
        after=figures.percent(after.value),
        interval=f"95{figures.SPACE}% interval {figures.span(after.low, after.high)}",
        sample=f"{figures.counts(after)}, {each.split} prompts",
        change=f"{figures.points(difference)} points, {figures.p_text(difference.p_value)}",
        rates=each,
    )


def _utility_tiles(utility: Utility) -> list[Tile]:
    ratio, divergence = utility.perplexity_ratio, utility.divergence
    return [
        Tile(
            title=f"Perplexity on {utility.text}",
            aim="closer is better",
            before=figures.number(utility.perplexity_before),
            after=figures.number(utility.perplexity_after),
            interval=f"ratio {figures.mean_text(ratio, 3)}, 95{figures.SPACE}% interval",
            sample=f"{figures.grouped(ratio.n)} windows of text",
            change=f"{figures.signed(100 * (ratio.value - 1), 2)}{figures.SPACE}% against before",
            rates=None,
        ),
        Tile(
            title="Divergence from the original (KL)",
            aim="lower is better",
            before="0",
            after=figures.number(divergence.value),
            interval=f"mean {figures.mean_text(divergence, 4)}, 95{figures.SPACE}% interval",
            sample=f"{figures.grouped(divergence.n)} ordinary prompts",
            change="nats a token, along the original's own answers",
            rates=None,
        ),
    ]


def clip(text: str) -> Clipped:
    """Return what is shown of an answer, without control characters."""
    clean = figures.plain(text).strip()
    shown = clean if len(clean) <= LONGEST else clean[:LONGEST].rstrip() + figures.ELLIPSIS
    return Clipped(shown, min(len(clean), LONGEST), len(clean))


def badge(kind: str, verdict: str) -> str:
    """Return `good` or `bad`: refusing is right for harmful prompts only, undecided never."""
    wanted = "complied" if kind in _OPEN_KINDS else "refused"
    return "good" if verdict == wanted else "bad"


def _of_kind(examples: tuple[Example, ...], kind: str) -> list[Example]:
    return [each for each in examples if each.kind == kind]


def environment() -> Environment:
    """Return the templates with the filters that every page uses; all text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update({each.__name__: each for each in _FILTERS})
    made.globals.update(clip=clip, badge=badge)
    return made
