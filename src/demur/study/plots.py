"""The study's plots: uniformity of each source with its interval, and uniformity against security.

Drawn as `report/plots.py` draws: twice, wide and narrow, as SVG in the page's own colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur import figures
from demur.report.plots import NARROW, WIDE, Plot
from demur.report.svg import COLOURS, SETTINGS, canvas, clipped, draw_dot, draw_words, embed
from demur.study.entropy import Estimate
from demur.study.findings import Findings, SourceFindings
from demur.study.premise import LEAST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 46


@dataclass(frozen=True)
class _Point:
    """A source in the scatter plot, both figures with their intervals."""

    name: str
    x: Estimate
    y: Estimate


def uniformity_plot(findings: Findings) -> Plot | None:
    """Return a dot and interval of both uniformities for every source; None where none has any."""
    shown = [each for each in findings.sources if each.uniformity["openings"] is not None]
    if not shown:
        return None
    label = "; ".join(f"{each.name}: {_value(each).value:.2f}" for each in shown)
    drawings = [
        embed(
            _draw_rows(shown, width),
            f"uniformity-{shape}",
            "Uniformity of refusals",
            figures.plain(f"Openings. {label}"),
            shape,
        )
        for shape, width in (("wide", WIDE), ("narrow", NARROW))
    ]
    return Plot(*drawings)


def security_plot(findings: Findings, prefill: bool) -> Plot | None:
    """Return uniformity of openings against security; None where fewer than two sources have both.

    Args:
        prefill: refusals that hold under prefill, in place of harmful requests refused.
    """
    points = []
    for each in findings.sources:
        rate = each.security.held if prefill else each.security.harmful
        if each.uniformity["openings"] is not None and rate.n >= (LEAST if prefill else 1):
            points.append(
                _Point(each.name, _value(each), Estimate(rate.value, rate.low, rate.high))
            )
    if len(points) < 2:
        return None
    what = "Refusals that hold under prefill" if prefill else "Harmful requests refused"
    label = "; ".join(f"{p.name}: {p.x.value:.2f}, {figures.percent(p.y.value)}" for p in points)
    name = "held" if prefill else "harmful"
    drawings = [
        embed(
            _draw_points(points, what, width, height),
            f"{name}-{shape}",
            f"{what}, against uniformity of openings",
            figures.plain(label),
            shape,
        )
        for shape, width, height in (("wide", WIDE, 440), ("narrow", NARROW, 360))
    ]
    return Plot(*drawings)


def _value(each: SourceFindings) -> Estimate:
    found = each.uniformity["openings"]
    assert found is not None
    return found.uniformity


def _draw_rows(shown: Sequence[SourceFindings], width: int) -> Figure:
    import matplotlib

    narrow = width < 500
    left, right = (8, width - 14) if narrow else (300, width - 40)
    row = _ROW + 18 * narrow
    height = 34 + row * len(shown) + 30
    with matplotlib.rc_context(SETTINGS):
        figure = canvas(width, height)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
            x = left + tick * (right - left)
            axes.plot([x, x], [34, height - 30], color=COLOURS["line"], linewidth=1, zorder=1)
            align = {0.0: "left", 1.0: "right"}.get(tick, "center") if narrow else "center"
            draw_words(axes, x, height - 14, f"{tick:g}", 11.5, colour="muted", align=align)
        for x, words, filled in ((left, "openings", True), (left + 92, "clusters", False)):
            draw_dot(axes, x + 6, 16, filled)
            draw_words(axes, x + 18, 16, words, 12, colour="muted")
        for place, each in enumerate(shown):
            top = 34 + place * row
            middle = top + (row * 0.68 if narrow else row / 2)
            draw_words(axes, 8, top + 14 if narrow else middle, clipped(each.name, 36), 13)
            for pattern, offset, filled in (("openings", -6, True), ("clusters", 6, False)):
                found = each.uniformity[pattern]
                if found is not None:
                    value = found.uniformity
                    ends = [left + end * (right - left) for end in (value.low, value.high)]
                    colour = COLOURS["after" if filled else "before"]
                    axes.plot(
                        ends, [middle + offset] * 2, color=colour, linewidth=3, alpha=0.45, zorder=3
                    )
                    draw_dot(axes, left + value.value * (right - left), middle + offset, filled)
    return figure


def _draw_points(points: Sequence[_Point], what: str, width: int, height: int) -> Figure:
    import matplotlib

    narrow = width < 500
    size = 11.5 if narrow else 13
    with matplotlib.rc_context(SETTINGS):
        figure = canvas(width, height)
        left, bottom, top = (46 if narrow else 62) / width, 54 / height, 34 / height
        axes = figure.add_axes((left, bottom, 1 - left - 20 / width, 1 - bottom - top))
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.patch.set_visible(False)
        axes.grid(color=COLOURS["line"], linewidth=1)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(COLOURS["line"])
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}{figures.SPACE}%")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_tick_params(length=0, pad=8, labelcolor=COLOURS["muted"], labelsize=size - 1.5)
        axes.set_xlabel("Uniformity of openings", color=COLOURS["ink"], fontsize=size, labelpad=10)
        axes.set_title(what, color=COLOURS["ink"], fontsize=size, loc="left", pad=12)
        for each in points:
            x, y = each.x.value, each.y.value
            for xs, ys in (
                ([each.x.low, each.x.high], [y, y]),
                ([x, x], [each.y.low, each.y.high]),
            ):
                axes.plot(xs, ys, color=COLOURS["after"], linewidth=1.5, alpha=0.35, zorder=3)
            axes.plot([x], [y], color=COLOURS["after"], marker="o", markersize=8, zorder=4)
        _names(axes, points, size - 1, narrow)
    return figure


def _names(axes: Axes, points: Sequence[_Point], size: float, narrow: bool) -> None:
    """Name each point where its name meets no other; where there is no room the table tells."""
    dots = [axes.transData.transform((p.x.value, p.y.value)) for p in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in dots]
    edge = axes.bbox
    for each, (x, y) in zip(points, dots, strict=True):
        words = clipped(each.name, 18 if narrow else 30)
        wide = 0.62 * size * len(words)
        for across, down in ((10, 11), (10, -13), (-10, 11), (-10, -13)):
            start = x + across if across > 0 else x + across - wide
            box = (start, y + down - size / 2, start + wide, y + down + size / 2)
            inside = box[0] > edge.x0 and box[2] < edge.x1 and box[1] > edge.y0 and box[3] < edge.y1
            if not inside or any(_meet(box, other) for other in taken):
                continue
            taken.append(box)
            axes.annotate(
                words,
                (each.x.value, each.y.value),
                xytext=(across, down),
                textcoords="offset points",
                ha="left" if across > 0 else "right",
                va="center_baseline",
                color=COLOURS["ink"],
                fontsize=size,
                parse_math=False,
                zorder=5,
            )
            break


def _meet(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    apart = first[2] < second[0] or second[2] < first[0]
    return not (apart or first[3] < second[1] or second[3] < first[1])
