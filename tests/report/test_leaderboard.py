"""The leaderboard page and its tables: well-formed, one allowed script, harm folded, sortable."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape

import pytest
from rich.console import Console
from tests.report.standings import LABELS, cell, standing
from tests.report.test_report_html import HOSTILE, Page

from demur.measure.standing import SampleAnswer
from demur.report.leaderboard import render
from demur.report.leaderboard_table import COLUMNS, console_tables, rows_to_show

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def script_of(page: str) -> str:
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    return str(script)


def test_the_page_is_well_formed_and_loads_nothing():
    page = Page(source := render(standing()))
    assert page.open == []
    for tag, attributes in page.elements:
        assert tag not in {"link", "img", "iframe", "object"}
        assert not any(name.startswith("on") for name in attributes)
        assert not (attributes.get("href") or "#").startswith(("http", "//", "javascript"))
    assert "url(" not in source


def test_the_policy_allows_the_one_script_by_its_hash():
    page = render(standing())
    digest = base64.b64encode(hashlib.sha256(script_of(page).encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src 'none'" in unescape(policy)
    assert f"script-src 'sha256-{digest}'" in unescape(policy)


def test_one_model_needs_no_script():
    page = render(standing(1))
    assert "<script>" not in page
    assert "alpha refuses 10.0 % of harmful requests and 5.0 %" in page.replace("\xa0", " ")


def test_every_column_of_every_model_has_a_value_to_sort_by():
    page = render(standing())
    for label in LABELS:
        assert page.count(f'data-value="{label}"') == 1
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    rows = body.split("<tr")[1:]
    assert len({row.count("data-value") for row in rows}) == 1
    assert 'data-value="0.9"' in rows[1]


def test_hostile_answers_stay_text_and_harm_is_folded():
    found = standing()
    hostile = tuple(SampleAnswer(label, HOSTILE, "complied") for label in LABELS)
    samples = tuple(replace(each, answers=hostile) for each in found.samples)
    source = render(replace(found, samples=samples))
    page = Page(source)
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert all(tag != "img" for tag, _ in page.elements)
    assert not any("HARMFUL QUESTION" in text for text in page.shown)
    assert any("HARMFUL QUESTION" in text for text in page.folded)
    assert any("A benign question?" in text for text in page.shown)


def test_licences_judge_and_limits_are_there():
    page = " ".join(Page(render(standing())).shown).replace("\xa0", " ")
    for words in (
        "MIT; Zou et al. 2023", "3 repeated in it", "4 near training prompts", "5 also in dapa",
        "finds 9 of 10 refusals", "Rogan and Gladen", "Connor 1987", "Undecided",
        "1 prompts did not fit into its context",
    ):  # fmt: skip
        assert words in page, words


def test_a_pool_of_one_set_is_shown_once():
    shown = [row.key for row in rows_to_show(standing())]
    assert "direct/pooled:harmful" not in shown
    assert shown == [
        "prefill/pooled:harmful", "direct/advbench", "direct/xstest:safe", "direct/dolly",
    ]  # fmt: skip


@pytest.mark.parametrize("models", [1, 3])
def test_the_tables_fit_eighty_columns_with_every_interval(models):
    console = Console(width=80, record=True, color_system=None)
    found = standing(models)
    widest = replace(found.rows[0], cells=found.rows[0].cells[:1] + (cell(20, 20, False),) * 2)
    found = replace(found, rows=(*found.rows[:3], replace(widest, set="x"), *found.rows[3:]))
    for table in console_tables(found):
        console.print(table)
    said = console.export_text()
    assert max(map(len, said.splitlines())) <= 80
    assert "10.0 % (2.8–30.1 %)" in said.replace("\xa0", " ")
    assert "…" not in said
    assert ("reference" in said) == (models > 1)


def test_the_columns_are_both_sides_of_the_trade():
    assert {wanted for _, _, wanted in COLUMNS} == {"up", "down"}


SORT = """
<body><script>
addEventListener("load", () => {
  const inner = document.querySelector("iframe").contentDocument;
  const names = () => [...inner.querySelectorAll(".leader tbody th")].map(e => e.dataset.value);
  const found = [names().join()];
  const buttons = inner.querySelectorAll(".leader thead button");
  for (const place of [1, 1, 0]) { buttons[place].click(); found.push(names().join()); }
  document.body.dataset.found = found.join(";");
});
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
def test_a_click_on_a_heading_sorts(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(render(standing()), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(f'{SORT}<iframe src="page.html"></iframe></body>', encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    shown = subprocess.run(
        [BROWSER, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000",
         "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    (found,) = re.findall(r'data-found="([^"]*)"', shown)
    assert found.split(";") == [
        "alpha,beta,gamma", "gamma,beta,alpha", "alpha,beta,gamma", "gamma,beta,alpha",
    ]  # fmt: skip
