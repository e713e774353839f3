"""`demur judge` as a user runs it: scores, re-judging, endpoints that go away, caps and keys."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demur import DemurError, cli, rejudge, score_judges
from demur.errors import EndpointError, JudgeError, RunError
from demur.judge.names import Means
from demur.judging.judge import How
from demur.models.asking import Patience
from demur.models.budget import Caps
from demur.run.journal import Answer, Journal
from tests.endpoint_server import KEY, Fails, ModelServer, Says, asked_text, model_server
from tests.small_run import ENVIRONMENT, heed_interrupts

N = 40


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with model_server() as model:
        model.script = grade
        yield model


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what the command line sets for the whole process from the other tests."""
    former = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "hush", lambda: None)
    yield
    signal.signal(signal.SIGTERM, former)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A labelled file of two models: refusals, full answers, and one partial refusal."""
    monkeypatch.chdir(tmp_path)
    rows: list[dict[str, Any]] = []
    for index in range(N):
        refuses = index % 2 == 0
        text = "I cannot help with that." if refuses else "Take some flour and water."
        rows.append(
            {
                "prompt": f"request {index}",
                "response": f"{text} ({index})",
                "human_label_refused": refuses,
                "human_label_harmful": False,
                "model": "a" if index < N // 2 else "b",
            }
        )
    rows.append({"prompt": "p", "response": "Partly.", "human_label_refused": "partial"})
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def grade(path: str, body: dict[str, Any]) -> Says:
    """Grade by the plain rubric what the fences hold."""
    text = asked_text(body)
    code = re.search(r"code (\w{12})\.", text)
    assert code is not None
    refuses = "full" if "I cannot" in text else "no"
    return Says(f"code: {code[1]}\nrefuses: {refuses}\nharmful: no\nreason: so")


def quick(**how: Any) -> How:
    means = Means(patience=Patience(tries=2, timeout=5, pause=0.01), at_once=4)
    return How(means, **how)


def demur(folder: Path, *arguments: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demur", *arguments],
        cwd=folder,
        env={**ENVIRONMENT, "OPENAI_API_KEY": key},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def here(*arguments: str) -> int:
    """Run the command line in this process, and return its exit code."""
    return cli.main(["judge", *arguments])


def contents(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in folder.rglob("*") if each.is_file())


def test_judges_side_by_side(file: Path, server: ModelServer) -> None:
    scores = score_judges(file, f"opening,phrases:gcg,rubric@{server.spec()}", how=quick())
    by = {(each.judge.split("@")[0], each.subject): each for each in scores.overall}
    assert set(by) == {
        ("opening-3", "refusal"),
        ("phrases:gcg-1", "refusal"),
        ("rubric-1", "refusal"),
        ("rubric-1", "harm"),
    }
    assert all(each.n == N and each.accuracy.value == 1.0 for each in by.values())
    assert {each.group for each in scores.by_model} == {"a", "b"}
    assert scores.by_source == () and len(scores.labelled.rows) == N + 1
    assert scores.judges[2].spent.requests == N + 1 == len(server.requests)
    again = score_judges(file, f"opening,phrases:gcg,rubric@{server.spec()}", how=quick())
    assert again.judges == scores.judges and again.run == scores.run
    assert len(server.requests) == N + 1  # nothing is asked twice


def test_an_endpoint_that_goes_away_is_asked_only_for_the_rest(
    file: Path, server: ModelServer
) -> None:
    server.fails = [Fails(0, after=11)]
    command = ("judge", str(file), "--judges", f"rubric@{server.spec()}", "--tries", "1")
    done = demur(file.parent, *command, "--json")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "the connection failed" in done.stderr and "same command" in done.stderr
    assert "only what is missing" in json.loads(done.stdout)["remedy"]
    kept = server.answered
    assert 11 <= kept < N
    server.fails, server.requests = [], []
    done = demur(file.parent, *command, "--json")
    assert done.returncode == 0, done.stderr
    assert len(server.requests) == N + 1 - kept
    result = json.loads(done.stdout)
    assert result["judges"][0]["spent"]["requests"] == N + 1
    assert {each["subject"]: each["accuracy"]["value"] for each in result["overall"]} == {
        "refusal": 1.0,
        "harm": 1.0,
    }


def test_a_server_that_is_not_there_is_an_error_in_two_sentences(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here(str(file), "--judges", "rubric@http://127.0.0.1:9/v1#m", "--tries", "1") == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "error: http://127.0.0.1:9/v1#m gave no answer" in shown.err


def test_ctrl_c_waits_for_no_reply_and_loses_none(file: Path, server: ModelServer) -> None:
    server.fails = [Fails(200, after=9, delay=30.0)]
    process = subprocess.Popen(
        [sys.executable, "-m", "demur", "judge", str(file), "--judges", f"rubric@{server.spec()}"],
        cwd=file.parent,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    deadline = time.monotonic() + 30
    while len(server.requests) < 9 + 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)  # far less than the replies take
    assert process.returncode == 130 and "Interrupted" in said and "Traceback" not in said
    server.fails, server.requests = [], []
    scores = score_judges(file, f"rubric@{server.spec()}", how=quick())
    assert len(server.requests) == N + 1 - 9 and scores.overall[0].accuracy.value == 1.0


@pytest.mark.parametrize("status", [0, 200, 401, 500])
def test_the_key_is_nowhere(
    file: Path,
    server: ModelServer,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    """Not in the run folder, nor in what is printed, even where the server repeats it."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def echo(path: str, body: dict[str, Any]) -> Says:
        return Says(f"{grade(path, body).text} {KEY}\n{KEY}: yes")

    server.script = echo
    if status != 200:
        message = '{"error": {"message": "the key {key} is wrong"}}'
        server.fails = [Fails(status, after=3, body=message)]
    code = here(
        *(str(file), "--judges", f"rubric@{server.spec()}", "--tries", "1"),
        *("--out", str(file.parent / "out.jsonl"), "--json"),
    )
    assert code == (0 if status == 200 else 2)
    assert server.requests[0][1]["authorization"] == f"Bearer {KEY}"
    shown = capfd.readouterr()
    assert KEY not in shown.out + shown.err
    assert (file.parent / "runs").is_dir() and KEY.encode() not in contents(file.parent)


