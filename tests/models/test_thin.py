"""Thin products are the same products, and layers are as they were afterwards."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from tests.models.architectures import tiny

from demur.models.thin import MOST, SLICE, TALL, TURNED, TURNED_TALL, thin_products

ROWS = [1, 2, TURNED, TURNED + 1, TURNED_TALL + 1, MOST, MOST + 1]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("out", [11, TALL + 5])
@pytest.mark.parametrize("shape", [*((rows, 7) for rows in ROWS), (3, 1, 7), (2, 5, 7)])
def test_products_are_the_same(bias, out, shape):
    layer, x = torch.nn.Linear(7, out, bias=bias), torch.randn(shape)
    expected = layer(x)
    with torch.inference_mode(), thin_products(torch.nn.Sequential(layer)):
        found = layer(x)
    assert torch.allclose(found, expected, atol=1e-6)
    assert found.shape == expected.shape
    assert found.is_contiguous()


@pytest.mark.parametrize("out", [11, TALL])
def test_which_products_are_turned_and_which_are_sliced(monkeypatch, out):
    layer, real = torch.nn.Linear(3, out), torch.mm
    seen: set[tuple[int, ...]] = set()

    def watched(*given, **named):
        found = real(*given, **named)
        seen.add(tuple(found.shape))
        return found

    monkeypatch.setattr(torch, "mm", watched)
    with torch.inference_mode(), thin_products(layer):
        for rows in range(1, MOST + 2):
            seen.clear()
            layer(torch.ones(rows, 3))
            turned = 1 < rows <= (TURNED_TALL if out == TALL else TURNED)
            sliced = out == TALL and TURNED_TALL < rows <= MOST
            assert seen == ({(out, rows)} if turned else {(rows, SLICE)} if sliced else set())


def test_layers_are_as_they_were_even_after_an_error():
    model = deepcopy(tiny("llama"))

    def fail() -> None:
        with thin_products(model):
            assert "forward" in vars(model.lm_head)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert not any("forward" in vars(module) for module in model.modules())


def test_layers_that_are_not_plain_stay_as_they_are():
    class Own(torch.nn.Linear):
        pass

    own, half = Own(4, 4), torch.nn.Linear(4, 4, dtype=torch.bfloat16)
    away, replaced = torch.nn.Linear(4, 4, device="meta"), torch.nn.Linear(4, 4)
    replaced.forward = lambda x: x
    forward = replaced.forward
    with thin_products(torch.nn.ModuleList([own, half, away, replaced])):
        assert not any("forward" in vars(layer) for layer in (own, half, away))
        assert replaced.forward is forward
    assert replaced.forward is forward


def test_gradients_flow_as_ever():
    layer = torch.nn.Linear(3, 2)
    with thin_products(layer):
        layer(torch.ones(4, 3)).sum().backward()
    assert torch.equal(layer.weight.grad, torch.full((2, 3), 4.0))


def test_hooks_are_called():
    layer, calls = torch.nn.Linear(3, 2), []
    layer.register_forward_hook(lambda *given: calls.append(given))
    with torch.inference_mode(), thin_products(layer):
        layer(torch.ones(4, 3))
    assert len(calls) == 1
