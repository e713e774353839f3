"""Modules put over from one model to another, exactly and to first order."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tests.graft.test_margin import openings, requests
from tests.models.architectures import tiny

from demur.errors import ModelError
from demur.graft.margin import RefusalMargin
from demur.graft.tracing.crossing import (
    Donated,
    attributed,
    blocks_of,
    crossed,
    crossing_of,
)
from demur.models.anatomy import anatomy_of


def two(name: str, size: float) -> tuple[Any, Any]:
    """Return a recipient and a donor that differs from it by noise of that size."""
    recipient, donor = (copy.deepcopy(tiny(name)) for _ in range(2))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in donor.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return recipient, donor


@pytest.mark.parametrize("name", ["llama", "phi3", "gpt2", "mixtral"])
def test_a_block_alone_is_the_donors_and_the_old_bits_come_back(name):
    recipient, donor = two(name, 0.1)
    anatomy = anatomy_of(recipient)
    before = {key: value.clone() for key, value in recipient.state_dict().items()}
    margin = RefusalMargin(recipient, requests(), openings())
    margin.remember([layer.block for layer in anatomy.layers])
    donated = Donated(recipient, donor, anatomy)
    blocks = blocks_of(anatomy, ["mlp", "attention", "q"])
    found = list(crossed(donated, blocks, margin))
    for key, value in recipient.state_dict().items():
        assert torch.equal(value, before[key]), key
    base = margin()
    changed = set()
    for block, margins in zip(blocks, found, strict=True):
        with donated(block):
            torch.testing.assert_close(margins, margin(), atol=1e-4, rtol=1e-4)
            changed.add(
                tuple(
                    key
                    for key, value in recipient.state_dict().items()
                    if not torch.equal(value, before[key])
                )
            )
        assert (margins - base).abs().max() > 1e-3
    assert len(changed) == len(blocks) or name in ("phi3", "gpt2")  # fused: one tensor for several


def test_everything_put_over_is_the_donor():
    recipient, donor = two("llama", 0.1)
    anatomy = anatomy_of(recipient)
    with torch.no_grad():
        for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
            recipient.get_parameter(name).copy_(donor.get_parameter(name))
    donated = Donated(recipient, donor, anatomy)
    kinds = ["mlp", "attention", "norm"]
    blocks = blocks_of(anatomy, kinds, window=9)[: len(kinds)]
    assert sum(len(block.modules) for block in blocks) == len(anatomy.modules)
    with donated(blocks[0]), donated(blocks[1]), donated(blocks[2]):
        inside = RefusalMargin(recipient, requests(), openings())()
    torch.testing.assert_close(inside, RefusalMargin(donor, requests(), openings())())


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral"])
def test_first_order_effects_are_the_slopes_of_exact_ones(name):
    recipient, donor = two(name, 1e-3)
    anatomy = anatomy_of(recipient)
    donated = Donated(recipient, donor, anatomy)
    margin = RefusalMargin(recipient, requests(), openings(), rows=1)
    slopes = attributed(donated, anatomy.modules, margin)
    assert slopes.shape == (5, len(anatomy.modules))
    assert not any(p.requires_grad or p.grad is not None for p in recipient.parameters())
    by_kind = {
        block.name: block for kind in anatomy.modules for block in blocks_of(anatomy, [kind.kind])
    }
    base = margin()
    exact, first = [], []
    for number, module in enumerate(anatomy.modules):
        with donated(by_kind[module.name]):
            exact.append((margin() - base).numpy())
        first.append(slopes[:, number])
    assert np.corrcoef(np.ravel(exact), np.ravel(first))[0, 1] > 0.98
    together = attributed(
        donated, anatomy.modules, RefusalMargin(recipient, requests(), openings(), rows=5)
    )
    np.testing.assert_allclose(together.mean(0), slopes.mean(0), atol=1e-5)


def test_crossings_are_paired():
    block = blocks_of(anatomy_of(tiny("llama")), ["mlp"])[1]
    made = crossing_of(block, np.array([1.0, 2.0, 3.0, 2.0]), np.array([0.0, 1.0, 2.0, 1.0]))
    assert (made.kind, made.layer, made.parameters) == ("mlp", 1, 3 * 32 * 48)
    assert made.harmful.value == 2.0 and made.benign.value == 1.0
    assert made.selectivity.value == made.selectivity.low == made.selectivity.high == 1.0
    assert made.harmful.low < 2.0 < made.harmful.high


def test_models_of_other_shapes_are_refused():
    recipient, _ = two("llama", 0.1)
    with pytest.raises(ModelError, match="does not fit"):
        Donated(recipient, tiny("phi3"), anatomy_of(recipient))