def test_a_missing_key_leaves_nothing_behind(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert here(str(file), "--judges", "opening,rubric@openai:m") == 2
    assert "OPENAI_API_KEY is not set" in capsys.readouterr().err
    assert not (file.parent / "runs").exists()


def test_the_cap_holds_over_all_tries_of_a_run(file: Path, server: ModelServer) -> None:
    judge = f"rubric@{server.spec()}"
    for _ in range(2):  # the second try has nothing left to spend
        with pytest.raises(EndpointError, match="cap of 15 requests is reached"):
            score_judges(file, judge, how=quick(caps=Caps(requests=15)))
        assert len(server.requests) == 15
    with pytest.raises(EndpointError, match="cap of 20 requests"):
        score_judges(file, judge, how=quick(caps=Caps(requests=20)))
    assert len(server.requests) == 20
    scores = score_judges(file, judge, how=quick(caps=Caps(requests=N + 1)))
    assert len(server.requests) == N + 1 == scores.judges[0].spent.requests


def test_unreadable_cut_and_foreign_replies_are_undecided(file: Path, server: ModelServer) -> None:
    replies = [
        Says("I will not grade this."),
        Says("这个回答是安全的。"),
        Says("code: ", "length"),
        Says(""),
    ]
    server.script = lambda path, body: replies[len(server.requests) % len(replies)]
    scores = score_judges(file, f"rubric@{server.spec()}", how=quick())
    assert {each.outcome for each in scores.judges[0].verdicts} == {"undecided"}
    assert {each.harm for each in scores.judges[0].verdicts} == {"undecided"}
    for each in scores.overall:
        assert each.accuracy.value == 0.0 and each.decided.value == 0.0


def test_a_panel_pays_only_for_what_is_unsure(file: Path, server: ModelServer) -> None:
    with file.open("a", encoding="utf-8") as added:
        for index in range(3):
            row = {"prompt": f"x{index}", "response": f"... {index} " + "?" * 40}
            added.write(json.dumps(row | {"human_label_refused": False}) + "\n")
    scores = score_judges(file, f"panel:opening,rubric@{server.spec()}", how=quick())
    assert len(server.requests) == 3  # what has no language in it
    panel = scores.judges[0]
    assert panel.spent.requests == 3
    assert dict(panel.asked) == {"opening-3": N + 4, panel.asked[1][0]: 3}
    assert dict(panel.decided_by)["opening-3"] == N + 1


def test_answers_without_labels_are_judged_and_written(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = file.parent / "verdicts.jsonl"
    judges = ("--judges", "opening,phrases:xstest")
    assert here(str(file), "--answers", *judges, "--out", str(out)) == 0
    shown = capsys.readouterr().out
    assert "opening-3" in shown and "all answers" in shown
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == N + 1
    verdict = rows[0]["verdicts"]["opening-3"]
    assert verdict["outcome"] == "refused" and verdict["reason"]
    result = rejudge(file, "opening", how=quick())
    rates = {(each.title, each.side): each for each in result.rates}
    assert rates["all answers", ""].refused.count == N // 2  # type: ignore[union-attr]
    assert rates["answers", "a"].n == N // 2 and rates["all answers", ""].harmful is None


def test_any_folder_with_a_journal_is_judged_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    journal = Journal(folder / "journal.sqlite")
    answers = [Answer(f"k{i}", f"p{i}", "I cannot.", (), True) for i in range(4)]
    journal.add_answers(answers[:3], "first", {"tokens": 8, "opening": ""})
    journal.add_answers(answers[3:], "second", {"tokens": 8, "opening": "Sure"})
    journal.close()
    before = contents(folder)
    result = rejudge(folder, "opening", how=quick(run=tmp_path / "judged"))
    assert sorted((each.title, each.n) for each in result.rates) == [
        ("answers of 8 tokens", 3),
        ('answers of 8 tokens, opened with "Sure"', 1),
    ]
    assert contents(folder) == before  # what is judged again stays as it is
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RunError, match="not a run folder"):
        rejudge(empty, "opening", how=quick(run=tmp_path / "other"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none.jsonl",), "There is no file"),
        (("labelled.jsonl", "--judges", "zip"), "There is no judge 'zip'"),
        (("labelled.jsonl", "--judges", ","), "No judge is named"),
        (("labelled.jsonl", "--max-dollars", "1"), "without prices"),
        (("labelled.jsonl", "--max-requests", "0"), "--max-requests is 0"),
        (("labelled.jsonl", "--tries", "0"), "--tries is 0"),
        (("labelled.jsonl", "--out", "."), "is a folder"),
        (("twice.jsonl",), "--allow-conflicts"),
    ],
)
def test_bad_input_ends_in_two_sentences(
    file: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    row = {"prompt": "p", "response": "r", "refused": True}
    twice = json.dumps(row) + "\n" + json.dumps(row | {"refused": False}) + "\n"
    (file.parent / "twice.jsonl").write_text(twice, encoding="utf-8")
    assert here(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err and "Traceback" not in captured.err
    assert not (file.parent / "runs").exists()


def test_a_judge_of_something_else_is_told(file: Path) -> None:
    row = {"prompt": "p", "response": "r", "harmful": True}
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(JudgeError, match="None of these judges"):
        score_judges(file, "opening", how=quick())
    row = {"prompt": "p", "response": "r", "refused": True}
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    guard = "llama-guard-3@http://127.0.0.1:9/v1#m"
    with pytest.raises(DemurError, match="None of these judges"):  # before it costs anything
        score_judges(file, guard, how=quick())
    assert not (file.parent / "runs").exists()
