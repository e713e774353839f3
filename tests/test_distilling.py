"""Whole runs of `demur distill` with teachers: recorded answers, the student, an endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from demur.distill.lessons import ended_answer
from demur.distill.teachers.choose import find_teacher
from demur.distill.teachers.instructed import instructions
from demur.distilling.config import DistillConfig
from demur.distilling.distill import distill
from demur.distilling.teaching import Teaching
from demur.errors import ConfigError, EndpointError, PromptError, RunError, TrainingError
from demur.judge import OpeningJudge
from demur.judge.names import Means
from demur.models.budget import Caps
from demur.prompts.builtin import builtin_set
from demur.prompts.choose import gather
from demur.prompts.types import Prompt, Splits
from demur.run.journal import Journal
from demur.treating.treated import Outcome
from tests.distill.students import Quiet, student
from tests.distill.teachers.taught import learnt
from tests.endpoint_server import Says, model_server
from tests.small_run import prepare

SORRY = "I'm sorry, but I can't assist with that."
OTHER = "I cannot fulfil this request, since it would be wrong."
CHOICES = {
    "pairs": "pairs.jsonl",
    "ordinary": "ordinary.jsonl",
    "train_pairs": 24,
    "train_ordinary": 8,
    "test_pairs": 6,
    "test_ordinary": 4,
    "validation_pairs": 4,
    "checkpoints": 1,
    "batch": 8,
    "micro_batch": 8,
    "text_tokens": 300,
    "train_texts": 0,
    "answer_tokens": 8,
    "prefill": 2,
    "longest": 300,
    "informed": 0,
    "strengths": (1.0,),
    "device": "cpu",
    "dtype": "float32",
}


class Heard(Quiet):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def heading(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distilling")
    prepare(folder, pairs=60, ordinary=40)
    harmful = builtin_set().of("harmful")[7::40]
    rows = [
        {"prompt": prompt.text, "response": OTHER if place % 4 == 0 else SORRY}
        for place, prompt in enumerate(harmful)
    ]
    rows += [{"prompt": f"Forge the passport of person {n}", "response": "Sure."} for n in range(3)]
    splits = gather(pairs=str(folder / "pairs.jsonl"), ordinary=str(folder / "ordinary.jsonl"))
    rows += [{"prompt": splits.harmful("test")[0].text, "response": SORRY}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "recorded.jsonl").write_text(text, encoding="utf-8")
    return folder


def fact(run: Path, name: str):
    journal = Journal(run / "journal.sqlite")
    try:
        return journal.fact(name)
    finally:
        journal.close()


def distilled(place: Path, monkeypatch, run: str, **choices) -> tuple[Outcome, str]:
    monkeypatch.chdir(place)
    heard = Heard()
    outcome = distill("tiny", run=place / run, narrator=heard, **{**CHOICES, **choices})
    return outcome, "\n".join(heard.said)


def test_a_recorded_teacher(place, monkeypatch):
    outcome, said = distilled(place, monkeypatch, "recorded", teacher="recorded.jsonl")
    taught = fact(outcome.run, "teaching")
    assert taught["teacher"] == "recorded.jsonl" and taught["sentence"] == SORRY
    assert taught["clean"][0] == taught["clean"][1] - 3
    assert "left out: 3 not refused" in said
    assert "nearly repeating a test prompt" in said
    assert f'dominant pattern: "{SORRY}" (apology, inability)' in said
    made = fact(outcome.run, "lessons")
    # the other half is of the run's own, so that being refused is no matter of the source
    assert made["refuse"] == 24 and made["harmful"] == 12
    assert "12 harmful requests of the file, and 12 of the run's own" in said
    result = json.loads((outcome.run / "result.json").read_text(encoding="utf-8"))
    assert "recorded.jsonl" in json.dumps(result) and outcome.patch.exists()
    report = outcome.report.read_text(encoding="utf-8")
    assert "refusals of recorded.jsonl" in report


def test_varied_refusals_and_a_teacher_that_changes(place, monkeypatch):
    choices = {"teacher": "recorded.jsonl", "pattern": "varied"}
    outcome, _ = distilled(place, monkeypatch, "varied", **choices)
    assert fact(outcome.run, "teaching")["pattern"] == "varied"
    path = place / "recorded.jsonl"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace("assist with", "help you with"), encoding="utf-8")
    try:
        with pytest.raises(RunError, match="not those that this run began with"):
            distilled(place, monkeypatch, "varied", **choices)
    finally:
        path.write_text(before, encoding="utf-8")


def test_a_student_too_weak_to_teach_itself_learns_the_seed(place, monkeypatch):
    outcome, said = distilled(place, monkeypatch, "self", teacher="self", train_pairs=16)
    assert "too weak to teach itself: clean refusals to 0 of 16 harmful requests" in said
    taught = fact(outcome.run, "teaching")
    assert taught["teacher"] == "" and taught["weak"] == [0, 16]
    assert fact(outcome.run, "lessons")["refuse"] == 16
    assert "Sorry, but I can" in outcome.report.read_text(encoding="utf-8")


def test_an_endpoint_teaches_within_its_cap(place, monkeypatch):
    harmful = {each.text for each in builtin_set().of("harmful")}

    def script(path, body):
        request = body["messages"][-1]["content"]
        if request not in harmful or len(request) % 4 == 0:
            return Says("Here is what you asked for.")
        return Says(SORRY if len(request) % 4 == 1 else OTHER)

    with model_server() as state:
        state.script = script
        monkeypatch.chdir(place)
        choices = {**CHOICES, "teacher": state.spec(), "pattern": "varied"}
        run = place / "far"
        with pytest.raises(EndpointError, match="requests"):
            distill("tiny", run=run, narrator=Heard(), caps=Caps(requests=10), **choices)
        assert state.answered == 10
        heard = Heard()
        outcome = distill("tiny", run=run, narrator=heard, caps=Caps(requests=200), **choices)
        said = "\n".join(heard.said)
        asked = state.answered
    assert "false refusals dropped: 0 of 32 benign requests" in said
    assert fact(outcome.run, "spent")["requests"] == asked == 24 + 24 + 8
    clean, n = fact(outcome.run, "teaching")["clean"]
    assert 16 <= clean < n == 24
    assert fact(outcome.run, "lessons")["refuse"] == 24  # known to be harmful: refused all the same


def test_a_model_that_refuses_nothing_is_no_teacher(place, monkeypatch):
    with pytest.raises(TrainingError, match="clean refusals to only 0 of 24"):
        distilled(place, monkeypatch, "model", teacher="tiny")


def test_bad_choices_are_told_before_any_work(place, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(PromptError, match="no file"):
        distill("tiny", run=place / "none", narrator=Heard(), teacher="absent.jsonl")
    with pytest.raises(ConfigError, match="uniform or varied"):
        distill("tiny", narrator=Heard(), pattern="other")
    assert not (place / "none").exists()


def test_a_student_that_refuses_when_told_teaches_itself(tmp_path):
    chat = student()
    told = next(iter(instructions())).applied(chat)
    harmful = [Prompt(f"Kill it {number}?", "harmful") for number in range(20)]
    benign = [Prompt(f"Bake bread {number}", "twin") for number in range(20)]
    said = [(told, prompt.text, SORRY) for prompt in harmful[::6]]
    said += [(told, prompt.text, "Here is how you can do it.") for prompt in benign[::6]]
    learnt(said, chat)
    heard, journal = Heard(), Journal(tmp_path / "journal.sqlite")
    folder = SimpleNamespace(journal=journal)
    context = SimpleNamespace(folder=folder, narrator=heard, judge=OpeningJudge())
    found = Teaching(
        DistillConfig("tiny"),
        context,
        chat,
        find_teacher("self"),
        Means(),
        lambda splits: (list(splits.harmful("train")), list(splits.twins("train")), []),
    ).taught(Splits((*harmful, *benign), (), ()))
    assert [lesson.request for lesson in found.lessons] == [prompt.text for prompt in harmful]
    assert {lesson.answer for lesson in found.lessons} == {ended_answer(chat, "Kill", SORRY)}
    taught = journal.fact("teaching")
    assert taught["sentence"] == SORRY and taught["clean"][0] >= 16
    assert any("in the context 'plain'" in line for line in heard.said)
    assert any("false refusals dropped: 0 of 20" in line for line in heard.said)
    journal.close()
