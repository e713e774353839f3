"""Teachers elsewhere: another model's text, an endpoint's, and telling teachers apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.distill.students import student
from tests.endpoint_server import Fails, Says, model_server
from tests.tiny import tiny_llama

from demur.distill.teachers.choose import find_teacher
from demur.distill.teachers.other import Other, compare_vocabularies
from demur.distill.teachers.remote import Remote
from demur.errors import ConfigError, EndpointError, ModelError, PromptError
from demur.models.asking import Asker, Patience
from demur.models.budget import Budget, Caps
from demur.models.endpoint import parse_endpoint
from demur.models.generation import Decoding, answer
from demur.prompts.types import Prompt
from demur.run.journal import Journal

PROMPTS = [Prompt(f"Do harm {number}.", "harmful") for number in range(6)]
NO = "I'm sorry, but I can't help with that."
PATIENCE = Patience(tries=1, timeout=20.0, pause=0.01)


def silent(count: int) -> None:
    pass


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "journal.sqlite")
    yield opened
    opened.close()


def remote(state, journal, **caps):
    endpoint = parse_endpoint(state.spec())
    budget = Budget(Caps(**caps))
    return Remote(Asker(endpoint, budget=budget, patience=PATIENCE, at_once=1), journal)


def test_another_models_text_is_its_answer(journal):
    chat = student()
    found = Other(chat, journal, "other", tokens=5).answers(PROMPTS, silent)
    said = answer(chat, [prompt.text for prompt in PROMPTS], journal, Decoding(5))
    assert found == {p.key: one.text for p, one in zip(PROMPTS, said, strict=True)}


def test_vocabularies():
    chat, teacher = student(), student()
    same = compare_vocabularies(chat, teacher)
    assert same.same and "same" in same.sentence and "differ" not in same.sentence
    teacher.tokenizer.pad_token = "<|endoftext|>"
    assert "pad '<|im_end|>' and '<|endoftext|>'" in compare_vocabularies(chat, teacher).sentence
    teacher.tokenizer.add_tokens(["<more>", "<and more>"])
    found = compare_vocabularies(chat, teacher)
    assert found.same and "and the teacher 2 more" in found.sentence
    found = compare_vocabularies(teacher, chat)
    assert not found.same
    assert "2 only the student's, 0 only the teacher's, 0 under other numbers" in found.sentence
    found = compare_vocabularies(chat, replace(teacher, _stops=frozenset({9})))
    assert not found.same and "but none that ends an answer of both" in found.sentence


def test_an_endpoint_is_asked_once_and_goes_on_within_its_cap(journal):
    with model_server() as state:
        state.script = lambda path, body: Says(NO)
        with pytest.raises(EndpointError):
            remote(state, journal, requests=4).answers(PROMPTS, silent)
        assert state.answered == 4
        found = remote(state, journal).answers(PROMPTS, silent)
        assert state.answered == len(PROMPTS)
        assert found == {prompt.key: NO for prompt in PROMPTS}
        assert remote(state, journal).answers(PROMPTS, silent) == found
        assert state.answered == len(PROMPTS)


def test_what_a_content_filter_withheld_is_no_answer(journal):
    body = '{"error": {"code": "content_filter", "message": "filtered"}}'
    with model_server() as state:
        state.script = lambda path, body: Says(
            "I", "content_filter" if "2" in body["messages"][-1]["content"] else "stop"
        )
        state.fails = [Fails(400, times=1, body=body)]
        found = remote(state, journal).answers(PROMPTS, silent)
        assert set(found) == {PROMPTS[place].key for place in (1, 3, 4, 5)}
        asked = len(state.requests)
        assert remote(state, journal).answers(PROMPTS, silent) == found
        assert len(state.requests) == asked == len(PROMPTS)
        state.fails = [Fails(400, times=1, body='{"error": {"message": "no such model"}}')]
        with pytest.raises(EndpointError, match="no such model"):
            remote(state, journal).answers([Prompt("Other", "harmful")], silent)


def test_teachers_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_llama(tmp_path / "tiny")
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "response": "b"}\n', encoding="utf-8")
    (tmp_path / "notes.txt").write_text("a\n", encoding="utf-8")
    assert find_teacher("self").kind == "self"
    file = find_teacher("a.jsonl")
    assert file.kind == "file" and file.path is not None and file.path.name == "a.jsonl"
    model = find_teacher("tiny")
    assert model.kind == "model" and model.resolved is not None
    assert model.resolved.architecture == "LlamaForCausalLM"
    far = find_teacher("http://localhost:1/v1#m")
    assert far.kind == "endpoint" and far.endpoint is not None and far.endpoint.model == "m"
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for spec, error, words in (
        (" ", ConfigError, "no name"),
        ("openai:gpt", EndpointError, "OPENAI_API_KEY is not set"),
        ("http://localhost:1/v1", EndpointError, "which model"),
        ("absent.jsonl", PromptError, "no file"),
        ("notes.txt", PromptError, "not one of recorded answers"),
        ("./absent", ModelError, "absent"),
    ):
        with pytest.raises(error, match=words):
            find_teacher(spec)


def test_a_runs_model_can_teach(tmp_path):
    tiny_llama(tmp_path / "run" / "model")
    (tmp_path / "run" / "journal.sqlite").write_bytes(b"")
    found = find_teacher(str(tmp_path / "run"))
    assert found.resolved is not None and found.resolved.folder.name == "model"
