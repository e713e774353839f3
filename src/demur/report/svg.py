"""Matplotlib figures as SVG that lives inside a page: its colours, its fonts, no metadata.

Colours are drawn as sentinel values and become CSS variables here, so that one drawing serves
light and dark. Text stays text, and the same figure always gives the same bytes.
"""

from __future__ import annotations

import io
import re
import textwrap
from html import escape
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from demur import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "ink": "#010203",
    "muted": "#010204",
    "line": "#010205",
    "surface": "#010206",
    "before": "#010207",
    "after": "#010208",
    "bad": "#010209",
}
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "demur",
    "font.family": "DejaVu Sans",
    "path.simplify": False,
}
_DROPPED = {"metadata", "style", "clipPath"}
_LINK = "{http://www.w3.org/1999/xlink}href"


def canvas(width: int, height: int) -> Figure:
    """Return an empty, transparent figure of that many CSS pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")


def clipped(words: str, width: int) -> str:
    """Return words in at most `width` characters, cut between words with an ellipsis."""
    return textwrap.shorten(figures.plain(words), width, placeholder=figures.ELLIPSIS)


def embed(figure: Figure, name: str, title: str, label: str, shape: str) -> str:
    """Return a figure as an `<svg>` element for the inside of an HTML page.

    Args:
        figure: drawn with `COLOURS`; one point is one CSS pixel.
        name: prefix of its ids; different for every drawing on a page.
        title, label: the accessible name, short, and what is to be seen, for a screen reader.
        shape: its CSS class beside `plot`.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    root = ElementTree.fromstring(stream.getvalue())
    inside = "".join(_markup(child, name) for child in root)
    head = (
        f'<svg class="plot {shape}" viewBox="{root.get("viewBox")}" role="img" '
        f'aria-label="{escape(f"{title}. {label}")}" '
        'stroke-linejoin="round" stroke-linecap="butt">'
    )
    return f"{head}<title>{escape(title)}</title>{inside}</svg>"


def _markup(element: ElementTree.Element, name: str) -> str:
    """Return one element and all below it, with plain names and the page's colours."""
    tag = element.tag.rpartition("}")[2]
    if tag in _DROPPED:
        return ""
    inside = "".join(_markup(child, name) for child in element)
    text = escape(element.text or "", quote=False) if tag == "text" else ""
    if tag in ("g", "defs") and not inside:
        return ""
    attributes = "".join(
        f' {key}="{escape(value)}"' for key, value in _attributes(element, tag, name)
    )
    return f"<{tag}{attributes}>{text}{inside}</{tag}>"


def _attributes(element: ElementTree.Element, tag: str, name: str) -> list[tuple[str, str]]:
    kept: list[tuple[str, str]] = []
    for key, value in element.attrib.items():
        if key == "id":
            if tag != "g":
                kept.append(("id", f"{name}-{value}"))
        elif key == _LINK:
            kept.append(("href", f"#{name}-{value.removeprefix('#')}"))
        elif key == "style":
            kept.append(("style", _style(value)))
        elif key == "d":
            kept.append(("d", " ".join(value.split())))
        elif key == "clip-path" or (key == "transform" and value.startswith("rotate(-0 ")):
            continue
        else:
            kept.append((key, value))
    return kept


def _style(value: str) -> str:
    """Return a style with CSS variables for the sentinel colours and the page's own fonts."""
    for role, sentinel in COLOURS.items():
        value = value.replace(sentinel, f"var(--{role})")
    return re.sub(r"font-family: [^;]*;? ?", "", value)


def draw_dot(axes: Axes, x: float, y: float, filled: bool) -> None:
    """Draw a dot in canvas units: filled for what stands after, open for before."""
    colour = COLOURS["after" if filled else "before"]
    axes.plot(
        [x],
        [y],
        color=colour,
        marker="o",
        markersize=9,
        markeredgewidth=2,
        markeredgecolor=colour,
        markerfacecolor=colour if filled else COLOURS["surface"],
        zorder=4,
        clip_on=False,
    )


def draw_words(
    axes: Axes,
    x: float,
    y: float,
    words: str,
    size: float,
    *,
    colour: str = "ink",
    align: str = "left",
    weight: str = "normal",
) -> None:
    """Write words in canvas units, centred on `y`, as text that the page can read."""
    axes.text(
        x,
        y,
        figures.plain(words),
        fontsize=size,
        color=COLOURS[colour],
        ha=align,
        va="center_baseline",
        fontweight=weight,
        parse_math=False,
        zorder=5,
    )
