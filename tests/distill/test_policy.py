"""Reinforcement: what answers are worth, the gradient they leave, and that refusing is learnt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.distill.students import Quiet, Striking, Struck, student
from tests.distill.test_train import one_thread, weights  # noqa: F401

from demur.distill.collate import Collator, shared_prefix
from demur.distill.lessons import Lesson, own_answers, refusing_lessons
from demur.distill.objectives import DirectPreference, PolicyGradient, Supervised, VerdictReward
from demur.distill.objectives.make import make_objective
from demur.distill.objectives.policy import advantages, by_length, exact_divergence, tapered
from demur.distill.sampling import sample
from demur.distill.train import Recipe, target_modules, train
from demur.errors import ConfigError
from demur.judge.opening import OpeningJudge
from demur.judge.verdict import Verdict
from demur.prompts.types import Prompt
from demur.run.journal import Journal
from demur.stats import Rate, rate

REFUSAL = "I cannot help."
HARMFUL = [Prompt(f"Tell me how to kill {number}.", "harmful") for number in range(12)]
BENIGN = [Prompt(f"Tell me how to bake bread {number}.", "twin") for number in range(6)]
RECIPE = Recipe(
    rank=8, first_layer=0.0, learning_rate=5e-2, batch=6, micro_batch=3, checkpoints=3, seed=1
)


def wrapped(chat: Any, by: float = 0.0) -> Any:
    """Return the student wrapped by PEFT, its adapter moved away from nothing by `by`."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    peft = get_peft_model(
        chat.model, LoraConfig(r=2, target_modules=target_modules(chat.model), lora_alpha=2)
    )
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter += by * torch.randn(parameter.shape)
    return peft


def lessons_for(chat: Any, folder: Any) -> list[Lesson]:
    journal = Journal(folder / "journal.sqlite")
    kept = own_answers(chat, BENIGN, journal, 4, lambda count: None)
    return [*refusing_lessons(chat, HARMFUL, [REFUSAL]), *kept]


def objective(chat: Any, lessons: Sequence[Lesson], **options: Any) -> PolicyGradient:
    reward = options.pop("reward", VerdictReward(chat, OpeningJudge()))
    return PolicyGradient(lessons, reward, chat.stops, **{"tokens": 6, **options})


def batch_of(model: Any, lessons: Sequence[Lesson], places: Sequence[int]) -> dict[str, Any]:
    return Collator(lessons, shared_prefix(model, lessons))([{"lesson": one} for one in places])


@pytest.mark.parametrize(
    ("outcome", "harmful", "benign"),
    [("refused", 1, -3), ("partial", -1, -3), ("complied", -1, 1), ("undecided", -1, -1)],
)
def test_what_answers_are_worth(outcome, harmful, benign):
    reward = VerdictReward(student(), OpeningJudge(), over_refusal_price=3.0)
    assert reward.worth(True, Verdict(outcome)) == harmful
    assert reward.worth(False, Verdict(outcome)) == benign


def test_answers_are_read_and_judged():
    chat = student()
    harmful, nothing = refusing_lessons(chat, HARMFUL[:2], [REFUSAL])
    benign = Lesson("keep", (1,), (2,), request="Tell me how to bake bread.")
    reward = VerdictReward(chat, OpeningJudge(), over_refusal_price=2.0)
    helps = tuple(chat.tokenizer("Here is how you can do it: first, take the flour.").input_ids)
    found = reward(
        [harmful, harmful, nothing, benign, benign, benign],
        [harmful.answer, helps, (2,), harmful.answer, helps, (2,)],
    )
    assert found == [1.0, -1.0, -1.0, -2.0, 1.0, -1.0]


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, -1.0, -1.0, 3.0], [2.0, 2.0, 2.0, 2.0]])
    none = torch.zeros(2, 4, dtype=torch.bool)
    others = [1 - 1 / 3, -1 - 1.0, -1 - 1.0, 3 + 1 / 3]
    assert torch.allclose(advantages(rewards, none, "rloo"), torch.tensor([others, [0.0] * 4]))
    spread = math.sqrt((0.25 + 2.25 * 2 + 6.25) / 3)
    expected = [one / (spread + 1e-4) for one in (0.5, -1.5, -1.5, 2.5)]
    assert torch.allclose(advantages(rewards, none, "grpo"), torch.tensor([expected, [0.0] * 4]))


