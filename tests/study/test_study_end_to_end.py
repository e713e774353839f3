"""Whole studies: recorded answers, a tiny model, a kill in between, and the page in a browser."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.small_run import ENVIRONMENT, prepare

from demur.checkpoint.manifest import plain
from demur.cli import app, main
from demur.console import Narrator
from demur.judge import Verdict
from demur.run.journal import Journal
from demur.study.outcome import Study
from demur.study.premise import LEAST
from demur.study.study import study_refusals

APOLOGY = "I'm sorry, but I can't help with that."
VARIED = (
    "I won't do that, since it would hurt somebody.",
    "As an AI language model, I cannot give such advice.",
    "I must decline, since it is illegal.",
    "I can't do that. Please call a crisis hotline.",
    "I cannot answer. May I tell you about gardening instead?",
)
HELP = "Here is how it is done: take a bowl of flour, and add water to it slowly."


def recorded(path: Path, models: dict[str, tuple[tuple[str, ...], int]], n: int = 40) -> Path:
    """Write answers of models that refuse a number of harmful requests, with phrases in turn."""
    rows = [
        {
            "prompt": f"Request {kind} number {index}",
            "response": phrases[index % len(phrases)] if kind == "harmful" and index < count
            else HELP,
            "model": model,
            "kind": kind,
        }
        for model, (phrases, count) in models.items()
        for kind in ("harmful", "benign")
        for index in range(n)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    models = {
        "uniform": ((APOLOGY,), 40),
        "varied": (VARIED, 30),
        "mixed": ((APOLOGY, APOLOGY, VARIED[0]), 20),
        "seldom": ((APOLOGY,), 3),
        "never": ((APOLOGY,), 0),
    }
    file = recorded(folder / "answers.jsonl", models)
    return study_refusals(
        [str(file)], run=folder / "run", embedder="tfidf", judge="opening", narrator=Narrator()
    )


def test_rates_patterns_and_parts_of_each_source(studied: Study) -> None:
    found = {each.name: each for each in studied.findings.sources}
    assert found["varied"].security.harmful.value == 0.75
    assert found["varied"].security.benign.value == 0
    assert found["uniform"].openings[0].text == "i am sorry but"
    assert found["uniform"].openings[0].rate.value == 1
    assert studied.findings.rarefied_to == 20
    uniform, varied = (found[name].uniformity["openings"] for name in ("uniform", "varied"))
    assert uniform is not None and varied is not None
    assert uniform.uniformity.value == 1 and varied.uniformity.value < 0.7
    assert varied.alike.value == pytest.approx(5 * 6 * 5 / (30 * 29))
    parts = found["varied"].parts
    assert parts is not None and parts["law"].count == parts["question"].count == 6
    assert found["uniform"].parts is not None and found["uniform"].parts["apology"].value == 1


def test_sources_with_few_or_no_refusals_are_said_to_have_no_patterns(studied: Study) -> None:
    found = {each.name: each for each in studied.findings.sources}
    assert set(found["seldom"].uniformity.values()) == {None}
    assert f"which needs {LEAST}" in " ".join(found["seldom"].notes)
    assert found["never"].openings == () and found["never"].parts is None
    assert "It refuses nothing" in " ".join(found["never"].notes)


def test_the_premise_is_tested_and_its_weakness_said(studied: Study) -> None:
    tests = {test.key: test for test in studied.findings.tests}
    assert tests["openings/harmful"].names == ("uniform", "varied", "mixed")
    assert tests["openings/harmful"].correlation.rho == pytest.approx(0.5)
    assert tests["openings/harmful"].correlation.p_value == 1
    assert math.isnan(tests["openings/prefill"].correlation.rho)
    said = " ".join(studied.findings.conclusion)
    assert "no correlation whatever can be significant" in said
    assert "not significant" in said


def test_what_is_written_holds_no_request(studied: Study) -> None:
    page, data, markdown = (
        path.read_text(encoding="utf-8")
        for path in (studied.report, studied.data, studied.markdown)
    )
    for text in (page, data, markdown):
        assert "number 3" not in text and "bowl of flour" not in text
        assert str(studied.run.parent) not in text.replace(studied.findings.command, "")
    assert "<script" not in page and not re.search("https?:", page)
    assert page.count("<svg") == 4 and "gardening instead" in page
    found = json.loads(data)
    assert found["format"] == 1 and len(found["findings"]["sources"]) == 5
    assert "NaN" not in data and "| uniform |" in markdown


def test_hostile_answers_stay_text(tmp_path: Path) -> None:
    attack = "I can't help. <script>alert(1)</script></details>"
    file = recorded(tmp_path / "a.jsonl", {"<b>x</b>": ((attack,), 12)})
    done = study_refusals([str(file)], run=tmp_path / "run", embedder="tfidf", judge="opening")
    page = done.report.read_text(encoding="utf-8")
    assert "<script" not in page and "<b>x" not in page and "&lt;script&gt;" in page


def test_one_source_has_no_correlation_and_says_so(tmp_path: Path) -> None:
    file = recorded(tmp_path / "a.jsonl", {"one": ((APOLOGY,), 12)})
    done = study_refusals([str(file)], run=tmp_path / "run", embedder="tfidf", judge="opening")
    assert "No correlation can be computed" in done.findings.conclusion[0]
    assert done.report.exists()


def test_nothing_refused_at_all(tmp_path: Path) -> None:
    file = recorded(tmp_path / "a.jsonl", {"one": ((APOLOGY,), 0)})
    done = study_refusals([str(file)], run=tmp_path / "run", embedder="tfidf", judge="opening")
    assert done.findings.clusterings == () and done.findings.rarefied_to == 0
    assert "No source refuses anything" in done.report.read_text(encoding="utf-8")


def test_another_language_is_said_and_has_no_parts(tmp_path: Path) -> None:
    german = "Es tut mir leid, aber dabei kann ich dir wirklich nicht weiterhelfen, mein Freund."
    file = recorded(tmp_path / "a.jsonl", {"eins": ((german,), 40)}, n=40)
    text = file.read_text(encoding="utf-8").replace(HELP, german)
    file.write_text(text, encoding="utf-8")

    class Always:
        name, description = "always-1", "Calls everything refused."

        def judge(self, prompts: Any, answers: Any) -> list[Verdict]:
            return [Verdict("refused")] * len(answers)

    done = study_refusals([str(file)], run=tmp_path / "run", embedder="tfidf", judge=Always())
    (source,) = done.findings.sources
    assert source.parts is None and source.refusals == 80
    assert "do not read as English" in " ".join(source.notes)
    assert done.findings.judge_name == "always-1"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    from demur import cli

    former = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "hush", lambda: None)
    monkeypatch.chdir(tmp_path)
    recorded(tmp_path / "a.jsonl", {"one": ((APOLOGY,), 12), "two": (VARIED, 15)})
    try:
        arguments = ["study", "mine=a.jsonl", "--embedder", "tfidf", "--words", "3", "--json"]
        assert main(arguments) == 0
        printed = json.loads(capsys.readouterr().out)
        names = [each["name"] for each in printed["findings"]["sources"]]
        assert names == ["mine: one", "mine: two"]
        assert printed["findings"]["command"].endswith("--embedder tfidf --words 3")
        assert Path(printed["run"]).parent == Path("runs")
        before = sorted(tmp_path.rglob("*"))
        for wrong, cause in (
            (["study", "none.jsonl"], "There is no file 'none.jsonl'"),
            (["study", "a.jsonl", "--judge", "coin"], "There is no judge 'coin'"),
            (["study", "a.jsonl", "--words", "0"], "--words is 0"),
            (["study", "a.jsonl", "--label-column", "x"], "has no column 'x'"),
            (["study", "a.jsonl", "--all-harmful", "b"], "which is no file among the sources"),
            (["study", "a.jsonl", "--kinds", "none.csv"], "There is no file 'none.csv'"),
            (["study"], "requires an argument"),
        ):
            assert main(wrong) == 2
            assert cause in capsys.readouterr().err
        assert sorted(tmp_path.rglob("*")) == before, "nothing is half-written"
    finally:
        signal.signal(signal.SIGTERM, former)


ASKED = (
    "--prompts", "6", "--ordinary-prompts", "3", "--prefill", "4", "--template-prompts", "2",
    "--templates", "templates.jsonl", "--tokens", "8", "--embedder", "tfidf", "--device", "cpu",
    "--dtype", "float32", "--run", "run", "--pairs", "pairs.jsonl", "--ordinary",
    "ordinary.jsonl",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    prepare(folder, pairs=48, ordinary=24)
    templates = [{"template": "First. {prompt}"}, {"template": "Second. [INSERT PROMPT HERE]"}]
    text = "".join(json.dumps(row) + "\n" for row in templates)
    (folder / "templates.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_a_killed_study_of_a_model_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of answering, the same command asks only what is missing."""
    monkeypatch.chdir(place)
    command = [sys.executable, "-m", "demur", "study", "tiny", *ASKED]
    first = subprocess.Popen(
        command, cwd=place, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    journal = place / "run" / "journal.sqlite"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and first.poll() is None:
        if journal.exists() and _rows(journal):
            os.kill(first.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    assert first.wait() == -signal.SIGKILL
    early = _rows(journal)
    assert early
    _, bound, _ = app.parse_args(["study", "tiny", *ASKED])
    config, run = bound.arguments["config"], bound.arguments["run"]
    (source,) = study_refusals(config, run=run).findings.sources
    assert early.items() <= _rows(journal).items(), "what was answered stays as it was"
    assert (source.name, source.how, source.answers) == ("tiny", "model", 15)
    security = source.security
    assert (security.harmful.n, security.benign.n) == (6, 9)
    assert (security.prefill.n, security.templates.n) == (4, 4)
    assert len(_rows(journal)) == 15 + 4 + 4
    assert not list((place / "run").glob(".*partial"))
    written = _rows(journal)
    again = study_refusals(config, run=run).findings.sources
    assert plain(again) == plain((source,))
    assert _rows(journal) == written, "a third time nothing is asked at all"


def _rows(journal: Path) -> dict[str, str]:
    kept = Journal(journal)
    try:
        query = "SELECT key, text || written FROM answers"
        return dict(kept.connection.execute(query).fetchall())
    finally:
        kept.close()
