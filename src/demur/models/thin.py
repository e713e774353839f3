"""Thin products, of few rows, in the order that is quick on CPUs: decoding is all such products.

A linear layer computes `x @ W.T`. For a handful of rows that takes longer than `(W @ x.T).T`, the
same product turned round; and where W is as tall as a vocabulary, longer than slice by slice of W,
which the CPU's cache holds (both measured in docs/results/generation.md). Sums may be taken in
another order, so that results agree to rounding, not to the bit.

    with thin_products(model):
        model(...)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

TURNED, TURNED_TALL = 4, 8  # most rows of products that are turned, where W is tall
TALL, SLICE = 16384, 1024  # rows of W: those called tall, and those of a slice
MOST = 64  # rows of products that are called thin


@contextmanager
def thin_products(model: Any) -> Iterator[None]:
    """Have the model's plain linear layers on the CPU, in float32, take the quick order.

    Layers whose forward pass someone else has replaced, and those of kinds of their own, stay as
    they are; so is every layer again when the context is left.
    """
    layers = [module for module in model.modules() if _is_plain(module)]
    for layer in layers:
        layer.forward = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(module: Any) -> bool:
    import torch

    if type(module) is not torch.nn.Linear or "forward" in vars(module):
        return False
    weight = module.weight
    plain = type(weight) in (torch.nn.Parameter, torch.Tensor)
    return plain and weight.device.type == "cpu" and weight.dtype == torch.float32


def _forward(layer: Any, x: Any) -> Any:
    import torch

    rows, tall = x.numel() // x.shape[-1], layer.out_features >= TALL
    turned = 1 < rows <= (TURNED_TALL if tall else TURNED)
    sliced = tall and 1 < rows <= MOST
    if not (turned or sliced) or x.dtype != torch.float32 or torch.is_grad_enabled():
        return torch.nn.functional.linear(x, layer.weight, layer.bias)
    flat = x.reshape(rows, -1)
    if turned:
        # Laid out as a linear layer's result is: what comes after may want to see it flat.
        y = torch.mm(layer.weight, flat.T).T.contiguous()
    else:
        y = flat.new_empty(rows, layer.out_features)
        for part, weight in zip(y.split(SLICE, 1), layer.weight.split(SLICE), strict=True):
            torch.mm(flat, weight.T, out=part)
    if layer.bias is not None:
        y += layer.bias
    return y.reshape(*x.shape[:-1], -1)
