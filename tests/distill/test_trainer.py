"""The loss of a padded batch is the mean of what each lesson costs alone, gradient included."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.distill.students import made_lessons
from tests.models.architectures import tiny

from demur.distill.collate import Collator, shared_prefix
from demur.distill.lessons import Lesson
from demur.distill.objectives import Supervised
from demur.distill.objectives.sft import decision as decided
from demur.distill.trainer import RefusalTrainer
from demur.models.forward import common_prefix
from demur.models.generation import write_freely

REFUSAL = made_lessons(tiny("llama"), 2)[1].answer[0]

TEXTS, WEIGHT = 4, 8.0  # that a step reads, and what they count


def moved(name: str) -> Any:
    """Return a copy of the tiny model, a little away from what the lessons were made with."""
    model = deepcopy(tiny(name)).requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def trainer(
    keep_weight: float = 1.0,
    decision_weight: float = 1.0,
    accumulation: int = 1,
    refusal: int | None = REFUSAL,
) -> RefusalTrainer:
    bare = RefusalTrainer.__new__(RefusalTrainer)
    tokens = () if refusal is None else (refusal,)
    bare.objective = Supervised(tokens, keep_weight, decision_weight)
    bare.text_weight = keep_weight * WEIGHT
    bare.current_gradient_accumulation_steps = accumulation
    return bare


def alone(
    model: Any, lesson: Lesson, keep_weight: float = 1.0, decision_weight: float = 1.0
) -> torch.Tensor:
    """Return the loss of one lesson by its definition: one row, no padding, no cache."""
    ids = torch.tensor([[*lesson.prompt, *lesson.answer]])
    now = model(ids).logits[0, len(lesson.prompt) - 1 : -1].float().log_softmax(-1)
    sign = 1 if lesson.kind == "refuse" else -1
    decision = torch.zeros(())
    if lesson.kind == "refuse" or lesson.answer[0] != REFUSAL:
        rival = torch.cat([now[0, :REFUSAL], now[0, REFUSAL + 1 :]]).max()
        decision = (1 + (1 - sign * (now[0, REFUSAL] - rival)).exp()).log()
    if lesson.kind == "refuse":
        words = torch.nn.functional.nll_loss(now, torch.tensor(lesson.answer), reduction="sum")
        return words + decision_weight * decision
    total = torch.zeros(())
    for step, row in enumerate(now):
        before = lesson.log_probabilities[step].double()
        chosen = row[lesson.candidates[step].long()].double()
        rest, other = 1 - before.exp().sum(), 1 - chosen.exp().sum()
        total = total + (before.exp() * (before - chosen)).sum() + rest * (rest / other).log()
    return keep_weight * total + decision_weight * decision


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "mpt"])
@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("decision", [0.0, 0.7])
def test_the_loss_and_its_gradient_equal_those_of_single_rows(name, sharing, decision):
    model = moved(name)
    lessons = made_lessons(tiny(name), 6)
    lessons[3] = replace(lessons[3], answer=(REFUSAL, *lessons[3].answer[1:]))
    shared = shared_prefix(model, lessons) if sharing else 0
    if sharing:
        assert shared == (5 if name in {"llama", "gpt2"} else 0)
    batch = Collator(lessons, shared)([{"lesson": number} for number in range(6)])
    loss = trainer(0.5, decision).compute_loss(model, batch)
    loss.backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    expected = sum(alone(model, lesson, 0.5, decision) for lesson in lessons) / 6
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    for gradient, parameter in zip(found, model.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, rtol=1e-3, atol=1e-4)
    assert max(float(gradient.abs().max()) for gradient in found) > 0.1


def test_the_decision_is_between_the_best_refusal_and_the_best_other_token():
    logits = torch.tensor([[[0.0, 2.0, 1.5, 4.0, 3.0]], [[5.0, 2.0, 1.5, 4.0, 3.0]]])
    inputs = {
        "first": torch.zeros(2, dtype=torch.long),
        "refuse": torch.tensor([True, False]),
        "labels": torch.tensor([[3], [0]]),
    }
    margins = torch.tensor([4.0 - 3.0, 4.0 - 5.0])
    expected = torch.nn.functional.softplus(1 - torch.stack([margins[0], -margins[1]])).sum()
    assert torch.allclose(decided(logits, inputs, (1, 3)), expected)
    inputs["labels"][1] = 1  # its own answer begins as a refusal does
    assert torch.allclose(
        decided(logits, inputs, (1, 3)), torch.nn.functional.softplus(1 - margins[0])
    )


@pytest.mark.parametrize("kind", ["refuse", "keep"])
@pytest.mark.parametrize("decision", [0.0, 1.0])
def test_batches_of_one_kind(kind, decision):
    model = moved("llama")
    lessons = [one for one in made_lessons(tiny("llama"), 9) if one.kind == kind]
    rows = [{"lesson": number} for number in range(len(lessons))]
    loss = trainer(1.0, decision).compute_loss(model, Collator(lessons, 5)(rows))
    costs = [alone(model, lesson, 1.0, decision).item() for lesson in lessons]
    expected = sum(costs) / len(lessons)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_accumulation_divides_and_outputs_can_be_asked_for():
    model, lessons = moved("llama"), made_lessons(tiny("llama"), 3)
    batch = Collator(lessons, 0)([{"lesson": number} for number in range(3)])
    whole = trainer().compute_loss(model, batch)
    part, outputs = trainer(accumulation=4).compute_loss(model, batch, return_outputs=True)
    assert part.item() == pytest.approx(whole.item() / 4)
    assert outputs == {}


def test_the_decision_by_hand():
    # Rows: a refusal likely, an answer likely, an answer that is itself a refusal, one unlikely.
    probabilities = [[0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.7, 0.1, 0.2]]
    first = torch.tensor([0, 1, 0, 1])
    given = torch.full((4, 2, 3), math.log(1 / 3))
    for row, place in enumerate(first):
        given[row, place] = torch.tensor(probabilities[row]).log()
    given.requires_grad_(True)
    inputs = {
        "first": first,
        "refuse": torch.tensor([True, False, False, True]),
        "keep": torch.tensor([False, True, True, False]),
        "labels": torch.tensor([[1, 2], [-100, 0], [1, 0], [-100, 1]]),
    }
    loss = decided(given, inputs, (1,))
    odds = [0.3 / 0.5, 0.3 / 0.6, 0.7 / 0.1]  # e to the -m of a refusal, to the m of an answer
    assert loss.item() == pytest.approx(sum(math.log1p(math.e * one) for one in odds), rel=1e-5)
    loss.backward()
    pulls = [odd * math.e / (1 + odd * math.e) for odd in odds]
    expected = torch.zeros(4, 2, 3)
    expected[0, 0] = torch.tensor([0, -pulls[0], pulls[0]])  # towards the refusal, from its rival
    expected[1, 1] = torch.tensor([-pulls[1], pulls[1], 0])
    expected[3, 1] = torch.tensor([pulls[2], -pulls[2], 0])
    assert torch.allclose(given.grad, expected, atol=1e-5)


def test_without_a_refusal_there_is_no_decision():
    model, lessons = moved("llama"), made_lessons(tiny("llama"), 4)
    batch = Collator(lessons, 0)([{"lesson": number} for number in (0, 3)])
    loss = trainer(refusal=None).compute_loss(model, batch)
    assert loss.item() == trainer(decision_weight=0.0).compute_loss(model, batch).item()


def test_staying_as_before_costs_nothing_and_has_no_gradient():
    model = deepcopy(tiny("llama")).requires_grad_(True)
    lessons = [one for one in made_lessons(model, 6, top=64) if one.kind == "keep"]
    batch = Collator(lessons, 0)([{"lesson": number} for number in range(len(lessons))])
    loss = trainer(decision_weight=0.0).compute_loss(model, batch)
    assert abs(loss.item()) < 2e-3  # the stored distribution is in float16
    loss.backward()
    assert max(float(one.grad.abs().max()) for one in model.parameters()) < 2e-2


def test_what_the_collator_makes():
    lessons = [
        Lesson("refuse", (7, 8, 9, 10), (20, 21, 2)),
        Lesson("keep", (7, 8, 11), (30,), torch.full((1, 4), -2.0).half(), torch.arange(4)[None]),
    ]
    batch = Collator(lessons, 2)([{"lesson": 1}, {"lesson": 0}])
    assert batch["prefix"].tolist() == [[7, 8]]
    assert batch["input_ids"].tolist() == [[0, 0, 0, 11], [9, 10, 20, 21]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]]
    assert batch["position_ids"][0, -1] == 2
    assert batch["position_ids"][1].tolist() == [2, 3, 4, 5]
    assert batch["labels"].tolist() == [[-100, -100, 30], [20, 21, 2]]
    assert batch["first"].tolist() == [2, 0]
    assert batch["lesson"].tolist() == [1, 0]
    assert batch["keep"].tolist() == [True, False]
    assert batch["candidates"].shape == (2, 3, 4)
    assert batch["candidates"][0, 2].tolist() == [0, 1, 2, 3]
    assert batch["log_probabilities"][0, 2].tolist() == [-2.0] * 4


def test_the_prefix_is_shared_only_where_that_is_exact():
    lessons = made_lessons(tiny("llama"), 6)
    assert shared_prefix(tiny("llama"), lessons) == 5
    assert common_prefix([lesson.prompt for lesson in lessons]) == 5
    for name in ("gemma2", "mistral-window", "mpt", "lfm2", "gpt-neo"):
        assert shared_prefix(tiny(name), lessons) == 0
    assert shared_prefix(tiny("mistral-wide"), lessons) == 5


def written(model: Any, count: int, tokens: int = 9) -> list[Lesson]:
    """Return lessons in writing of itself, with the whole distributions that `model` has there."""
    ids = write_freely(model, 1, count, tokens, seed=3)
    with torch.no_grad():
        best = model(ids[:, :-1]).logits.log_softmax(-1).topk(model.config.vocab_size)
    return [
        Lesson("text", (1,), tuple(row[1:].tolist()), values.half(), indices.int())
        for row, values, indices in zip(ids, best.values, best.indices, strict=True)
    ]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_texts_add_their_mean_divergence_however_the_step_is_divided(accumulation):
    model = tiny("llama")
    lessons, texts = made_lessons(model, 4), written(model, TEXTS + 2)
    student = moved("llama")
    collate = Collator(lessons, shared_prefix(student, lessons), texts, step_texts=TEXTS)
    at = trainer(keep_weight=0.7, accumulation=accumulation)
    bare = at.compute_loss(student, collate([{"lesson": i, "text": -1} for i in range(4)]))
    rows = [{"lesson": 0, "text": TEXTS}, *({"lesson": i, "text": -1} for i in range(1, 4))]
    with_texts = at.compute_loss(student, collate(rows))
    read = [*texts[TEXTS:], *texts[: TEXTS - 2]]  # after the last comes the first
    ids = torch.tensor([[*text.prompt, *text.answer[:-1]] for text in read])
    now, before = student(ids).logits.log_softmax(-1), model(ids).logits.log_softmax(-1)
    whole = (before.exp() * (before - now)).sum(-1).mean()
    added = float(with_texts - bare) / (0.7 * WEIGHT)
    assert added == pytest.approx(float(whole), rel=0.03)  # kept in half precision


def test_texts_do_not_shorten_the_shared_prefix():
    model = tiny("llama")
    lessons = made_lessons(model, 4)
    assert shared_prefix(model, [*lessons, *written(model, 2)]) == shared_prefix(model, lessons) > 0
