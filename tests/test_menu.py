"""The menu after a run: every choice, errors that it survives, and leaving it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from demur.aligning.config import AlignConfig
from demur.aligning.menu import (
    CHAT,
    CHOICES,
    QUIT,
    REPORT,
    SAVE,
    Actions,
    actions_of,
    run_menu,
    save_model_elsewhere,
)
from demur.cli.conversation import Speaker, converse
from demur.errors import CheckpointError, PromptError
from demur.treating.treated import Outcome
from tests.report.conftest import make_content
from tests.tiny import tiny_llama


class Script:
    """An asker that reads its answers from a list; an exception in the list is raised."""

    def __init__(self, *answers: str | BaseException) -> None:
        self.answers = list(answers)

    def _next(self) -> str:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def choose(self, question: str, choices: Sequence[tuple[str, str]]) -> str:
        assert choices == CHOICES
        return self._next()

    def folder(self, question: str) -> str:
        return self._next()


class Record:
    """Actions that write down that they were called."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.calls: list[str] = []
        self.trouble = trouble

    def actions(self) -> Actions:
        def note(name: str) -> Callable[[], None]:
            return lambda: self.calls.append(name)

        def save(path: Path) -> None:
            self.calls.append(f"save {path}")
            if self.trouble:
                raise self.trouble

        return Actions(note("chat"), note("report"), save)


def test_every_choice_does_its_work_until_quit() -> None:
    record, script = Record(), Script(CHAT, REPORT, SAVE, "there", SAVE, "  ", QUIT, CHAT)
    run_menu(record.actions(), script, lambda text: None)
    assert record.calls == ["chat", "report", "save there"]
    assert script.answers == [CHAT]


@pytest.mark.parametrize("leaving", [KeyboardInterrupt(), EOFError()])
def test_ctrl_c_and_the_end_of_input_leave_quietly(leaving: BaseException) -> None:
    said: list[str] = []
    for answers in ((leaving,), (SAVE, leaving)):
        run_menu(Record().actions(), Script(*answers), said.append)
    assert said == []


def test_an_error_is_said_and_the_menu_goes_on() -> None:
    said: list[str] = []
    record = Record(CheckpointError("The folder is not empty.", "Choose another."))
    run_menu(record.actions(), Script(SAVE, "there", REPORT, QUIT), said.append)
    assert said == ["The folder is not empty. Choose another."]
    assert record.calls == ["save there", "report"]


def test_saving_copies_everything_and_refuses_a_folder_in_use(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "additional").mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights" * 1000)
    (model / "additional" / "tool.jinja").write_text("template")
    target = tmp_path / "new" / "place"
    save_model_elsewhere(model, target)
    found = sorted(path.relative_to(target).as_posix() for path in target.rglob("*"))
    assert found == ["additional", "additional/tool.jinja", "model.safetensors"]
    assert (target / "model.safetensors").read_bytes() == b"weights" * 1000
    with pytest.raises(CheckpointError, match="not empty"):
        save_model_elsewhere(model, target)
    with pytest.raises(CheckpointError, match="inside the model's own folder"):
        save_model_elsewhere(model, model / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "new"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["place"]


def test_the_real_actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_llama(tmp_path / "before")
    tiny_llama(tmp_path / "after", seed=1)
    report = tmp_path / "report.html"
    aligned = Outcome(
        tmp_path, tmp_path / "after", tmp_path / "p", report, "", make_content().scorecard
    )
    console = Console(file=io.StringIO(), width=100)
    config = AlignConfig(str(tmp_path / "before"), device="cpu", dtype="float32")
    actions = actions_of(aligned, config, console)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: bool(opened.append(url)))
    lines = iter(["How do I bake bread?"])

    def read(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    actions.report()
    actions.chat()
    actions.save(tmp_path / "copy")
    assert opened == [report.as_uri()]
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "No browser was found" in text
    assert "before" in text
    assert "after" in text
    assert (tmp_path / "copy" / "model.safetensors").exists()


def test_answers_stand_side_by_side_and_stay_text() -> None:
    def fail(text: str) -> str:
        raise PromptError("Too long.", "Shorten it.")

    speakers = [
        Speaker("before", lambda text: f"[red]{text}[/red]\x1b[2J"),
        Speaker("after", lambda text: ""),
    ]
    console = Console(file=io.StringIO(), width=80)
    lines = iter(["hello", "  ", "never asked"])
    converse(speakers, console, lambda: next(lines))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]hello[/red]" in text
    assert "(an empty answer)" in text
    assert "\x1b" not in text
    assert next(lines) == "never asked"
    lines = iter(["hello", "/quit"])
    converse([Speaker("one", fail)], console, lambda: next(lines))
    assert "Too long. Shorten it." in console.file.getvalue()  # type: ignore[attr-defined]
