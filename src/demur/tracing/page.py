"""The trace as one self-contained HTML file, in the clothes of demur's report, with no request."""

from __future__ import annotations

from pathlib import Path

from demur import figures
from demur.graft.tracing.effects import Cell
from demur.report import html
from demur.tracing.decision import Decision, decision
from demur.tracing.findings import Findings
from demur.tracing.plots import heat_map
from demur.tracing.tables import best, mean_text, sections, share_text

FILE = "trace.html"
_TEMPLATES = Path(__file__).parent / "templates"
_WORDS = {"mlp": "MLP"}
_STYLE = html.TEMPLATES / "report.css"


def render_page(findings: Findings) -> str:
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
    environment.filters.update({"tidy": figures.tidy, "margin": mean_text})
    shown = sections(findings)
    page = environment.get_template("trace.html.j2").render(
        findings=findings,
        headline=headline(findings),
        detail=detail(findings),
        css=Markup(_STYLE.read_text(encoding="utf-8")),
        sections=shown,
        plots={each.key: heat_map(each.heat) for each in shown},
        definitions=definitions(findings),
    )
    return figures.plain(page)


def headline(findings: Findings) -> str:
    """Return one sentence: from where on refusal is decided, or else what restores most of it."""
    name = _called(findings)
    where = _decision(findings)
    if where.arrived is not None:
        return (
            f"In {name}, refusing is decided at the last token from layer {where.arrived.layer} on."
        )
    cells = best(findings.maps[0].shown, 1)
    if not cells:
        return f"In {name}, no place restores refusal."
    return (
        f"In {name}, the {_WORDS.get(cells[0].kind, cells[0].kind)} of layer {cells[0].layer} at "
        f"the {cells[0].place} restores most of refusal."
    )


def detail(findings: Findings) -> str:
    """Return the figures behind the headline."""
    where = _decision(findings)
    if where.arrived is None:
        cells = best(findings.maps[0].shown, 1)
        return f"It restores {_share(cells[0])}, of what corruption takes." if cells else ""
    told = f"The state there restores {_share(where.arrived)}, of what corruption takes"
    if where.left is None:
        return f"{told}; at no other place does it restore half."
    return (
        f"{told}; elsewhere it restores half up to layer {where.left.layer} "
        f"({where.left.place}: {_share(where.left)})."
    )


def _decision(findings: Findings) -> Decision:
    states = [each for each in findings.maps if each.kind == "state"]
    return decision(states[0].shown, findings.places[-1]) if states else Decision(None, None)


def _share(cell: Cell) -> str:
    return f"{share_text(cell.share)}, n = {cell.share.n}"


def _called(findings: Findings) -> str:
    """Return the traced model's short name; a run's model goes by the run."""
    path = Path(findings.traced)
    return (path.parent.name if path.name == "model" else path.name) or findings.traced


def definitions(findings: Findings) -> tuple[tuple[str, str], ...]:
    """Return the terms, and what they mean here."""
    noise = (
        f"Gaussian noise of three standard deviations of the embeddings of all requests' tokens "
        f"({findings.deviation:.3g}) is added to the request's embeddings, {findings.draws} draws "
        "each, which are averaged first (Meng et al. 2022, section 2.1)."
    )
    twin = (
        "The run of the benign twin stands in for the corrupted one: symmetric token replacement "
        "(Zhang and Nanda 2024), which keeps to inputs that the model knows. Twins are aligned at "
        f"the end; {findings.same_length} of {findings.prompts} have the same number of tokens, "
        "and tokens of the longer that meet none are not restored."
    )
    return (
        (
            "Margin",
            "The log-odds of opening with a refusal against complying, in nats, over several "
            "openings of each: refusing "
            f"{_listed(findings.refusing)}; complying {_listed(findings.complying)}, and the first "
            "words of the answer to the twin. The papers compare single tokens; the definition is "
            "demur's own.",
        ),
        ("Corruption", noise if findings.corruption == "noise" else twin),
        (
            "Effect",
            "Margin of the restored run less that of the corrupted one, on average over prompts. "
            "Of the whole: divided by the mean difference of clean and corrupted. Intervals are "
            "percentile bootstraps over prompts, 95 %.",
        ),
        (
            "Decided",
            "From the lowest layer on whose state at the last token, and that of each layer above "
            "it, restores half or more of the whole.",
        ),
        (
            "Attribution patching",
            "The effect to first order: the gradient of the margin at the corrupted run times "
            "what restoring changes (Syed et al. 2023); across models, the gradient with respect "
            "to a weight times what the other model changes it by.",
        ),
        (
            "Before the request",
            "Tokens before the first corrupted one are the same in both runs, so that restoring "
            "them does nothing: they are not in the maps.",
        ),
    )


def _listed(openings: tuple[str, ...]) -> str:
    return ", ".join(f"\u201c{opening}\u201d" for opening in openings)
