"""The refusal margin equals what plain forward passes of whole rows give, on every architecture."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from tests.models.architectures import SETTINGS, tiny
from tests.models.test_generation import chat_model
from tests.tiny import tiny_tokenizer

from demur.errors import ConfigError
from demur.graft.margin import RefusalMargin
from demur.graft.openings import (
    Openings,
    leads,
    make_openings,
    opening_tokens,
    openings_for,
)
from demur.models.anatomy import anatomy_of
from demur.models.branches import can_branch, grow

BRANCHING = {
    "llama", "mistral", "mistral-wide", "qwen2", "qwen3", "phi3", "olmo2", "gpt-neox", "gpt2",
    "falcon", "opt", "mixtral",
}  # fmt: skip
REFUSING = ((7, 8, 9), (7, 8, 10, 11), (7, 12), (13,))
COMPLYING = ((7, 14), (15, 16))


def requests(count: int = 5, prefix: int = 6) -> list[list[int]]:
    generator = random.Random(5)
    head = [generator.randrange(3, 300) for _ in range(prefix)]
    return [
        [*head, 3 + index, *(generator.randrange(3, 300) for _ in range(2 * index))]
        for index in range(count)
    ]


def openings(count: int = 5) -> list[Openings]:
    owns = [(), (7, 8, 20, 21), (30, 31, 32), (15, 17), (33,)]
    return [make_openings(REFUSING, COMPLYING, own) for own in owns[:count]]


def plainly(model: Any, request: list[int], each: Openings) -> Any:
    """The definition, a whole row an opening."""

    def chance(opening: tuple[int, ...]) -> Any:
        ids = torch.tensor([[*request, *opening]])
        scores = model(ids, use_cache=False).logits[0].float().log_softmax(-1)
        places = range(len(request) - 1, ids.shape[1] - 1)
        return sum(scores[place, token] for place, token in zip(places, opening, strict=True))

    refuse = torch.stack([chance(one) for one in each.refusing]).logsumexp(0)
    return refuse - torch.stack([chance(one) for one in each.complying]).logsumexp(0)


@pytest.mark.parametrize("name", SETTINGS)
def test_margins_equal_the_definition(name):
    model = tiny(name)
    asked, begun = requests(), openings()
    margin = RefusalMargin(model, asked, begun, rows=2)
    assert margin.branches == (name in BRANCHING)
    with torch.no_grad():
        expected = torch.stack(
            [plainly(model, row, each) for row, each in zip(asked, begun, strict=True)]
        )
    found = margin()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
    torch.testing.assert_close(margin([3, 1]), expected[[3, 1]], atol=2e-4, rtol=2e-4)


def test_without_a_shared_beginning():
    model, begun = tiny("llama"), openings(2)
    rows = [[5, 6, 7], [8, 9, 10, 11]]
    with torch.no_grad():
        expected = torch.stack([plainly(model, *pair) for pair in zip(rows, begun, strict=True)])
    torch.testing.assert_close(RefusalMargin(model, rows, begun)(), expected, atol=1e-5, rtol=1e-4)


def test_gradients_reach_the_weights_through_the_shared_beginning_too():
    model = tiny("llama")
    weight = model.model.layers[0].self_attn.k_proj.weight
    weight.requires_grad_(True)
    try:
        asked, begun = requests(), openings()
        margin = RefusalMargin(model, asked, begun, rows=2)
        total = torch.zeros_like(weight)
        seen: list[int] = []
        for indices, values in margin.differentiable():
            (gradient,) = torch.autograd.grad(values.sum(), weight)
            total += gradient
            seen += indices
        assert sorted(seen) == list(range(5))
        whole = sum(plainly(model, row, each) for row, each in zip(asked, begun, strict=True))
        (expected,) = torch.autograd.grad(whole, weight)
        torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-3)
        assert total.abs().max() > 1e-3
    finally:
        weight.requires_grad_(False)


def test_a_margin_follows_the_weights():
    model = tiny("llama")
    margin = RefusalMargin(model, requests(), openings())
    before = margin()
    weight = model.model.layers[1].mlp.down_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(3.0)
        assert (margin() - before).abs().max() > 1e-3
        weight.copy_(kept)
    assert torch.equal(margin(), before)


def test_a_tree_shares_beginnings():
    tree = grow([(1, 2, 3), (1, 2, 4), (1, 5), (6,)])
    assert tree.tokens == (1, 2)
    assert tree.parents == (0, 1)
    assert tree.paths == ((0, 1, 2), (0, 1, 2), (0, 1), (0,))


def test_padding_of_trees_and_rows_changes_nothing():
    model, asked, begun = tiny("llama"), requests(), openings()
    together = RefusalMargin(model, asked, begun, rows=5)()
    alone = torch.cat([RefusalMargin(model, [r], [o])() for r, o in zip(asked, begun, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert can_branch(model, 30)


def test_nested_openings_become_one_and_own_refusals_do_not_count_as_complying():
    made = make_openings([(1, 2), (1, 2, 3), (1, 2)], [(1, 2, 5), (4,)], (1,))
    assert made == Openings(((1, 2),), ((4,),))
    with pytest.raises(ConfigError, match="begins with another"):
        Openings(((1, 2),), ((1,),))
    with pytest.raises(ConfigError, match="needs an opening"):
        make_openings([(1, 2)], [(1,)])


def test_openings_for_requests():
    chat = chat_model(tiny("llama"))
    tokenizer = chat.tokenizer
    here = tokenizer("Here is how you can do it").input_ids
    refusal = tokenizer("I cannot help with that request.").input_ids
    bread = tokenizer("bake bread").input_ids
    first, second, third = openings_for(chat, [here, refusal, bread], donor=[refusal])
    assert first.refusing == second.refusing == third.refusing
    assert opening_tokens(tokenizer, "I cannot") in first.refusing
    assert opening_tokens(tokenizer, "Here") in first.complying
    assert tuple(bread[:4]) in third.complying
    assert len(second.complying) == len(first.complying)
    assert not any(tuple(refusal[: len(one)]) == one for one in second.complying)


def test_answers_after_templates_that_leave_the_space_to_the_answer():
    tokenizer = tiny_tokenizer()
    spaced = tokenizer(" I cannot").input_ids
    assert leads(tokenizer, [spaced]) and not leads(tokenizer, [tokenizer("I can").input_ids])
    assert opening_tokens(tokenizer, "I cannot", lead=True) == tuple(spaced)
    assert opening_tokens(tokenizer, "I cannot") == tuple(tokenizer("I cannot").input_ids)


@pytest.mark.parametrize("name", sorted(set(SETTINGS) - {"opt", "lfm2"}))  # without an anatomy
def test_layers_below_the_lowest_change_are_taken_as_remembered(name):
    model = tiny(name)
    blocks = [layer.block for layer in anatomy_of(model).layers]
    margin = RefusalMargin(model, requests(), openings(), rows=2)
    margin.remember(blocks)
    torch.testing.assert_close(margin.from_layer(1), margin(), atol=1e-5, rtol=1e-4)
    weight = max(model.get_submodule(blocks[1]).parameters(), key=lambda each: each.numel())
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(2.0)
        after = margin()
        torch.testing.assert_close(margin.from_layer(1), after, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(margin.from_layer(0), after, atol=1e-5, rtol=1e-4)
        margin.remember(blocks, every=2)
        torch.testing.assert_close(margin.from_layer(1), after, atol=1e-5, rtol=1e-4)
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_layers_passed_over_are_not_computed():
    model = tiny("llama")
    blocks = [layer.block for layer in anatomy_of(model).layers]
    margin = RefusalMargin(model, requests(), openings())
    margin.remember(blocks)
    seen: list[int] = []
    hook = model.model.layers[0].mlp.register_forward_hook(lambda *_: seen.append(0))
    try:
        margin.from_layer(1)
        assert not seen
        margin.from_layer(0)
        assert seen
    finally:
        hook.remove()
