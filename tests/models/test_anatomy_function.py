"""That every module is what it is called: by what changing it does to the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from tests.models.anatomies import SETTINGS, UNGATED, build

from demur.models.anatomy import Anatomy, Kind, Module, anatomy_of, assign, select

IDS = torch.tensor([[5, 9, 33, 23, 41, 7]])
PLACE = 2
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@cache
def made(name: str) -> tuple[Any, Anatomy]:
    model = build(name).double()
    model.config._experts_implementation = "eager"  # the others take no float64
    return model, anatomy_of(model)


def module_of(anatomy: Anatomy, kind: Kind) -> Module:
    return next(one for one in anatomy.modules if one.layer == 0 and one.kind == kind)


def output_of(model: Any, path: str, *, at: str = "", change: Callable[..., Any] | None = None):
    """Return what a submodule gives out when another's output is changed in place."""
    caught = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        caught.append((output[0] if isinstance(output, tuple) else output).clone())

    def alter(_module: Any, _inputs: Any, output: Any) -> Any:
        output = output.clone()
        change(output)
        return output

    hooks = [model.get_submodule(path).register_forward_hook(keep)]
    if change is not None:
        hooks.insert(0, model.get_submodule(at).register_forward_hook(alter, prepend=True))
    with torch.no_grad():
        model(IDS, use_cache=False)
    for hook in hooks:
        hook.remove()
    return caught[0].reshape(IDS.shape[1], -1)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("kind", ["q", "k", "v", "o"])
def test_attention_answers_as_its_projections_must(name, kind):
    model, anatomy = made(name)
    module, path = module_of(anatomy, kind), anatomy.layers[0].attention
    assert module.output is not None and module.output.tensor == module.path

    def moved(strength: float) -> Any:
        def change(output: Any) -> None:
            here = output[:, PLACE]
            values = select(here, module.output)
            noise = torch.linspace(-1, 2, values.numel(), dtype=values.dtype).sin()
            assign(here, module.output, values + strength * noise.reshape(values.shape))

        return output_of(model, path, at=module.path, change=change)

    still, once, twice = output_of(model, path), moved(1), moved(2)
    affine = torch.allclose(twice - still, 2 * (once - still), **CLOSE)
    touched = [not torch.allclose(a, b, **CLOSE) for a, b in zip(once, still, strict=True)]
    assert not any(touched[:PLACE])
    if kind in ("q", "o"):  # a query asks for its own place alone
        assert touched[PLACE] and not any(touched[PLACE + 1 :])
    else:  # a key and a value are seen from all places after
        assert all(touched[PLACE:])
    assert affine == (kind in ("v", "o"))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_mlp_answers_as_its_projections_must(name):
    model, anatomy = made(name)
    path = anatomy.layers[0].mlp

    def scaled(kind: Kind, strength: float) -> Any:
        module = module_of(anatomy, kind)
        before = [model.get_parameter(part.tensor).detach().clone() for part in module.memory]
        for part in module.memory:
            parameter = model.get_parameter(part.tensor)
            assign(parameter, part, strength * select(parameter, part).detach())
        result = output_of(model, path)
        for part, old in zip(module.memory, before, strict=True):
            assert not torch.equal(model.get_parameter(part.tensor), old)
            model.get_parameter(part.tensor).data.copy_(old)
        return result

    def affine(kind: Kind) -> bool:
        ends = scaled(kind, 0) + output_of(model, path)
        return torch.allclose(2 * scaled(kind, 0.5), ends, **CLOSE)

    gated = name not in UNGATED
    assert affine("down") and torch.allclose(scaled("down", 0), torch.zeros(()).double(), **CLOSE)
    assert affine("up") == gated  # it only multiplies what the gate lets through
    if gated:
        assert not affine("gate")


@pytest.mark.parametrize("name", SETTINGS)
def test_layers_say_what_adds_to_the_residual_stream(name):
    """Without attention and MLP of either layer, what goes in comes out."""
    model, anatomy = made(name)

    def nothing(_module: Any, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)

    layer = anatomy.layers[0]
    before = []

    def keep(_module: Any, args: Any, kwargs: Any) -> None:
        before.append(args[0] if args else kwargs["hidden_states"])

    hooks = [
        model.get_submodule(layer.attention).register_forward_hook(nothing),
        model.get_submodule(layer.mlp).register_forward_hook(nothing),
        model.get_submodule(layer.block).register_forward_pre_hook(
            lambda _module, args, kwargs: before.append(
                args[0] if args else kwargs["hidden_states"]
            ),
            with_kwargs=True,
        ),
    ]
    after = output_of(model, layer.block)
    for hook in hooks:
        hook.remove()
    assert torch.equal(before[0].reshape(after.shape), after)