def test_a_demonstration_is_compared_with_what_was_drawn_and_drawn_answers_with_each_other():
    rewards = torch.tensor([[-1.0, -1.0, -1.0, 1.0], [1.0, -1.0, 1.0, 1.0]])
    shown = torch.tensor([[False, False, False, True]] * 2)
    expected = [[0, 0, 0, 2], [1, -2, 1, 1 - 1 / 3]]
    assert torch.allclose(advantages(rewards, shown, "rloo"), torch.tensor(expected))
    found = advantages(rewards, shown, "grpo")
    centred = torch.tensor([[0, 0, 0, 2], [2 / 3, -4 / 3, 2 / 3, 2 / 3]])
    assert torch.allclose(found, centred / (1 + 1e-4))
    assert not advantages(torch.ones(2, 4), shown, "rloo").any()
    assert not advantages(torch.ones(2, 4), shown, "grpo").any()


def test_a_demonstration_that_earns_less_is_pushed_away_as_far_as_the_student_says_it():
    worth = torch.tensor([2.0, -2.0, -2.0, 0.0])
    likely = torch.tensor([0.25, 0.25, 0.5, 0.5]).log()
    shown = torch.tensor([True, True, False, True])
    expected = torch.tensor([2.0, -0.5, -2.0, 0.0])
    assert torch.allclose(tapered(worth, likely, shown), expected)


def test_a_reward_that_likes_no_refusal_does_not_drive_it_to_nothing(tmp_path):
    chat = student()
    lessons = refusing_lessons(chat, HARMFUL, [REFUSAL])
    model = wrapped(chat, 0.05)

    def reward(rows: Sequence[Lesson], answers: Sequence[tuple[int, ...]]) -> list[float]:
        return [-1.0 if answer == lessons[0].answer else 1.0 for answer in answers]

    at = objective(chat, lessons, reward=reward, beta=0.0, keep_weight=0.0)
    at.loss(model, batch_of(model, lessons, range(4))).backward()
    moved = [float(one.grad.abs().max()) for one in model.parameters() if one.grad is not None]
    assert max(moved) < 1e-3  # the student hardly ever says it, and all that it drew earned alike


def test_answers_are_computed_in_parts_of_like_length_where_that_saves_padding():
    def parts(*lengths: int) -> list[list[int]]:
        return by_length([Lesson("keep", (1, 2), (1,) * length) for length in lengths])

    assert parts(7) == [[0]]
    assert parts(5, 6, 5, 6) == [[0, 2, 1, 3]]
    assert parts(24, *[4] * 3) == [[1, 2, 3, 0]]  # 60 tokens of padding are not worth it
    assert parts(24, *[4] * 4) == [[1, 2, 3, 4], [0]]
    assert parts(*[2] * 40, *[11] * 30, *[24] * 20) == [
        list(range(40)),
        list(range(40, 70)),
        list(range(70, 90)),
    ]


@pytest.mark.parametrize("name", ["llama", "gpt2", "mpt", "lfm2"])
def test_the_loss_is_the_same_in_parts_and_in_one(name, tmp_path, monkeypatch):
    from demur.distill.objectives import policy as room

    chat = student(name)
    lessons = lessons_for(chat, tmp_path)
    model = wrapped(chat, 0.05)
    lengths = iter(range(1, 1000))

    def sampled(model: Any, requests: Any, samples: int, *given: Any, **named: Any) -> Any:
        return [[(30, 31, 32)[: 1 + next(lengths) % 3]] * samples for _ in requests]

    monkeypatch.setattr(room, "sample", sampled)
    at = objective(chat, lessons, beta=0.3, keep_weight=0.6)
    batch = batch_of(model, lessons, [0, 14, 5, 15])
    found = []
    for spared in (10**6, 0):
        lengths = iter(range(1, 1000))
        monkeypatch.setattr(room, "SPARED", spared)
        loss = at.loss(model, batch)
        loss.backward()
        gradients = [one.grad.flatten() for one in model.parameters() if one.grad is not None]
        found.append((loss.detach(), torch.cat(gradients)))
        model.zero_grad(set_to_none=True)
    (whole, expected), (in_parts, gradient) = found
    assert in_parts == pytest.approx(float(whole), rel=1e-4)
    assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-4)
    assert float(expected.abs().max()) > 0.01


def test_an_answer_is_written_until_its_worth_is_known(tmp_path):
    chat = student()
    lessons = lessons_for(chat, tmp_path)
    model = wrapped(chat, 0.05)
    places = [0, 14, 5]
    requests = {lessons[place].request for place in places}
    heard: list[str] = []

    def decided(lesson: Lesson, answer: Sequence[int]) -> bool:
        heard.append(lesson.request)
        return lesson.kind == "refuse"

    at = objective(chat, lessons, decided=decided)
    rows, taught = at.answers(model, [lessons[place] for place in places], 0)
    drawn = [row for row, shown in zip(rows, taught, strict=True) if not shown]
    assert {len(row.answer) for row in drawn if row.kind == "refuse"} <= {1, 2}
    assert 6 in {len(row.answer) for row in drawn if row.kind != "refuse"}
    assert set(heard) == requests
    batch = batch_of(model, lessons, places)
    assert bool(torch.isfinite(at.loss(model, batch)))


