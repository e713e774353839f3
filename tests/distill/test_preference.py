"""Preferences: the pairs, what the untouched student makes of them, and the loss of DPO."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distill.students import Quiet, Striking, Struck, made_lessons, student
from tests.distill.test_train import RECIPE, one_thread, weights  # noqa: F401
from tests.distill.test_trainer import moved
from tests.models.architectures import tiny

from demur.distill.collate import Collator, shared_prefix
from demur.distill.lessons import Lesson, mostly_openings, own_answers, refusing_lessons
from demur.distill.objectives import DirectPreference
from demur.distill.preference import preference_lessons, with_references
from demur.distill.train import train
from demur.errors import ConfigError, TrainingError
from demur.judge.verdict import Verdict
from demur.prompts.types import Prompt
from demur.run.journal import Journal

REFUSAL = "I cannot help with that request."


def pairs(chat: Any, count: int, folder: Path) -> list[Lesson]:
    """Return `count` lessons, each third a benign one, whose rejected answers vary in length."""
    lessons = [
        replace(lesson, rejected=(*range(9 + place % 5, 4, -1), 2))
        for place, lesson in enumerate(made_lessons(chat.model, count))
    ]
    return with_references(chat, lessons, Journal(folder / "journal.sqlite"), lambda count: None)


def log_probability(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    """Return the summed log-probability of one answer: one row, no padding, no cache."""
    logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()


@pytest.mark.parametrize("name", ["llama", "gpt2", "mpt"])
def test_references_are_the_students_own_and_kept(name, tmp_path, monkeypatch):
    from demur.distill import preference as room

    chat, journal = student(name), Journal(tmp_path / "journal.sqlite")
    chat.model.train()
    lessons = [replace(one, rejected=(7, 8, 9, 2)) for one in made_lessons(chat.model, 9)]
    lessons[4] = replace(lessons[4], rejected=())
    advanced: list[int] = []
    first = with_references(chat, lessons, journal, advanced.append)
    assert chat.model.training
    chat.model.eval()
    for lesson in first[:4] + first[5:]:
        for answer, found in zip((lesson.answer, lesson.rejected), lesson.reference, strict=True):
            expected = log_probability(chat.model, lesson.prompt, answer)
            assert found == pytest.approx(expected.item(), abs=1e-4)
    assert first[4] is lessons[4]
    monkeypatch.setattr(room, "answer_logits", None)  # would fail if it were called
    again = with_references(chat, lessons, journal, advanced.append)
    assert [one.reference for one in again] == [one.reference for one in first]
    assert sum(advanced) == 16


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("normalised", [True, False])
def test_the_loss_and_its_gradient_by_hand(sharing, normalised, tmp_path):
    chat, model = student(), moved("llama")
    lessons = pairs(chat, 6, tmp_path)
    lessons[1] = replace(lessons[1], kind="answer")
    lessons[4] = replace(lessons[4], rejected=(), reference=None)
    shared = shared_prefix(model, lessons) if sharing else 0
    batch = Collator(lessons, shared, pairs=True)([{"lesson": place} for place in range(6)])
    assert batch["labels"].shape[0] == 11
    objective = DirectPreference(0.3, keep_weight=0.7, sft_weight=0.4, normalised=normalised)
    loss = objective.loss(model, batch)
    loss.backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    total = torch.zeros(())
    for lesson in lessons:
        now = log_probability(model, lesson.prompt, lesson.answer)
        if lesson.rejected:
            by = (len(lesson.answer), len(lesson.rejected)) if normalised else (1, 1)
            chosen = (now - lesson.reference[0]) / by[0]
            rejected = log_probability(model, lesson.prompt, lesson.rejected)
            rejected = (rejected - lesson.reference[1]) / by[1]
            total = total + (1 + (-0.3 * (chosen - rejected)).exp()).log()
        if lesson.kind != "keep":
            total = total - 0.4 * now / len(lesson.answer)
            continue
        ids = torch.tensor([[*lesson.prompt, *lesson.answer]])
        logits = model(ids).logits[0, len(lesson.prompt) - 1 : -1].log_softmax(-1)
        before = lesson.log_probabilities.float()
        at = logits.gather(1, lesson.candidates.long())
        rest, other = 1 - before.exp().sum(-1), 1 - at.exp().sum(-1)
        kept = (before.exp() * (before - at)).sum(-1) + rest * (rest / other).log()
        total = total + 0.7 * kept.sum()
    expected = total / 6
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    for gradient, parameter in zip(found, model.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, rtol=1e-3, atol=1e-4)
    assert max(float(gradient.abs().max()) for gradient in found) > 0.01


def test_the_loss_is_that_of_trl(tmp_path):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    chat, model = student(), moved("llama")
    lessons = pairs(chat, 7, tmp_path)
    rows = [
        {
            "prompt_ids": list(lesson.prompt),
            "chosen_ids": list(lesson.answer),
            "rejected_ids": list(lesson.rejected),
        }
        for lesson in lessons
    ]
    text = {"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]}
    peer = DPOTrainer(
        model=model,
        ref_model=chat.model,
        args=DPOConfig(
            output_dir=str(tmp_path), beta=0.25, use_cpu=True, report_to=[], bf16=False, fp16=False
        ),
        train_dataset=Dataset.from_dict(text),
        processing_class=chat.tokenizer,
    )
    expected = peer.compute_loss(model, DataCollatorForPreference(pad_token_id=2)(rows))
    objective = DirectPreference(0.25, keep_weight=0.0, sft_weight=0.0)
    collate = Collator(lessons, shared_prefix(model, lessons), pairs=True)
    found = objective.loss(model, collate([{"lesson": place} for place in range(7)]))
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert abs(found.item() - math.log(2)) > 1e-3


def test_at_the_student_itself_the_gradient_lifts_the_chosen_and_lowers_the_rejected(tmp_path):
    chat = student()
    lessons = pairs(chat, 4, tmp_path)
    model = chat.model.requires_grad_(True)
    batch = Collator(lessons, 0, pairs=True)([{"lesson": place} for place in range(4)])
    loss = DirectPreference(0.5, 0.0, 0.0).loss(model, batch)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-4)
    loss.backward()
    before = [
        [log_probability(model, one.prompt, it).item() for it in (one.answer, one.rejected)]
        for one in lessons
    ]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-3 * parameter.grad
    for lesson, (chosen, rejected) in zip(lessons, before, strict=True):
        now = log_probability(model, lesson.prompt, lesson.answer)
        now = now - log_probability(model, lesson.prompt, lesson.rejected)
        assert now > chosen - rejected
    assert DirectPreference(0.5, 0.0, 0.0).loss(model, batch) < loss


@pytest.mark.parametrize("options", [{"beta": -0.1}, {"beta": 0}, {"sft_weight": -1}])
def test_compliance_cannot_be_preferred(options):
    with pytest.raises(ConfigError, match="beta above 0"):
        DirectPreference(**options)


def test_without_pairs_rejected_answers_are_no_rows():
    lessons = [replace(one, rejected=(5, 6)) for one in made_lessons(tiny("llama"), 4)]
    plain = made_lessons(tiny("llama"), 4)
    rows = [{"lesson": place} for place in range(4)]
    batch, expected = Collator(lessons, 5)(rows), Collator(plain, 5)(rows)
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_a_request_with_two_answers_is_read_once():
    first = Lesson("refuse", (7, 8, 9, 10, 11), (20, 21, 2), rejected=(30,))
    second = Lesson("refuse", (7, 8, 12), (22, 2), rejected=(31, 32))
    batch = Collator([first, second], 2, pairs=True)([{"lesson": 1}, {"lesson": 0}])
    assert batch["stem"].tolist() == [0, 1, 0, 1]
    assert batch["stem_ids"].tolist() == [[0, 0], [9, 10]]
    assert batch["stem_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch["input_ids"].tolist() == [[0, 12, 22], [11, 20, 21], [0, 12, 31], [0, 0, 11]]
    assert batch["attention_mask"][:2].tolist() == [[1, 1, 0, 0, 0, 1, 1], [1] * 7]
    assert batch["position_ids"][0, 1:].tolist() == [2, 3]
    assert batch["position_ids"][1].tolist() == [4, 5, 6]
    assert batch["position_ids"][3, -1:].tolist() == [4]
    assert batch["labels"].tolist() == [
        [-100, 22, 2],
        [20, 21, 2],
        [-100, 31, 32],
        [-100] * 2 + [30],
    ]


@pytest.mark.parametrize("shared", [2, 4])
def test_all_answers_to_one_request_branch_from_it(shared):
    from demur.distill.scores import answer_logits, token_log_probabilities

    model = tiny("llama")
    rows = [Lesson("answer", (7, 8, 9, 10, 11), answer) for answer in ((20, 21), (30,), (2, 2, 2))]
    batch = Collator(rows, shared)([{"lesson": place} for place in range(3)])
    assert batch["stem_ids"].shape == (1, 4 - shared)
    with torch.no_grad():
        found = token_log_probabilities(answer_logits(model, batch), batch["labels"]).sum(1)
        for row, score in zip(rows, found, strict=True):
            expected = log_probability(model, row.prompt, row.answer).item()
            assert score.item() == pytest.approx(expected, abs=1e-4)


class Says:
    """A judge that is told its verdicts."""

    name = description = "says"

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = outcomes

    def judge(self, prompts, answers):
        assert len(prompts) == len(answers) == len(self.outcomes)
        return [Verdict(outcome) for outcome in self.outcomes]


def test_pairs_are_made_of_refusals_and_what_the_student_says_itself(tmp_path):
    chat, journal = student(), Journal(tmp_path / "journal.sqlite")
    harmful = [Prompt(f"Do harm {number}.", "harmful") for number in range(4)]
    benign = [Prompt(f"Bake bread {number}.", "twin") for number in range(3)]
    refusing = refusing_lessons(chat, harmful, [REFUSAL])
    complying = own_answers(chat, harmful, journal, 6, lambda count: None)
    kept = own_answers(chat, benign[:2], journal, 6, lambda count: None)
    opened = own_answers(chat, benign[2:], journal, 4, lambda count: None, opening="Here is")
    judge = Says("complied", "refused", "complied", "undecided")
    made = preference_lessons(chat, harmful, refusing, complying, [*kept, *opened], judge, 5)
    assert made.not_complied == 2
    kinds = [lesson.kind for lesson in made.lessons]
    assert kinds == ["refuse", "refuse", "keep", "keep", "answer"]
    assert [one.request for one in made.lessons] == [
        *(harmful[place].text for place in (0, 2)),
        *(prompt.text for prompt in benign),
    ]
    for lesson, place in zip(made.lessons, (0, 2), strict=False):
        assert lesson.answer == refusing[place].answer
        assert lesson.rejected == complying[place].answer[:5]
    for lesson, own in zip(made.lessons[2:], [*kept, *opened], strict=True):
        assert lesson.answer == own.answer
        assert lesson.rejected == refusing[0].answer
        assert lesson.log_probabilities is own.log_probabilities
    never = Says("refused", "refused", "partial", "undecided")
    with pytest.raises(TrainingError, match="complies with none of 4 harmful requests"):
        preference_lessons(chat, harmful, refusing, complying, kept, never)
    with pytest.raises(TrainingError, match="no refusal to prefer"):
        preference_lessons(chat, harmful, [], complying, kept, judge)


def test_an_own_answer_that_is_the_refusal_is_not_rejected():
    chat = student()
    prompts = [Prompt("Do harm.", "harmful")]
    (refusing,) = refusing_lessons(chat, prompts, [REFUSAL])
    own = replace(refusing, kind="keep", prompt=(4, 5), answer=refusing.answer)
    complying = replace(refusing, kind="keep", answer=(5, 6))
    made = preference_lessons(chat, prompts, [refusing], [complying], [own], Says("complied"))
    assert made.lessons[1].rejected == ()


def test_references_must_be_there_before_training(tmp_path):
    chat = student()
    lessons = [replace(one, rejected=(5, 6)) for one in made_lessons(chat.model, 8)]
    cut = mostly_openings(pairs(chat, 9, tmp_path))
    assert cut[1].answer != made_lessons(chat.model, 9)[1].answer
    assert cut[1].reference is None  # of the answer before it was cut
    with pytest.raises(ValueError, match="with_references"):
        train(chat, lessons, RECIPE, tmp_path / "training", Quiet(), DirectPreference())


def test_preferring_goes_on_to_the_same_weights_after_an_interruption(tmp_path):
    ended, broken = tmp_path / "whole" / "training", tmp_path / "broken" / "training"
    chat = student()
    lessons = pairs(chat, 33, tmp_path)
    _, expected = train(chat, lessons, RECIPE, ended, Quiet(), DirectPreference(1.0))
    chat = student()
    lessons = pairs(chat, 33, broken.parent)
    with pytest.raises(Struck):
        train(chat, lessons, RECIPE, broken, Striking(), DirectPreference(1.0))
    chat, narrator = student(), Quiet()
    lessons = pairs(chat, 33, broken.parent)
    wrapped, found = train(chat, lessons, RECIPE, broken, narrator, DirectPreference(1.0))
    assert narrator.done[0] == 3
    assert [weights(path) for path in found] == [weights(path) for path in expected]
    better = 0
    with torch.no_grad():
        for lesson in lessons:
            now = log_probability(wrapped, lesson.prompt, lesson.answer)
            now = now - log_probability(wrapped, lesson.prompt, lesson.rejected)
            better += bool(now > lesson.reference[0] - lesson.reference[1])
    assert better > 28
