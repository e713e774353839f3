"""The plots of a graft: the front with what it is held against, and the modules that were taken."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

from demur.report.content import GraftFacts, ReportContent
from demur.report.graft_plots import front_plot, modules_plot
from demur.report.html import render_html
from demur.report.svg import COLOURS


def facts_of(content: ReportContent) -> GraftFacts:
    assert content.graft is not None
    return content.graft


def test_both_are_accessible_follow_the_page_and_are_the_same_every_time(
    grafted: ReportContent,
) -> None:
    facts = facts_of(grafted)
    for plot in (front_plot(facts.points), modules_plot(facts)):
        for source in (plot.wide, plot.narrow):
            root = ElementTree.fromstring(source)
            assert root.get("role") == "img"
            assert root[0].tag == "title" and root[0].text
            assert "var(--after)" in source
            assert not any(sentinel in source for sentinel in COLOURS.values())
            assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'href="[^"]*"', "", source))
            assert "http" not in source
    assert front_plot(facts.points) == front_plot(facts.points)


def test_the_front_names_what_was_chosen_and_what_it_is_held_against(
    grafted: ReportContent,
) -> None:
    source = front_plot(facts_of(grafted).points).wide
    for words in ("chosen, 0.31\u00a0%", "untouched", "whole donor", "1.8\u00a0%"):
        assert f">{words}</text>" in source
    label = ElementTree.fromstring(source).get("aria-label") or ""
    assert "7 modules, scale 1.5, rank 2: 85.4" in label and ", chosen" in label
    assert "4 modules, scale 1" not in label  # another graft beats it


def test_every_module_has_a_cell_and_only_what_was_taken_is_full(grafted: ReportContent) -> None:
    facts = facts_of(grafted)
    root = ElementTree.fromstring(modules_plot(facts).wide)
    cells = [one for one in root.iter("path") if "fill: var(--" in (one.get("style") or "")]
    assert len(cells) == len(facts.modules) == 24
    full = [one for one in cells if "fill: var(--after)" in (one.get("style") or "")]
    assert len(full) == len(facts.kept) == 2
    assert "gate of layer 3, gate of layer 4" in (root.get("aria-label") or "")
    assert {"gate", "up", "down", "o"} <= {one.text for one in root.iter("text")}


def test_the_report_shows_them_and_a_report_of_training_does_not(
    grafted: ReportContent, content: ReportContent
) -> None:
    page = render_html(grafted)
    assert page.count('id="graft"') == 1 and 'href="#graft"' in page
    assert "2 of 24 are in the graft" in page
    assert "0.31 %" in page
    assert "<script" not in page
    assert 'id="graft"' not in render_html(content)


def test_a_graft_that_was_not_searched_is_drawn_too(grafted: ReportContent) -> None:
    facts = facts_of(grafted)
    points = tuple(each for each in facts.points if each.role != "tried")
    modules = tuple(replace(each, effect=None) for each in facts.modules)
    page = render_html(replace(grafted, graft=GraftFacts(points, modules)))
    assert 'id="graft"' in page
    assert "nan" not in front_plot(points).wide