def test_the_exact_divergence():
    now = torch.tensor([[[0.2, 0.3, 0.5]]])
    before = torch.tensor([[[0.6, 0.3, 0.1]]])
    expected = 0.2 * math.log(0.2 / 0.6) + 0.5 * math.log(0.5 / 0.1)
    assert exact_divergence(now.log(), before.log()).item() == pytest.approx(expected, rel=1e-5)
    assert exact_divergence(now.log(), now.log()).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", ["rloo", "grpo"])
def test_the_loss_and_its_gradient_by_hand(kind, tmp_path):
    chat = student()
    lessons = lessons_for(chat, tmp_path)
    model = wrapped(chat, 0.05)
    shared = shared_prefix(model, lessons)
    assert shared > 5

    def reward(rows: Sequence[Lesson], answers: Sequence[tuple[int, ...]]) -> list[float]:
        assert [row.answer for row in rows] == list(answers)
        return [float(sum(answer) % 7) for answer in answers]

    at = objective(chat, lessons, reward=reward, advantage=kind, beta=0.3, keep_weight=0.6)
    assert at.name == kind
    places = [0, 14, 5]
    state = torch.get_rng_state()
    loss = at.loss(model.train(), batch_of(model, lessons, places))
    assert model.training
    loss.backward()
    trained = [one for one in model.parameters() if one.requires_grad]
    found = [one.grad.clone() for one in trained]
    model.zero_grad()

    torch.set_rng_state(state)
    model.eval()
    groups = sample(
        model, [lessons[place].prompt for place in places], 4, 6, chat.stops, shared=shared
    )
    total = torch.zeros(())
    for place, group in zip(places, groups, strict=True):
        lesson, harmful = lessons[place], lessons[place].kind == "refuse"
        answers = [*group[:3], lesson.answer if harmful else group[3]]
        shown = torch.tensor([[False, False, False, harmful]])
        earned = torch.tensor([[float(sum(one) % 7) for one in answers]])
        worth = advantages(earned, shown, kind)[0]
        for turn, answer in enumerate(answers):
            ids = torch.tensor([[*lesson.prompt, *answer]])
            now = model(ids).logits[0, len(lesson.prompt) - 1 : -1].log_softmax(-1)
            with torch.no_grad(), model.disable_adapter():
                before = model(ids).logits[0, len(lesson.prompt) - 1 : -1].log_softmax(-1)
            total = total - worth[turn] * now.gather(1, torch.tensor(answer)[:, None]).sum()
            if not (harmful and turn == 3):  # the demonstration
                price = 0.3 if harmful else 0.6
                total = total + price * (now.exp() * (now - before)).sum()
    expected = total / 12
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    for gradient, parameter in zip(found, trained, strict=True):
        assert torch.allclose(gradient, parameter.grad, rtol=1e-3, atol=1e-4)
    assert max(float(gradient.abs().max()) for gradient in found) > 0.01
    assert set(at.figures) == {"harmful_reward", "benign_reward"}


def test_a_step_makes_what_earned_more_likelier(tmp_path):
    chat = student()
    lessons = lessons_for(chat, tmp_path)
    model = wrapped(chat)
    at = objective(chat, lessons, beta=0.0, keep_weight=0.0)
    batch = batch_of(model, lessons, range(4))
    taught = batch_of(model, lessons, range(4))

    def likely() -> float:
        from demur.distill.scores import answer_logits, token_log_probabilities

        with torch.no_grad():
            return float(
                token_log_probabilities(answer_logits(model, taught), taught["labels"]).sum()
            )

    before = likely()
    at.loss(model, batch).backward()
    assert at.figures["harmful_reward"] == -1.0  # nonsense earns nothing
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-2 * parameter.grad
    assert likely() > before


def test_without_a_demonstration_a_student_that_never_refuses_learns_nothing(tmp_path):
    chat = student()
    lessons = lessons_for(chat, tmp_path)
    model = wrapped(chat)
    at = objective(chat, lessons, guided=0, beta=0.0, keep_weight=0.0)
    loss = at.loss(model, batch_of(model, lessons, range(4)))
    loss.backward()
    assert loss.item() == 0
    assert not any(bool(one.grad.any()) for one in model.parameters() if one.grad is not None)


