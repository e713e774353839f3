"""Runs of `demur distill` in which another model's logits are learnt: by tokens, and by rank."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.distill.students import Lenient, Quiet, made_lessons, student
from tests.distill.test_logits import along
from tests.distill.test_universal import by_letters, other_teacher
from tests.distilling.test_distill import SMALL
from tests.small_run import prepare
from tests.tiny import tiny_llama

from demur.distill.lessons import Lesson, refusing_lessons
from demur.distill.objectives import Distilled, Universal
from demur.distill.teachers.other import Other
from demur.distilling.config import DistillConfig
from demur.distilling.distill import distill
from demur.distilling.logits import FACT, prepare_logits
from demur.distilling.make_lessons import Made
from demur.distilling.treatment import recipe_of
from demur.prompts.types import Prompt
from demur.run.journal import Journal
from demur.treating import pipeline

SORRY = "I'm sorry, but I can't assist with that."
HELPS = "Here is how you can do it."


class Heard(Quiet):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def scripted(self: Other, prompts: Sequence[Prompt], advance: Any) -> Mapping[str, str]:
    """Stand in for what a teacher that refuses would write; its logits are its own."""
    return {one.key: SORRY if one.kind == "harmful" else HELPS for one in prompts}


@pytest.fixture(scope="module", autouse=True)
def _scripted() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "OpeningJudge", Lenient)
        patch.setattr(Other, "answers", scripted)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers")
    prepare(folder)
    tiny_llama(folder / "same", seed=5, hidden_size=48)
    tokenizer = by_letters()
    tiny_llama(folder / "letters", seed=6, vocab_size=len(tokenizer), eos_token_id=256)
    tokenizer.save_pretrained(folder / "letters")
    return folder


def made_for(chat: Any, teacher: Any = None) -> Made:
    prompts = [Prompt(f"Do harm {number}.", "harmful") for number in range(4)]
    answer = tuple(chat.tokenizer("Here is how.").input_ids)
    answering = [
        Lesson("answer", tuple(chat.encode("Bake bread.")), answer, request="Bake bread."),
        made_lessons(chat.model, 1)[0],
    ]
    return Made(prompts, refusing_lessons(chat, prompts, [SORRY]), answering, [], [], teacher)


def prepared(tmp_path: Path, teacher: Any, **choices: Any) -> tuple[Any, Any, Any, Any]:
    chat, heard = student(), Heard()
    config = DistillConfig("tiny", objective="logits", teacher="other", **choices)
    folder = SimpleNamespace(journal=Journal(tmp_path / "journal.sqlite"))
    context: Any = SimpleNamespace(folder=folder, narrator=heard)
    other = teacher and Other(teacher, folder.journal, "other")
    lessons, objective = prepare_logits(
        config, context, chat, made_for(chat, other), recipe_of(config)
    )
    return lessons, objective, folder.journal.fact(FACT), "\n".join(heard.said)


def test_another_model_teaches_where_to_refuse_in_its_own_template(tmp_path):
    template = "{% for message in messages %}{{ 'Q: ' + message['content'] + '\nA: ' }}{% endfor %}"
    teacher = student("qwen2", template=template)
    lessons, objective, fact, _ = prepared(tmp_path, teacher)
    assert isinstance(objective, Distilled) and objective.teacher is teacher.model
    assert fact == {"teacher": "other", "way": "tokens"}
    assert [objective.contexts[place] for place in range(4)] == [
        tuple(teacher.encode(f"Do harm {number}.")) for number in range(4)
    ]
    chat = student()
    shown = chat.decode(objective.contexts[4])  # where to answer, the student teaches itself
    assert shown.count("Here is how.") == 1 and shown.endswith("Bake bread.\nassistant")
    assert set(objective.contexts) == set(range(5))
    assert all(one.log_probabilities is None for one in lessons[:5])


def test_what_is_read_often_is_kept_on_disk_and_its_error_said(tmp_path):
    teacher = student("qwen2")
    lessons, objective, fact, said = prepared(tmp_path, teacher, on_policy=0.0)
    assert objective.teacher is None  # not needed any more
    assert [line in said for line in fact["kept"]] == [True, True]
    assert "kept on disk of other: the 64 likeliest tokens at" in said
    assert "of the probability (" in said and "nats a token away" in said
    with torch.no_grad():
        whole = along(teacher.model, lessons[0].prompt, lessons[0].answer).log_softmax(-1)
    best = whole.topk(64)
    assert torch.equal(lessons[0].candidates.long(), best.indices)
    assert torch.allclose(lessons[0].log_probabilities.float(), best.values, atol=1e-2)
    assert lessons[4].log_probabilities is not None  # by the student, in its context
    _, objective, fact, _ = prepared(tmp_path, teacher, on_policy=0.5)
    assert objective.teacher is teacher.model and "kept" not in fact
    _, objective, fact, _ = prepared(tmp_path, teacher, on_policy=0.5, epochs=2)
    assert objective.teacher is teacher.model and len(fact["kept"]) == 2


def test_a_teacher_of_another_vocabulary_is_learnt_by_rank(tmp_path):
    teacher = other_teacher()
    _, objective, fact, said = prepared(tmp_path, teacher)
    assert isinstance(objective, Universal) and objective.teacher is teacher.model
    assert set(objective.rows) == set(range(4))
    assert fact["way"] == "rank" and 0 < fact["paired"][0] <= fact["paired"][1]
    assert "there its probabilities are compared, by rank" in said


def test_a_teacher_that_tells_words_alone_is_said(tmp_path):
    _, objective, fact, said = prepared(tmp_path, None)
    assert "this teacher tells words and no logits" in said
    assert objective.teacher is None and fact["teacher"] == ""


@pytest.mark.parametrize(
    ("name", "choices", "told", "reported"),
    [
        ("same", {"on_policy": 0.0}, ("have the same", "token by token"), "to agree with same"),
        ("letters", {}, ("different vocabularies", "by rank: how sure"), "as sure as letters is"),
    ],
)
def test_a_run_with_another_models_logits(place, name, choices, told, reported):
    heard = Heard()
    run = place / "-".join(["run", name, *map(str, choices.values())])
    outcome = distill(
        str(place / "tiny"),
        run=run,
        narrator=heard,
        pairs=str(place / "pairs.jsonl"),
        ordinary=str(place / "ordinary.jsonl"),
        teacher=str(place / name),
        **{**SMALL, "answer_tokens": 8, "objective": "logits", **choices},
    )
    assert all(words in "\n".join(heard.said) for words in told)
    assert reported in outcome.report.read_text(encoding="utf-8")
    result = json.loads((outcome.run / "result.json").read_text(encoding="utf-8"))
    assert result["patch"]["rank"] == 8
    assert outcome.scorecard.utility.divergence.value > 0


def test_a_wider_teachers_own_tokens_are_left_out(tmp_path):
    chat = student()
    wide = replace(chat, model=student("gpt2").model, weights="wide")
    from demur.distill.cached_logits import with_teacher_logits

    lessons = made_for(chat).refusing
    journal = Journal(tmp_path / "journal.sqlite")
    found, lost = with_teacher_logits(wide, lessons, {}, journal, kept=8, width=20)
    assert lost is not None and lost.kept == 8
    with torch.no_grad():
        cut = along(wide.model, lessons[0].prompt, lessons[0].answer)[:, :20].log_softmax(-1)
    assert int(found[0].candidates.max()) < 20
    assert torch.allclose(found[0].log_probabilities.float(), cut.topk(8).values, atol=1e-2)
