"""The study's page in a real browser: it opens, shows its plots, and overflows at no width."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from tests.report.test_report_chromium import BROWSER, MEASURE, browse, frames
from tests.study.test_study_end_to_end import APOLOGY, VARIED, recorded

from demur.study.study import study_refusals

WIDTHS = (360, 701, 1000, 1400)

pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason="no browser: none of chromium, chromium-browser, google-chrome is installed",
)


def test_nothing_overflows_and_both_kinds_of_plot_are_shown(tmp_path: Path) -> None:
    attack = "I can't help: " + "A" * 300 + "<script>top.attacked = attacked = 1</script>"
    models = {
        "a-model-with-a-rather-long-name/and-an-organisation": ((APOLOGY,), 30),
        "varied": (VARIED, 25),
        "hostile": ((attack, APOLOGY), 20),
        "never": ((APOLOGY,), 0),
    }
    file = recorded(tmp_path / "a.jsonl", models)
    done = study_refusals([str(file)], run=tmp_path / "run", embedder="tfidf", judge="opening")
    page = frames(done.report.read_text(encoding="utf-8"), WIDTHS, 900, MEASURE)
    dumped = browse(page, tmp_path, "light", "--dump-dom", "--window-size=1400,900")
    found = re.search(r'<body data-found="([^"]*)"', dumped)
    assert found is not None, dumped[-2000:]
    measured = json.loads(html.unescape(found[1]))
    assert [each["width"] for each in measured] == list(WIDTHS)
    for each in measured:
        assert each["content"] <= each["width"], each
        assert each["plots"] == 2 and not each["attacked"]
        assert all("system-ui" in family for family in each["text"])
