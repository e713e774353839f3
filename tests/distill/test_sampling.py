"""Samples are draws from what the model says row by row, whatever stands beside them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tests.models.architectures import tiny

from demur.distill.sampling import draw, sample
from demur.models.forward import common_prefix

REQUESTS = [(5, 6, 7, 20, 21), (5, 6, 7, 30), (5, 6, 7, 40, 41, 42, 43)]


@pytest.mark.parametrize("name", ["llama", "gpt2", "mpt", "mistral-window", "lfm2"])
@pytest.mark.parametrize("stops", [frozenset(), frozenset(range(0, 200))])
def test_answers_are_those_of_single_rows(name, stops, monkeypatch):
    """With the likeliest token drawn each time, a batch writes what each row would alone."""
    from demur.distill import sampling as room

    monkeypatch.setattr(room, "draw", lambda logits: logits.argmax(-1))
    model = tiny(name)
    groups = sample(model, REQUESTS, 2, 6, stops, shared=common_prefix(REQUESTS))
    assert [len(group) for group in groups] == [2, 2, 2]
    lengths = set()
    for request, group in zip(REQUESTS, groups, strict=True):
        ids = list(request)
        with torch.no_grad():
            while len(ids) - len(request) < 6:
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] in stops:
                    break
        assert group == [tuple(ids[len(request) :])] * 2
        lengths.add(len(group[0]))
    assert lengths == {6} or stops


def test_draws_follow_the_probabilities():
    logits = torch.tensor([[0.5, 0.0, 0.3, 0.2], [0.0, 1.0, 0.0, 0.0]]).log()
    torch.manual_seed(0)
    drawn = draw(logits.repeat_interleave(20000, 0)).reshape(2, -1)
    shares = torch.bincount(drawn[0], minlength=4) / 20000
    assert torch.allclose(shares, torch.tensor([0.5, 0.0, 0.3, 0.2]), atol=0.015)
    assert shares[1] == 0
    assert bool((drawn[1] == 1).all())


def test_draws_depend_on_the_generator_alone():
    model = tiny("llama")
    torch.manual_seed(3)
    first = sample(model, REQUESTS, 4, 8, frozenset({2}), shared=3)
    state = torch.get_rng_state()
    second = sample(model, REQUESTS, 4, 8, frozenset({2}), shared=3)
    torch.set_rng_state(state)
    assert sample(model, REQUESTS, 4, 8, frozenset({2}), shared=3) == second
    torch.manual_seed(3)
    assert sample(model, REQUESTS, 4, 8, frozenset({2}), shared=3) == first != second
    assert len({answer for group in first for answer in group}) == 12


def test_a_row_that_is_over_is_written_no_further():
    model = tiny("llama")
    torch.manual_seed(3)
    whole = sample(model, REQUESTS, 2, 8, frozenset(), shared=3)
    asked: list[tuple[int, int]] = []

    def over(row: int, new: Sequence[int]) -> bool:
        asked.append((row, len(new)))
        return row == 1 or (row == 4 and len(new) == 6)

    torch.manual_seed(3)
    found = sample(model, REQUESTS, 2, 8, frozenset(), shared=3, over=over)
    lengths = [len(answer) for group in found for answer in group]
    assert lengths == [8, 2, 8, 8, 6, 8]
    assert found[0][1] == whole[0][1][:2]  # until then all rows are drawn as before
    assert {length for _, length in asked} == {2, 4, 6}
    assert [row for row, length in asked if length == 4] == [0, 2, 3, 4, 5]


@pytest.mark.parametrize("count", [5, 256, 300, 1024])
def test_a_draw_is_the_token_at_its_place_in_the_distribution(count, monkeypatch):
    logits = 3 * torch.randn((200, count), generator=torch.Generator().manual_seed(1))
    logits[:, ::3] = -torch.inf
    numbers = torch.rand((200, 1), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    numbers[:2] = torch.tensor([[0.0], [1 - 2**-53]])
    monkeypatch.setattr(torch, "rand", lambda *at, **named: numbers)
    drawn = draw(logits)
    whole = logits.double().softmax(-1).cumsum(-1)
    expected = torch.searchsorted(whole, numbers * whole[:, -1:], right=True)[:, 0]
    assert (drawn == expected).float().mean() > 0.99  # but for rounding at a token's edge
    assert bool(torch.isfinite(logits[torch.arange(200), drawn]).all())


def test_the_context_is_not_outgrown():
    model = tiny("gpt2")
    requests = [tuple(range(3, 254)), (3, 4, 5)]
    groups = sample(model, requests, 2, 50, frozenset())
    assert {len(answer) for group in groups for answer in group} == {256 - 251}
