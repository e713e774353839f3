"""Samples are draws from what the model says row by row, whatever stands beside them."""

from __future__ import annotations

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


def test_the_context_is_not_outgrown():
    model = tiny("gpt2")
    requests = [tuple(range(3, 254)), (3, 4, 5)]
    groups = sample(model, requests, 2, 50, frozenset())
    assert {len(answer) for group in groups for answer in group} == {256 - 251}
