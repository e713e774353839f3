"""Whole runs of `demur distill` with teachers: recorded answers, the student, an endpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demur.distilling.distill import distill
from demur.errors import ConfigError, EndpointError, PromptError, RunError, TrainingError
from demur.models.budget import Caps
from demur.prompts.builtin import builtin_set
from demur.prompts.choose import gather
from demur.run.journal import Journal
from demur.treating.pipeline import Outcome
from tests.distill.students import Quiet
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
    "answer_tokens": 4,
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
    assert made["refuse"] == 24 and made["harmful"] == 0
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
        return Says(SORRY if request in harmful else "Here is what you asked for.")

    with model_server() as state:
        state.script = script
        monkeypatch.chdir(place)
        choices = {**CHOICES, "teacher": state.spec()}
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
    assert fact(outcome.run, "teaching")["clean"] == [24, 24]


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
