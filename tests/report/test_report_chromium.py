"""The report in a real browser: light and dark, narrow and wide, nothing overflowing.

The page is shown in frames of exact widths, because a headless window has a least width. The
frames belong to the test's own page, so that nothing is added to the report itself.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from demur.measure.scorecard import Example
from demur.report.content import ReportContent
from demur.report.html import render_html

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
    "--disable-background-networking", "--no-first-run", "--disable-sync",
)  # fmt: skip
SCHEMES = {"dark": 0, "light": 1}
WIDTHS = (360, 390, 600, 701, 768, 861, 1000, 1400)
MEASURE = """
<script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const inner = frame.contentDocument, root = inner.documentElement;
    inner.querySelectorAll("details").forEach(each => each.open = true);
    const shown = [...inner.querySelectorAll("svg.plot")].filter(each => each.clientWidth > 0);
    return {
      wide: [...inner.querySelectorAll("body *")].filter(
        each => each.getBoundingClientRect().right > frame.clientWidth + 0.5).slice(0, 12).map(
        each => each.tagName + "." + each.getAttribute("class")),
      width: frame.clientWidth, content: root.scrollWidth, plots: shown.length,
      attacked: Boolean(frame.contentWindow.attacked || window.attacked),
      page: frame.contentWindow.getComputedStyle(inner.body).backgroundColor,
      text: shown.map(each => frame.contentWindow.getComputedStyle(
        each.querySelector("text")).fontFamily),
    };
  });
  document.body.dataset.found = JSON.stringify(found);
});
</script>
"""

pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason="no browser: none of chromium, chromium-browser, google-chrome is installed",
)


def frames(source: str, widths: tuple[int, ...], height: int, extra: str = "") -> str:
    """A page that shows `source` in one frame a width."""
    quoted = html.escape(source)
    inside = "".join(
        f'<iframe width="{width}" height="{height}" srcdoc="{quoted}"></iframe>' for width in widths
    )
    return (
        '<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        "<style>body { margin: 0 } iframe { border: 0; display: block }</style>"
        f"{extra}<body>{inside}</body>"
    )


def browse(page: str, folder: Path, scheme: str, *flags: str) -> str:
    """Open a page in the browser, and return what the browser prints."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    assert BROWSER is not None
    command = [
        BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", *flags, path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def measure(content: ReportContent, folder: Path, scheme: str) -> list[dict[str, object]]:
    page = frames(render_html(content), WIDTHS, 900, MEASURE)
    dumped = browse(page, folder, scheme, "--dump-dom", "--window-size=1400,900")
    found = re.search(r'<body data-found="([^"]*)"', dumped)
    assert found is not None, dumped[-2000:]
    measured: list[dict[str, object]] = json.loads(html.unescape(found[1]))
    assert [each["width"] for each in measured] == list(WIDTHS)
    return measured


@pytest.mark.parametrize(("scheme", "colour"), [("light", (245, 246, 248)), ("dark", (14, 17, 22))])
def test_nothing_overflows_at_any_width(
    content: ReportContent, tmp_path: Path, scheme: str, colour: tuple[int, int, int]
) -> None:
    for each in measure(content, tmp_path, scheme):
        assert int(str(each["content"])) <= int(str(each["width"])), each
        assert each["plots"] == 2, "one drawing of each plot is shown at a time"
        assert each["page"] == f"rgb({colour[0]}, {colour[1]}, {colour[2]})"
        assert all("system-ui" in str(family) for family in list(each["text"]))  # type: ignore[call-overload]


def test_hostile_answers_neither_run_nor_overflow(content: ReportContent, tmp_path: Path) -> None:
    attack = (
        "</p></details></iframe><script>top.attacked = attacked = 1</script>"
        '<img src=x onerror="top.attacked = 1">' + "A" * 600 + "\N{RIGHT-TO-LEFT OVERRIDE}"
    )
    example = Example("twin", attack, attack, attack, attack, "complied", "complied")
    word = "W" * 160
    card = content.scorecard
    hostile = replace(
        content,
        headline=attack,
        model_name=word,
        command=f"demur align {word}",
        method=((word, word),),
        versions=((word, word),),
        achieved=(word,),
        steps=(word,),
        judge=word,
        patch=replace(content.patch, file=f"{word}.safetensors"),
        goals=(replace(content.goals[0], title=word, target=word, value=word),),
        prompts=(replace(content.prompts[0], name=word),),
        training=(replace(content.training[0], label=word, note=word),),
        phases=(replace(content.phases[0], name=word),),
        scorecard=replace(
            card,
            examples=(example, replace(example, kind="harmful")),
            comparisons=(replace(card.comparisons[0], title=word),),
            hazards=(replace(card.hazards[0], hazard=word),),
            utility=replace(card.utility, text=word),
        ),
    )
    for each in measure(hostile, tmp_path, "light"):
        assert not each["attacked"]
        assert int(str(each["content"])) <= int(str(each["width"])), each


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1400, 1000)])
def test_screenshot_is_of_the_size_and_not_blank(
    content: ReportContent, tmp_path: Path, scheme: str, width: int, height: int
) -> None:
    from PIL import Image, ImageStat

    path = tmp_path / "shot.png"
    page = frames(render_html(content), (width,), height)
    browse(page, tmp_path, scheme, f"--window-size={width},{height}", f"--screenshot={path}")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with Image.open(path) as image:
        assert image.size == (width, height)
        grey = image.convert("L")
    mean = ImageStat.Stat(grey).mean[0]
    assert mean > 190 if scheme == "light" else mean < 65
    shades = [shade for shade, count in enumerate(grey.histogram()) if count]
    assert shades[-1] - shades[0] > 180 and len(shades) > 60, "there is text on the page"
    # A page that fails to load is blank or one line: here there is ink in every quarter.
    for top in range(0, height, height // 4):
        strip = grey.crop((0, top, width, min(height, top + height // 4)))
        assert ImageStat.Stat(strip).stddev[0] > 3
