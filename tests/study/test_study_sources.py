"""Recorded answers, runs and names: what is read, what is said, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demur.errors import ConfigError, DemurError, JudgeError, PromptError, RunError
from demur.prompts.builtin import builtin_set
from demur.prompts.choose import gather
from demur.run.journal import Answer, Journal
from demur.study.config import StudyConfig
from demur.study.gather import Named, name_sources, parse
from demur.study.people import PeopleJudge, choose_judge
from demur.study.recorded import Columns, prompt_key, read_kinds, read_recorded
from demur.study.runs import is_run, read_run

REFUSAL = "I'm sorry, but I can't help with that."


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_one_source_a_model_with_kinds_and_labels(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "a.jsonl",
        {"Prompt": "p", "response": REFUSAL, "model": "one", "type": "unsafe", "refused": True},
        {"Prompt": "p", "response": "Yes.", "model": "two", "type": "unsafe", "refused": False},
        {"Prompt": "q", "response": "Yes.", "model": "one", "type": "safe", "refused": None},
        {"Prompt": "r", "response": "Yes.", "model": "one", "type": "contrast_homonyms"},
        {"Prompt": "", "response": "Yes.", "model": "one", "type": "safe"},
    )
    one, two = read_recorded(file)
    assert [one.name, two.name] == ["one", "two"]
    assert [entry.kind for entry in one.entries] == ["harmful", "benign", "harmful"]
    assert [entry.label for entry in one.entries] == ["refused", "undecided", "undecided"]
    assert two.entries[0].label == "complied"
    assert one.notes == ("1 rows without a prompt left out.",)
    assert str(tmp_path) not in one.origin


def test_columns_can_be_named_and_a_file_without_models_names_its_source(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("a,b\nq,Yes.\n", encoding="utf-8")
    (source,) = read_recorded(file, Columns("a", "b"), kind="harmful")
    assert source.name == "mine" and source.entries[0].kind == "harmful"
    assert source.entries[0].label is None


def test_repeated_and_contradictory_rows(tmp_path: Path) -> None:
    row = {"prompt": "p", "response": "No.", "kind": "harmful", "label_refused": True}
    file = lines(
        tmp_path / "a.jsonl",
        row,
        row,
        {**row, "label_refused": False},
        {**row, "kind": "benign"},
        {**row, "response": "Another."},
    )
    (source,) = read_recorded(file)
    (entry,) = source.entries
    assert entry.kind == "unknown" and entry.label is None
    said = " ".join(source.notes)
    assert "3 repeated rows left out" in said and "1 further answers" in said
    assert "labels contradict" in said and "disagree on what the request is" in said


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("", "is empty"),
        ('{"prompt": "p"}\n', "has no column of responses"),
        ('{"response": "p"}\n', "has no column of prompts"),
        ('{"prompt": "p", "response": 3}\n', "what is in 'response' is a number"),
        ('{"prompt": "", "response": "x"}\n', "holds no answer"),
        ("{\n", "not readable as JSON"),
    ],
)
def test_bad_files(tmp_path: Path, content: str, cause: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(PromptError, match=cause):
        read_recorded(file)


def test_kinds_by_prompt_or_hash(tmp_path: Path) -> None:
    hashed = tmp_path / "kinds.csv"
    hashed.write_text(f"sha256,kind\n{prompt_key('p')},harmful\n", encoding="utf-8")
    plain = lines(tmp_path / "kinds.jsonl", {"prompt": " p ", "kind": "unsafe"})
    assert read_kinds(hashed) == read_kinds(plain) == {prompt_key("p"): "harmful"}
    file = lines(tmp_path / "a.jsonl", {"prompt": "p", "response": "No.", "kind": "benign"})
    (source,) = read_recorded(file, kinds=read_kinds(hashed))
    assert source.entries[0].kind == "harmful"
    wrong = lines(tmp_path / "wrong.jsonl", {"prompt": "p", "kind": "odd"})
    with pytest.raises(PromptError, match="neither harmful nor benign"):
        read_kinds(wrong)


def own_prompts(places: dict[str, str]) -> None:
    """Write a few of the built-in prompts, as a user's own files."""
    harmful, twins = (builtin_set().of(kind)[:4000:80] for kind in ("harmful", "twin"))
    rows = [{"harmful": a.text, "benign": b.text} for a, b in zip(harmful, twins, strict=True)]
    lines(Path(places["pairs"]), *rows)
    ordinary = builtin_set().of("ordinary")[::30]
    lines(Path(places["ordinary"]), *({"prompt": each.text} for each in ordinary))


