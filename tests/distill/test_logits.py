"""Logit distillation: the divergence as TRL has it, the loss as its definition has it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.distill.students import made_lessons
from tests.models.architectures import tiny

from demur.distill.collate import Collator, shared_prefix
from demur.distill.lessons import Lesson
from demur.distill.objectives.logits import Distilled, cached_jsd, generalised_jsd
from demur.distill.sampling import rollout
from demur.distill.scores import divergence
from demur.errors import ConfigError, TrainingError

STOPS = frozenset({2})


def random_logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def adapted(name: str = "llama", size: float = 0.3) -> Any:
    """Return a tiny model in PEFT whose adapter does something; `size` 0 leaves it as it was."""
    torch.manual_seed(1)
    targets = ["c_attn", "c_proj"] if name == "gpt2" else ["q_proj", "v_proj", "down_proj"]
    config = LoraConfig(
        r=4,
        lora_alpha=4,
        target_modules=targets,
        fan_in_fan_out=name == "gpt2",
        task_type="CAUSAL_LM",
    )
    peft = get_peft_model(deepcopy(tiny(name)), config)
    for module in peft.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # so that a row alone and a row in a batch can be compared
    with torch.no_grad():
        for parameter_name, parameter in peft.named_parameters():
            if "lora_B" in parameter_name:
                parameter += size * torch.randn(parameter.shape)
    return peft


def batch_of(model: Any, lessons: list[Lesson]) -> dict[str, Any]:
    collate = Collator(lessons, shared_prefix(model, lessons))
    return collate([{"lesson": number} for number in range(len(lessons))])


def along(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    """Return (answer, vocabulary) logits of one row without padding or cache."""
    ids = torch.tensor([[*prompt, *answer]])
    return model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]


@pytest.mark.parametrize("coefficient", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_divergence_is_that_of_trls_gkd_trainer(coefficient):
    from trl.experimental.gkd import GKDTrainer

    student = random_logits(2, 5, 40).requires_grad_(True)
    teacher = random_logits(2, 5, 40, seed=1)
    labels = torch.tensor([[1, 1, 1, 1, -100], [1, 1, -100, -100, -100]])
    expected = GKDTrainer.generalized_jsd_loss(student, teacher, labels, beta=coefficient)
    (theirs,) = torch.autograd.grad(expected, student)
    found = generalised_jsd(student, teacher, coefficient)[labels != -100].sum() / 6
    (ours,) = torch.autograd.grad(found, student)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert ours.abs().max() > 1e-3


def test_the_divergence_by_hand_and_its_ends():
    teacher, student = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.9, 0.1]).log()
    mixture = torch.tensor([0.25 * 0.5 + 0.75 * 0.9, 0.25 * 0.5 + 0.75 * 0.1]).log()
    expected = 0.25 * (teacher.exp() * (teacher - mixture)).sum()
    expected += 0.75 * (student.exp() * (student - mixture)).sum()
    assert generalised_jsd(student, teacher, 0.25).item() == pytest.approx(expected.item())
    # Divided by the coefficient it tends to the ends.
    forward, reverse = (generalised_jsd(student, teacher, end).item() for end in (0.0, 1.0))
    near = generalised_jsd(student.double(), teacher.double(), 1e-3).item() / 1e-3
    assert near == pytest.approx(forward, rel=1e-2)
    near = generalised_jsd(student.double(), teacher.double(), 1 - 1e-3).item() / 1e-3
    assert near == pytest.approx(reverse, rel=1e-2)
    # A head padded to a rounder number of tokens is cut to what both have.
    padded = torch.cat([teacher, torch.tensor([-9.0])])
    assert generalised_jsd(student, padded, 0.25).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 1.0])
def test_the_likeliest_tokens_give_a_lower_bound_and_all_tokens_the_whole(coefficient):
    student, teacher = random_logits(1, 4, 30), random_logits(1, 4, 30, seed=1)
    whole = generalised_jsd(student, teacher, coefficient)
    for kept in (5, 12, 30):
        best = teacher.log_softmax(-1).topk(kept)
        batch = {"candidates": best.indices, "log_probabilities": best.values}
        found = cached_jsd(student, batch, coefficient)
        assert bool((found <= whole + 1e-4).all())
        if coefficient == 0:
            chosen = student.log_softmax(-1).gather(2, best.indices)
            assert torch.allclose(found, divergence(chosen, best.values), atol=1e-3)
    assert torch.allclose(found, whole, atol=1e-3)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("on_policy", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("other", [False, True])
def test_the_loss_and_its_gradient_equal_those_of_single_rows(name, on_policy, other):
    model = adapted(name)
    base = tiny(name)
    teacher = deepcopy(base) if other else None
    if teacher is not None:
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter += 0.05 * torch.randn(parameter.shape)
    lessons = made_lessons(base, 6, top=base.config.vocab_size)
    contexts = {
        index: (11, 12, 13, *lesson.prompt)
        for index, lesson in enumerate(lessons)
        if lesson.kind == "refuse"
    }
    objective = Distilled(lessons, STOPS, contexts, teacher, on_policy, 0.3, 0.6, tokens=7)
    model.train()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    loss = objective.loss(model, batch_of(model, lessons))
    loss.backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trained) == sum("lora_" in one for one, _ in model.named_parameters())
    assert model.training
    found = [parameter.grad.clone() for parameter in trained]
    model.zero_grad()
    model.eval()

    torch.set_rng_state(state)
    sampled = (torch.rand(6) < on_policy).tolist()
    assert sum(sampled) == {0.0: 0, 1.0: 6}.get(on_policy, sum(sampled))
    prompts = [one.prompt for one, new in zip(lessons, sampled, strict=True) if new]
    drawn = iter(rollout(model, prompts, 7, STOPS) if prompts else ())
    total = torch.zeros(())
    for index, (lesson, new) in enumerate(zip(lessons, sampled, strict=True)):
        answer = next(drawn) if new else lesson.answer
        knows = teacher if teacher is not None and lesson.kind == "refuse" else base
        with torch.no_grad():
            before = along(knows, contexts.get(index, lesson.prompt), answer)
        price = generalised_jsd(along(model, lesson.prompt, answer), before, 0.3).sum()
        total = total + (0.6 if lesson.kind == "keep" else 1.0) * price
    expected = total / 6
    expected.backward()
    # Fixed answers of benign lessons come from half precision.
    assert loss.item() == pytest.approx(expected.item(), rel=2e-3)
    for gradient, parameter in zip(found, trained, strict=True):
        assert torch.allclose(gradient, parameter.grad, rtol=1e-2, atol=2e-3)
    assert max(float(gradient.abs().max()) for gradient in found) > 0.02


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 1.0])
def test_an_untouched_student_without_contexts_has_nothing_to_learn(coefficient):
    model = adapted(size=0.0)
    lessons = [one for one in made_lessons(tiny("llama"), 6) if one.kind == "refuse"]
    objective = Distilled(lessons, STOPS, {}, None, 0.5, coefficient)
    loss = objective.loss(model, batch_of(model, lessons))
    assert abs(loss.item()) < 1e-5
    told = replace(objective, contexts={0: (5, 6, 7, *lessons[0].prompt)})
    assert told.loss(model, batch_of(model, lessons)).item() > 1e-3


def test_what_the_teacher_thinks_gets_no_gradient():
    model = adapted()
    lessons = made_lessons(tiny("llama"), 4)
    teacher = deepcopy(tiny("llama")).requires_grad_(True)
    Distilled(lessons, STOPS, {}, teacher, 1.0).loss(model, batch_of(model, lessons)).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_what_cannot_be_distilled_is_said():
    lessons = made_lessons(tiny("llama"), 4)
    with pytest.raises(ConfigError, match=r"share of logit distillation is 1\.5"):
        Distilled(lessons, STOPS, on_policy=1.5)
    with pytest.raises(ConfigError, match="coefficient of logit distillation is -1"):
        Distilled(lessons, STOPS, coefficient=-1)
    model = deepcopy(tiny("llama")).requires_grad_(True)
    with pytest.raises(TrainingError, match="not there as it was"):
        Distilled(lessons, STOPS).loss(model, batch_of(model, lessons))
    refusals = [lesson for lesson in lessons if lesson.kind == "refuse"]
    other = Distilled(refusals, STOPS, teacher=tiny("gpt2"))
    assert other.loss(model, batch_of(model, refusals)).item() > 0
