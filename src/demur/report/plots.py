"""The report's two plots: before and after with intervals, and the trade-off.

Each is drawn twice, wide and narrow; the page shows the one that fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur import figures
from demur.measure.scorecard import Comparison, CurvePoint
from demur.report.curve import draw_curve
from demur.report.svg import COLOURS, SETTINGS, canvas, clipped, draw_dot, draw_words, embed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, NARROW = 960, 340
_GROUPS = (("up", "Should be refused"), ("down", "Should be answered"))


@dataclass(frozen=True)
class Plot:
    """One plot as two inline `<svg>` elements."""

    wide: str
    narrow: str


@dataclass(frozen=True)
class _Frame:
    """Where the rows of the comparison plot are, in pixels."""

    width: int
    row: int
    left: int
    right: int
    narrow: bool

    def x(self, value: float) -> float:
        return self.left + value * (self.right - self.left)


_FRAMES = (_Frame(WIDE, 50, 300, 790, False), _Frame(NARROW, 84, 8, 332, True))


def comparison_plot(comparisons: Sequence[Comparison]) -> Plot:
    """Return a dot and its 95 % interval before and after, for every rate."""
    parts = [
        f"{each.title}: {figures.percent(each.before.value)} before, "
        f"{figures.percent(each.after.value)} after"
        for each in comparisons
    ]
    label = figures.plain("; ".join(parts))
    drawings = [
        embed(
            _draw_comparison(comparisons, frame),
            f"rates-{'narrow' if frame.narrow else 'wide'}",
            "Share refused, before and after",
            label,
            "narrow" if frame.narrow else "wide",
        )
        for frame in _FRAMES
    ]
    return Plot(*drawings)


def curve_plot(points: Sequence[CurvePoint]) -> Plot:
    """Return harmful against benign refused on validation prompts, the chosen point marked."""
    parts = [
        f"{each.label}: {figures.percent(each.harmful.value)} of harmful and "
        f"{figures.percent(each.benign.value)} of benign refused{', chosen' * each.chosen}"
        for each in points
    ]
    label = figures.plain("; ".join(parts))
    drawings = [
        embed(draw_curve(points, width, height), f"curve-{shape}", "The trade-off", label, shape)
        for shape, width, height in (("wide", WIDE, 440), ("narrow", NARROW, 340))
    ]
    return Plot(*drawings)


def _draw_comparison(comparisons: Sequence[Comparison], frame: _Frame) -> Figure:
    import matplotlib

    groups = [(title, [c for c in comparisons if c.wanted == wanted]) for wanted, title in _GROUPS]
    groups = [(title, rows) for title, rows in groups if rows]
    head = 34
    height = 40 + sum(head + frame.row * len(rows) for _, rows in groups) + 30
    with matplotlib.rc_context(SETTINGS):
        figure = canvas(frame.width, height)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, frame.width)
        axes.set_ylim(height, 0)
        _legend(axes, frame)
        y = 40.0
        for title, rows in groups:
            draw_words(axes, 8, y + head / 2, title, 13, weight="bold")
            y += head
            for each in rows:
                _row(axes, frame, y, each)
                y += frame.row
        _scale(axes, frame, 40 + head, y)
    return figure


def _legend(axes: Axes, frame: _Frame) -> None:
    x = frame.x(0) if not frame.narrow else 12
    for name, filled in (("before", False), ("after", True)):
        draw_dot(axes, x, 18, filled)
        draw_words(axes, x + 12, 18, name, 12, colour="muted")
        x += 72
    draw_words(axes, x, 18, f"lines: 95{figures.SPACE}% intervals", 12, colour="muted")


def _row(axes: Axes, frame: _Frame, top: float, each: Comparison) -> None:
    """Draw one rate: its name, both dots with intervals, and the figures."""
    detail = f"{each.split}, n = {figures.grouped(each.after.n)}"
    values = (
        f"{figures.percent(each.before.value)} {figures.ARROW} {figures.percent(each.after.value)}"
    )
    if frame.narrow:
        middle = top + 54
        track = [frame.x(0), frame.x(1)]
        axes.plot(track, [middle] * 2, color=COLOURS["line"], linewidth=1, zorder=1)
        draw_words(axes, 8, top + 9, clipped(each.title, 36), 13)
        draw_words(axes, 8, top + 27, detail, 11.5, colour="muted")
        draw_words(axes, frame.width - 8, top + 27, values, 12.5, align="right", weight="bold")
    else:
        middle = top + frame.row / 2
        draw_words(axes, 8, middle - 8, clipped(each.title, 40), 13)
        draw_words(axes, 8, middle + 10, detail, 11.5, colour="muted")
        draw_words(axes, frame.width - 8, middle, values, 13, align="right", weight="bold")
    for rate, offset, filled in ((each.before, -6, False), (each.after, 6, True)):
        if not rate.n:
            continue
        colour = COLOURS["after" if filled else "before"]
        ends = [frame.x(rate.low), frame.x(rate.high)]
        axes.plot(ends, [middle + offset] * 2, color=colour, linewidth=3, alpha=0.45, zorder=3)
        draw_dot(axes, frame.x(rate.value), middle + offset, filled)


def _scale(axes: Axes, frame: _Frame, top: float, bottom: float) -> None:
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = frame.x(tick)
        if not frame.narrow:
            axes.plot([x, x], [top, bottom], color=COLOURS["line"], linewidth=1, zorder=1)
        align = "center"
        if frame.narrow and tick in (0.0, 1.0):
            align = "left" if tick == 0 else "right"
        label = f"{100 * tick:.0f}{figures.SPACE}%"
        draw_words(axes, x, bottom + 14, label, 11.5, colour="muted", align=align)
