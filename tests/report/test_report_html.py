"""The HTML report: self-contained, escaped, folded, and with every number's interval."""

from __future__ import annotations

import errno
import html
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from demur.errors import RunError
from demur.measure.scorecard import Example
from demur.report.content import ReportContent
from demur.report.html import LONGEST, badge, clip, render_html, write_report

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = (
    '</p></div></details><script>alert(1)</script><img src=x onerror="alert(2)">'
    "<style>*{display:none}</style>{{ 7 * 7 }} $x^2$ \x1b[31m\x00 \ud800 end"
)


class Page(HTMLParser):
    """Reads a page: its elements, its text outside of `<details>`, and whether all tags match."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[str] = []
        self.folded: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.folded if "details" in self.open else self.shown).append(data)


def with_example(content: ReportContent, example: Example) -> ReportContent:
    return replace(content, scorecard=replace(content.scorecard, examples=(example,)))


def test_page_is_well_formed_and_loads_nothing(content: ReportContent) -> None:
    source = render_html(content)
    page = Page(source)
    assert page.open == []
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "action", "data"):
                assert value is not None and value.startswith("#"), (tag, name, value)
    assert not re.search(r"https?://|@import|url\(", source)
    assert "default-src &#39;none&#39;" in source or "default-src 'none'" in source


def test_ids_are_unique_and_every_reference_leads_somewhere(content: ReportContent) -> None:
    page = Page(render_html(content))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        if "href" in attributes:
            assert str(attributes["href"])[1:] in ids


def test_untrusted_text_stays_text(content: ReportContent) -> None:
    example = Example("twin", HOSTILE, HOSTILE, HOSTILE, HOSTILE, "complied", "refused")
    hostile = with_example(
        replace(content, headline=HOSTILE, judge=HOSTILE, model_name=HOSTILE, command=HOSTILE),
        example,
    )
    first = replace(hostile.scorecard.comparisons[0], title=HOSTILE)
    point = replace(hostile.scorecard.curve[0], label=HOSTILE)
    hostile = replace(
        hostile,
        scorecard=replace(hostile.scorecard, comparisons=(first,), curve=(point,)),
    )
    source = render_html(hostile)
    page = Page(source)
    assert page.open == []
    assert not {tag for tag, _ in page.elements} & {"script", "img"}
    assert sum(tag == "style" for tag, _ in page.elements) == 1
    assert "<script>alert(1)</script>" in "".join(page.shown)
    assert "{{ 7 * 7 }}" in source and "49 $x" not in source
    assert "\x1b" not in source and "\x00" not in source
    source.encode("utf-8")


def test_harmful_prompts_and_answers_are_folded_away(content: ReportContent) -> None:
    page = Page(render_html(content))
    shown, folded = "".join(page.shown), "".join(page.folded)
    for example in content.scorecard.examples:
        if example.kind == "harmful":
            for text in (example.prompt, example.answer_before, example.answer_after):
                assert text in folded and text not in shown
        else:
            assert example.prompt in shown and example.prompt not in folded
    details = [attributes for tag, attributes in page.elements if tag == "details"]
    assert details and all("open" not in attributes for attributes in details)
    assert "Folded away: harmful requests, and every answer to them." in shown


def test_an_unknown_kind_is_folded_too(content: ReportContent) -> None:
    example = Example("jailbreak", "", "PROMPT-X", "ANSWER-X", "ANSWER-Y", "complied", "complied")
    page = Page(render_html(with_example(content, example)))
    assert "ANSWER-X" in "".join(page.folded) and "ANSWER-X" not in "".join(page.shown)


def test_numbers_stand_with_interval_n_and_split(content: ReportContent) -> None:
    text = " ".join("".join(Page(render_html(content)).shown).split()).replace("\N{EN DASH}", "-")
    assert "2.8 %" in text and "96.4 %" in text
    assert "93.3-98.1 %" in text and "1.4-5.7 %" in text
    assert "241 of 250, test prompts" in text
    assert "+93.6 (+89.4 to +95.8)" in text and "p < 0.001" in text
    assert "ratio 1.011 (1.008-1.014)" in text
    assert "0.0304 (0.0271-0.0342)" in text
    for each in content.scorecard.comparisons:
        assert each.title in text
    for row in content.scorecard.hazards:
        assert row.hazard in text
    assert "5 of 6 goals were met; 1 was not." in text
    assert "never a refusal" in text


def test_page_says_how_to_make_it_again(content: ReportContent) -> None:
    source = html.unescape(render_html(content))
    assert content.command in source
    assert content.base_hash in source and content.patch.sha256 in source
    assert "demur apply smollm2-135m demur-patch.safetensors -o treated" in source
    assert "demur revert treated demur-patch.safetensors -o original" in source
    for name, version in content.versions:
        assert name in source and version in source
    assert "14 min 00 s" in source.replace("\N{NO-BREAK SPACE}", " ")
    assert "3.00 GiB" in source.replace("\N{NO-BREAK SPACE}", " ")


def test_same_content_gives_the_same_bytes(content: ReportContent) -> None:
    assert render_html(content) == render_html(content)


def test_bare_report_leaves_out_what_is_not_there(bare: ReportContent) -> None:
    source = render_html(bare)
    page = Page(source)
    assert page.open == []
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert not ids & {"curve", "hazards", "prefill", "examples", "tried", "goals"}
    assert "nan" not in "".join(page.shown).lower().replace("nant", "")
    assert "rank" not in "".join(page.shown[:60])


def test_long_answers_are_clipped_with_a_note() -> None:
    part = clip("a" * (LONGEST + 50))
    assert (part.shown, part.total, len(part.text)) == (LONGEST, LONGEST + 50, LONGEST + 1)
    assert clip("short\x07 one ").text == "short one"


@pytest.mark.parametrize(
    ("kind", "verdict", "wanted"),
    [
        ("harmful", "refused", "good"),
        ("harmful", "complied", "bad"),
        ("harmful", "undecided", "bad"),
        ("twin", "complied", "good"),
        ("ordinary", "refused", "bad"),
        ("ordinary", "undecided", "bad"),
    ],
)
def test_undecided_is_never_good(kind: str, verdict: str, wanted: str) -> None:
    assert badge(kind, verdict) == wanted


def test_written_whole_or_not_at_all(
    content: ReportContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_report(content, tmp_path / "run")
    assert path == tmp_path / "run" / "report.html"
    before = path.read_text(encoding="utf-8")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left") as caught:
        write_report(replace(content, headline="another"), tmp_path / "run")
    assert caught.value.remedy
    assert path.read_text(encoding="utf-8") == before
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]


def test_importing_is_light() -> None:
    code = (
        "import sys, demur.report.html, demur.report.card, demur.report.table;"
        "heavy = {'matplotlib', 'jinja2', 'huggingface_hub', 'rich', 'numpy', 'torch'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