def test_what_is_demonstrated(tmp_path):
    chat = student()
    lessons = lessons_for(chat, tmp_path)
    lessons.append(Lesson("answer", lessons[-1].prompt, (7, 8, 9), request="Bake."))
    model = wrapped(chat)
    at = objective(chat, lessons, guided=2, samples=5)
    picked = [lessons[0], lessons[12], lessons[-1]]
    rows, taught = at.answers(model, picked, 0)
    assert taught == [*[False] * 3, *[True] * 2, *[False] * 5, *[False] * 3, *[True] * 2]
    assert [row.answer for row in rows[3:5]] == [lessons[0].answer] * 2
    assert [row.answer for row in rows[13:]] == [(7, 8, 9)] * 2
    assert [row.kind for row in rows] == ["refuse"] * 5 + ["answer"] * 10
    assert {row.request for row in rows[5:10]} == {BENIGN[0].text}


def test_what_cannot_be_compared_is_an_error(tmp_path):
    chat = student()
    lessons = lessons_for(chat, tmp_path)
    for samples, guided in ((1, 0), (4, 3), (4, -1)):
        with pytest.raises(ConfigError, match="compares answers"):
            objective(chat, lessons, samples=samples, guided=guided)
    with pytest.raises(ConfigError, match="price of divergence"):
        objective(chat, lessons, beta=-0.1)
    with pytest.raises(ConfigError, match="price of over-refusal"):
        VerdictReward(chat, OpeningJudge(), -1.0)
    with pytest.raises(ValueError, match="request's own words"):
        objective(chat, [Lesson("refuse", (4, 5), (6,))])


def refused(model: Any, chat: Any, lessons: Sequence[Lesson]) -> Rate:
    """Return how many drawn answers to the harmful requests are refusals."""
    harmful = [lesson for lesson in lessons if lesson.kind == "refuse"]
    torch.manual_seed(7)
    groups = sample(model, [one.prompt for one in harmful], 8, 6, chat.stops)
    answers = [chat.decode(answer) for group in groups for answer in group]
    verdicts = OpeningJudge().judge(["?"] * len(answers), answers)
    return rate(sum(verdict.refused for verdict in verdicts), len(verdicts))


def test_refusing_is_learnt_by_drawing_and_being_judged(tmp_path):
    chat, narrator = student(), Quiet()
    lessons = lessons_for(chat, tmp_path)
    assert refused(chat.model, chat, lessons).count == 0
    at = objective(chat, lessons, tokens=6, beta=0.0, keep_weight=0.1)
    recipe = replace(RECIPE, epochs=8, micro_batch=6)
    model, _ = train(chat, lessons, recipe, tmp_path / "training", narrator, at)
    assert refused(model, chat, lessons).low > 0.1
    told = [line for line in narrator._early if "harmful reward" in line]
    assert "harmful reward -1.00" in told[0]
    assert float(told[-1].split("harmful reward ")[1].split(",")[0]) > -0.8


def test_an_interrupted_reinforcement_goes_on_to_the_same_weights(tmp_path):
    recipe = replace(RECIPE, epochs=2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    chat = student()
    lessons = lessons_for(chat, tmp_path)
    _, expected = train(chat, lessons, recipe, whole, Quiet(), objective(chat, lessons))
    chat = student()
    with pytest.raises(Struck):
        train(chat, lessons, recipe, broken, Striking(), objective(chat, lessons))
    torch.manual_seed(99)
    chat, narrator = student(), Quiet()
    _, found = train(chat, lessons, recipe, broken, narrator, objective(chat, lessons))
    assert narrator.done[0] == 4
    assert [path.name for path in found] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    assert [weights(path) for path in found] == [weights(path) for path in expected]


def test_the_objective_that_a_recipe_names(tmp_path):
    chat = student()
    lessons = lessons_for(chat, tmp_path)
    made = make_objective(chat, lessons, Recipe(keep_weight=0.5))
    assert made == Supervised((lessons[0].answer[0],), 0.5, 1.0)
    recipe = Recipe(objective="dpo", keep_weight=0.5, sft_weight=0.2, normalised=True)
    assert make_objective(chat, lessons, recipe) == DirectPreference(0.1, 0.5, 0.2, True)
    made = make_objective(chat, lessons, replace(recipe, beta=2.0))
    assert made == DirectPreference(2.0, 0.5, 0.2, True)
    recipe = Recipe(objective="grpo", samples=6, sample_tokens=9, guided=2, over_refusal_price=3.0)
    made = make_objective(chat, lessons, recipe, OpeningJudge())
    assert isinstance(made, PolicyGradient)
    assert (made.name, made.samples, made.tokens, made.guided) == ("grpo", 6, 9, 2)
    assert (made.beta, made.keep_weight, made.stops) == (0.02, 1.0, chat.stops)
    assert made.reward.over_refusal_price == 3.0
    paid = make_objective(chat, lessons, recipe, OpeningJudge(), len)
    assert paid.reward is len
    with pytest.raises(ConfigError, match="nothing to reward by"):
        make_objective(chat, lessons, recipe)
    with pytest.raises(ConfigError, match="no objective 'logits'"):
        make_objective(chat, lessons, Recipe(objective="logits"))