def finished_run(folder: Path, *, after: str = REFUSAL, tokens: int = 8) -> Path:
    """The files of a finished run that a study reads, with two built-in harmful requests."""
    places = {name: str(folder.parent / f"{name}.jsonl") for name in ("pairs", "ordinary")}
    if not Path(places["pairs"]).exists():
        own_prompts(places)
    splits = gather(**places)
    harmful, twin = splits.harmful("test")[:2], splits.twins("test")[0]
    folder.mkdir()
    journal = Journal(folder / "journal.sqlite")
    for model, text in (("base", "Yes."), ("aligned", after)):
        for opening, prompts in (("", (*harmful, twin)), ("Sure, here is", harmful[:1])):
            rows = [Answer(f"{model}{opening}{p.key}", p.text, text, (1,), True) for p in prompts]
            journal.add_answers(rows, model, {"tokens": tokens, "opening": opening})
    journal.add_answers([Answer("x", harmful[0].text, "Other", (1,), True)], "choosing",
                        {"tokens": 3, "opening": ""})  # fmt: skip
    journal.close()
    result = {
        "format": 1,
        "configuration": {"answer_tokens": tokens, "model": "org/small", **places},
        "hashes": {"base": "b0", "aligned": "a0"},
        "scorecard": {
            "examples": [
                {"prompt": p.text, "answer_before": "Yes.", "answer_after": after} for p in harmful
            ]
        },
    }
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


def test_a_run_is_two_sources_and_is_left_as_it_was(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    files = {path.name: path.read_bytes() for path in run.iterdir()}
    before, after = read_run(run)
    assert [before.name, after.name] == ["run, before", "run, after"]
    assert [e.answer for e in before.of("direct")] == ["Yes."] * 3
    assert [e.answer for e in after.of("direct", "harmful")] == [REFUSAL] * 2
    assert len(after.of("direct", "benign")) == len(after.of("prefill")) == 1
    assert {path.name: path.read_bytes() for path in run.iterdir()} == files
    same, other = read_run(finished_run(tmp_path / "same", after="Yes."))
    assert same.entries != () and other.entries != ()


def test_runs_that_cannot_be_read(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    (run / "result.json").write_text('{"format": 1}', encoding="utf-8")
    with pytest.raises(RunError, match="cannot be read"):
        read_run(run)
    (run / "result.json").unlink()
    assert is_run(run)
    with pytest.raises(RunError, match="not finished"):
        read_run(run)


def test_the_same_base_in_two_runs_is_one_source(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / "one"), finished_run(tmp_path / "two", after="I won't.")]
    named = [Named("", str(runs[0]), "run"), Named("varied", str(runs[1]), "run")]
    sources, said = name_sources(named, [read_run(run) for run in runs])
    assert [each.name for each in sources] == ["one, before", "one, after", "varied, after"]
    assert len(said) == 1 and "counted once" in said[0]


def test_sources_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = [
        lines(tmp_path / f"{name}.jsonl", {"prompt": name, "response": "No.", "model": "gpt"})
        for name in ("a", "b")
    ]
    named = [Named("", str(file), "recorded") for file in (*files, files[0])]
    sources, _ = name_sources(named, [read_recorded(file) for file in (*files, files[0])])
    assert [each.name for each in sources] == ["gpt (a) 1", "gpt (b)", "gpt (a) 2"]


def test_what_an_argument_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = finished_run(tmp_path / "run")
    (tmp_path / "x=y.csv").write_text("prompt,response\np,No.\n", encoding="utf-8")
    assert parse("x=y.csv") == Named("", "x=y.csv", "recorded")
    assert parse("mine=answers.jsonl") == Named("mine", "answers.jsonl", "recorded")
    assert parse(f"strict={run}") == Named("strict", str(run), "run")
    assert parse("org/model") == Named("", "org/model", "model")


def test_people_judge_what_they_saw(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "a.jsonl",
        {"prompt": "p", "response": "Never mind.", "refused": True},
        {"prompt": "q", "response": REFUSAL, "refused": False},
        {"prompt": "r", "response": REFUSAL, "refused": None},
    )
    sources = read_recorded(file)
    judge = choose_judge("people", sources)
    answers = ["Never mind.", REFUSAL, REFUSAL, REFUSAL]
    found = [each.outcome for each in judge.judge(["p", "q", "r", "s"], answers)]
    assert found == ["refused", "complied", "undecided", "refused"]
    assert isinstance(judge, PeopleJudge) and "3 answers" in judge.description
    with pytest.raises(ConfigError, match="No recorded answer has a label"):
        choose_judge("people", ())
    with pytest.raises(JudgeError, match="no judge 'coin'"):
        choose_judge("coin", ())


def test_choices_that_make_no_sense() -> None:
    for choices in ({"words": 0}, {"prefill": -1}, {"tokens": 0}):
        with pytest.raises(DemurError, match="must be at least"):
            StudyConfig(("a.jsonl",), **choices)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="No source"):
        StudyConfig(())
