"""Passes that begin at a later layer give the logits of whole passes, with and without a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models.architectures import tiny
from transformers import DynamicCache

from demur.models.later import kept_streams, starting_at

KINDS = ("llama", "phi3", "gemma2", "gpt2", "falcon", "mistral-wide", "qwen3", "bloom", "opt")


def blocks(model: Any) -> list[str]:
    """Return the names of the decoder layers."""
    lists = [
        (name, child)
        for name, child in model.named_modules()
        if isinstance(child, torch.nn.ModuleList) and len(child) == 2
    ]
    return [f"{lists[0][0]}.{place}" for place in range(2)]


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_logits_are_those_of_the_whole_pass(kind: str) -> None:
    model, names = tiny(kind), blocks(tiny(kind))
    ids = torch.arange(3, 27).reshape(2, 12)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    with kept_streams(model, names, {1}) as streams:
        whole = model(ids, attention_mask=mask, use_cache=False).logits
    called = []
    hook = model.get_submodule(names[0]).register_forward_hook(lambda *a: called.append(a[2]))
    with starting_at(model, streams, 1):
        later = model(ids, attention_mask=mask, use_cache=False).logits
    hook.remove()

    # What stands before a row is never read.
    assert torch.allclose(later[mask.bool()], whole[mask.bool()], rtol=0, atol=1e-5)
    assert len(called) == 1
    assert torch.equal(model(ids, attention_mask=mask, use_cache=False).logits, whole)


@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt2", "mistral-wide", "qwen3", "falcon"])
@torch.inference_mode()
def test_a_cache_knows_how_long_it_is(kind: str) -> None:
    model, names = tiny(kind), blocks(tiny(kind))
    first, second = torch.arange(3, 12)[None], torch.arange(20, 25)[None]

    def read(*levels: Any) -> Any:
        cache = DynamicCache(config=model.config)
        for place, ids in enumerate((first, second)):
            with (
                starting_at(model, levels[place], 1)
                if levels
                else kept_streams(model, names, {1}) as found
            ):
                logits = model(ids, past_key_values=cache, use_cache=True).logits
            kept.append(found)
        return logits

    kept: list[Any] = []
    whole = read()
    later = read(*kept[:2])

    assert torch.allclose(later, whole, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_changes_above_are_seen_and_those_below_are_not() -> None:
    model, names = tiny("llama"), blocks(tiny("llama"))
    ids = torch.arange(3, 15)[None]
    with kept_streams(model, names, {1}) as streams:
        before = model(ids).logits
    for place, seen in ((1, True), (0, False)):
        weight = model.get_submodule(names[place]).mlp.down_proj.weight
        kept = weight.clone()
        weight.mul_(3)
        whole = model(ids).logits
        with starting_at(model, streams, 1):
            later = model(ids).logits
        weight.copy_(kept)
        assert not torch.allclose(whole, before, atol=1e-3)
        assert torch.allclose(later, whole if seen else before, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_layers_are_put_back_when_a_pass_fails() -> None:
    model, names = tiny("llama"), blocks(tiny("llama"))
    ids = torch.arange(3, 15)[None]
    with kept_streams(model, names, {1}) as streams:
        before = model(ids).logits
    with pytest.raises(RuntimeError), starting_at(model, streams, 1):
        model(ids[:, :5])  # not the tokens of the streams
    assert torch.equal(model(ids).logits, before)
