"""The narrator speaks on its console and keeps every line in the log."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from rich.table import Table

from demur import console as room
from demur.console import Narrator, is_interactive


@pytest.fixture
def narrator():
    return Narrator(Console(file=io.StringIO(), width=80, soft_wrap=True, highlight=False))


def shown(narrator: Narrator) -> str:
    return narrator.console.file.getvalue()


def test_it_speaks_on_standard_error(capsys):
    Narrator().say("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "hello\n"


def test_brackets_in_a_text_are_not_markup(narrator, tmp_path):
    narrator.log_to(tmp_path / "run.log")
    narrator.say("kept [a] and [/b] and [bold]c")
    narrator.heading("Measuring [x]")
    assert "kept [a] and [/b] and [bold]c\n" in shown(narrator)
    assert "Measuring [x]\n" in shown(narrator)
    log = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "[/b] and [bold]c" in log
    assert "== Measuring [x]" in log


def test_the_log_holds_what_was_said_before_it_was_opened(narrator, tmp_path):
    narrator.say("früh")
    narrator.log_to(tmp_path / "run.log")
    narrator.log_only("secretly")
    lines = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()
    assert [line[20:] for line in lines] == ["früh", "secretly"]
    assert "secretly" not in shown(narrator)


def test_a_table_is_in_the_log_too(narrator, tmp_path):
    narrator.log_to(tmp_path / "run.log")
    table = Table("prompts", "refused")
    table.add_row("harmful", "93 %")
    narrator.table(table)
    assert "harmful" in shown(narrator)
    log = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "harmful" in log
    assert "93 %" in log
    assert "\x1b" not in log


def test_progress_says_the_end_and_lines_in_between(narrator, monkeypatch):
    monkeypatch.setattr(room, "SECONDS_BETWEEN_LINES", -1.0)
    with narrator.progress("steps", 3) as advance:
        for _ in range(3):
            advance(1)
    lines = shown(narrator).splitlines()
    assert [line.strip().split(",")[0] for line in lines[:2]] == ["steps: 1 of 3", "steps: 2 of 3"]
    assert lines[2].startswith("  steps: 3 in ")
    assert len(lines) == 3


def test_progress_without_work_is_silent(narrator):
    with narrator.progress("nothing", 0) as advance:
        advance(0)
    assert shown(narrator) == ""


def test_progress_on_a_terminal():
    narrator = Narrator(
        Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    )
    with narrator.progress("steps", 2) as advance:
        advance(2)
    assert "2/2" in shown(narrator)
    assert "steps: 2 in" in shown(narrator)


def test_progress_lets_errors_through_and_claims_nothing(narrator):
    with pytest.raises(ValueError), narrator.progress("steps", 2):
        raise ValueError("stop")
    assert "steps: 2 in" not in shown(narrator)


def test_questions_need_a_person_at_both_ends(monkeypatch):
    for stdin in (True, False):
        for stdout in (True, False):
            monkeypatch.setattr(sys.stdin, "isatty", lambda value=stdin: value, raising=False)
            monkeypatch.setattr(sys.stdout, "isatty", lambda value=stdout: value, raising=False)
            assert is_interactive() == (stdin and stdout)
