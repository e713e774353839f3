"""Rollouts: drawn from the student's distribution, row by row as if alone."""

from __future__ import annotations

import random
from copy import deepcopy

import pytest
import torch
from tests.models.architectures import tiny

from demur.distill.sampling import rollout
from demur.errors import TrainingError
from demur.models.generation import decode

NOTHING: frozenset[int] = frozenset()


def rows(count: int = 4, head: int = 4) -> list[tuple[int, ...]]:
    generator = random.Random(7)
    begin = tuple(generator.randrange(3, 300) for _ in range(head))
    return [
        (*begin, 3 + row, *(generator.randrange(3, 300) for _ in range(row * 2)))
        for row in range(count)
    ]


@pytest.mark.parametrize(
    "name", ["llama", "gpt2", "gemma2", "mpt", "bloom", "lfm2", "mistral-window", "mixtral"]
)
def test_a_cold_draw_is_what_greedy_decoding_writes_for_each_row_alone(name):
    model = tiny(name)
    expected = [decode(model, [row], 9, NOTHING)[0].tokens for row in rows()]
    stops = frozenset(token for answer in expected[:2] for token in answer[3:5])

    def cut(answer: tuple[int, ...]) -> tuple[int, ...]:
        ends = [place for place, token in enumerate(answer) if token in stops]
        return answer[: ends[0] + 1] if ends else answer

    drawn = rollout(model, rows(), 9, stops, temperature=1e-5)
    assert drawn == [cut(answer) for answer in expected]
    assert min(map(len, drawn)) < 9


def test_draws_follow_the_models_distribution_and_the_temperature():
    model, prompt = tiny("llama"), rows(1)[0]
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1].double()
    torch.manual_seed(0)
    spreads = []
    for temperature in (1.0, 0.1, 0.03):  # a tiny model's own distribution is nearly flat
        drawn = rollout(model, [prompt] * 4000, 1, NOTHING, temperature=temperature)
        expected = 4000 * (logits / temperature).softmax(-1)
        counts = torch.bincount(torch.tensor(drawn)[:, 0], minlength=len(logits))
        usual = expected > 5
        distance = ((counts - expected)[usual] ** 2 / expected[usual]).sum().item()
        freedom = int(usual.sum())
        assert distance < freedom + 4 * (2 * freedom) ** 0.5  # Pearson's chi-squared
        spreads.append((freedom, counts.max().item()))
    assert spreads[0][0] > spreads[2][0] > 1
    assert spreads[0][1] < spreads[1][1] < spreads[2][1]


def test_the_draws_come_from_torchs_own_state_and_the_model_is_left_in_training():
    model = deepcopy(tiny("gpt2")).train()  # which has dropout
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = rollout(model, rows(), 6, NOTHING)
    second = rollout(model, rows(), 6, NOTHING)
    torch.set_rng_state(state)
    assert rollout(model, rows(), 6, NOTHING) == first != second
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_row_that_fills_the_context_ends():
    model = tiny("llama")
    long = tuple(3 + place % 200 for place in range(250))
    drawn = rollout(model, [long, long[:9]], 20, NOTHING)
    assert [len(answer) for answer in drawn] == [6, 20]


def test_probabilities_that_are_no_numbers_are_an_error():
    model = deepcopy(tiny("llama"))
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(TrainingError, match="became NaN"):
        rollout(model, rows(), 3, NOTHING)


def test_tokens_beyond_another_models_head_are_not_drawn():
    model = tiny("llama")
    torch.manual_seed(0)
    drawn = rollout(model, rows() * 8, 6, NOTHING, width=30)
    assert {max(answer) < 30 for answer in drawn} == {True}
    torch.manual_seed(0)
    assert max(map(max, rollout(model, rows() * 8, 6, NOTHING))) >= 30
