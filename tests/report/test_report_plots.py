"""The plots: text, accessible, in the page's colours; and the formatted numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from demur import figures
from demur.report.content import ReportContent
from demur.report.plots import Plot, comparison_plot, curve_plot
from demur.report.svg import COLOURS


def both(content: ReportContent) -> list[Plot]:
    card = content.scorecard
    return [comparison_plot(card.comparisons), curve_plot(card.curve)]


def test_drawings_are_accessible_and_follow_the_page(content: ReportContent) -> None:
    for plot in both(content):
        for source in (plot.wide, plot.narrow):
            root = ElementTree.fromstring(source)
            assert root.get("role") == "img" and root.get("aria-label")
            assert root[0].tag == "title" and root[0].text
            assert "var(--after)" in source and "var(--ink)" in source
            assert not any(sentinel in source for sentinel in COLOURS.values())
            assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'href="[^"]*"', "", source))
            assert "font-family" not in source and "metadata" not in source
            assert "<style" not in source and "http" not in source


def test_text_stays_text(content: ReportContent) -> None:
    rates, curve = both(content)
    for each in content.scorecard.comparisons:
        assert f">{each.title}</text>" in rates.wide
        assert figures.percent(each.after.value) in rates.narrow
    assert ">chosen: strength 1.0</text>" in curve.wide
    assert "strength 1.0: 96.4" in curve.wide and ", chosen" in curve.wide


def test_drawn_the_same_every_time(content: ReportContent) -> None:
    assert both(content) == both(content)


def test_markup_and_mathematics_in_labels_stay_text(content: ReportContent) -> None:
    first = replace(content.scorecard.comparisons[0], title='<b onload="x">$\\frac{1}$')
    source = comparison_plot([first]).wide
    root = ElementTree.fromstring(source)
    assert '<b onload="x">$\\frac{1}$' in [element.text for element in root.iter("text")]


def test_a_single_point_and_a_set_without_prompts_are_drawn(
    content: ReportContent, bare: ReportContent
) -> None:
    assert "chosen" in curve_plot(content.scorecard.curve[4:5]).narrow
    assert "nan" not in comparison_plot(bare.scorecard.comparisons).wide


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0 %"),
        (0.0002, "< 0.1 %"),
        (0.9999, "> 99.9 %"),
        (1.0, "100.0 %"),
        (0.123, "12.3 %"),
    ],
)
def test_percent_does_not_round_to_nothing_or_all(value: float, text: str) -> None:
    assert figures.percent(value).replace(figures.SPACE, " ") == text


def test_sizes_and_durations() -> None:
    shown = [
        figures.size(900), figures.size(4_880_112), figures.duration(4.21), figures.duration(185),
        figures.duration(7620), figures.parameters(134_515_008), figures.signed(-0.04),
        figures.signed(-1.26), figures.number(0.0), figures.number(float("nan")),
    ]  # fmt: skip
    assert [each.replace(figures.SPACE, " ") for each in shown] == [
        "900 bytes", "4.7 MiB", "4.2 s", "3 min 05 s", "2 h 07 min", "134.5 million", "0.0",
        "\N{MINUS SIGN}1.3", "0", "\N{EN DASH}",
    ]  # fmt: skip
