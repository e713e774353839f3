"""Attention while training: written out where that is quicker, as exact, and put back after."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.models.architectures import SETTINGS, tiny

from demur.models.attention import BRIEF, quick_attention


def copied(name: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    """Return a model of its own in a number format."""
    return deepcopy(tiny(name)).to(dtype)


def logits_of(model: Any) -> Any:
    """Return what the model says of two rows, the first one padded on the left."""
    ids = torch.arange(3, 27).reshape(2, 12)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    return model(input_ids=ids, attention_mask=mask).logits[:, -1].float()


def gradients_of(model: Any, longest: int) -> Any:
    """Return all gradients of a number that the logits of two rows come to, as one vector."""
    model.requires_grad_(True)
    with quick_attention(model, longest):
        logits = logits_of(model)
    logits.logsumexp(-1).sum().backward()
    found = [one.grad.flatten().float() for one in model.parameters() if one.grad is not None]
    model.zero_grad(set_to_none=True)
    return torch.cat(found)


@pytest.mark.parametrize("name", SETTINGS)
def test_gradients_are_no_further_from_the_exact_ones(name: str) -> None:
    exact = gradients_of(copied(name, torch.float32), 12)
    model = copied(name)
    fused, plain = (gradients_of(model, longest) for longest in (BRIEF + 1, 12))
    assert (plain - exact).norm() < 1.5 * (fused - exact).norm()
    assert (plain - exact).norm() < 0.25 * exact.norm()


def test_attention_is_written_out_within_the_context_and_put_back_though_it_fails() -> None:
    model, within = copied("llama"), []

    def fail() -> None:
        with quick_attention(model, 12):
            within.append(model.config._attn_implementation)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert within == ["eager"]
    assert model.config._attn_implementation == "sdpa"


def test_a_model_wrapped_by_peft_is_changed_within() -> None:
    model = get_peft_model(copied("llama"), LoraConfig(r=2, target_modules=["q_proj"]))
    with quick_attention(model, 12):
        assert model.get_base_model().config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("dtype", "longest"),
    [(torch.float32, 12), (torch.bfloat16, BRIEF + 1)],
    ids=["float32", "long"],
)
def test_what_would_gain_nothing_is_left_alone(dtype: torch.dtype, longest: int) -> None:
    model = copied("llama", dtype)
    with quick_attention(model, longest):
        assert model.config._attn_implementation == "sdpa"


def test_a_model_that_has_attention_of_its_own_keeps_it() -> None:
    model = copied("llama")
    model.set_attn_implementation("eager")
    with quick_attention(model, 12):
        assert model.config._attn_implementation == "eager"
    assert model.config._attn_implementation == "eager"
