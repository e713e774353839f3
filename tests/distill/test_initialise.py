"""The informed beginning: right directions from right activations, and a model left as it was."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import pytest
import torch
from tests.distill.students import student
from tests.models.architectures import NAMES, SHAPE, tiny

from demur.distill import initialise as room
from demur.distill.initialise import QUIET, RIDGES, discriminants, inform, last_token_inputs
from demur.distill.train import target_modules

SHARING = {"llama", "gpt2", "qwen2-moe"}
Requests = list[tuple[int, ...]]


def made_requests(count: int, head: int = 5, seed: int = 5) -> Requests:
    """Return requests of many lengths whose first `head` tokens, and no more, are the same."""
    generator = random.Random(seed)
    begin = tuple(range(100, 100 + head))
    return [
        (*begin, 3 + number, *(generator.randrange(3, 300) for _ in range(generator.randrange(9))))
        for number in range(count)
    ]


def templated(count: int, seed: int) -> Requests:
    """Return requests that begin and end alike, as a chat template makes them."""
    return [(*request, 7, 8) for request in made_requests(count, seed=seed)]


def wrapped(name: str, rank: int = 8, **lora: Any) -> Any:
    """Return a tiny model with LoRA layers; the same at each call."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(11)
    model = student(name).model
    lora = {"target_modules": target_modules(model), **lora}
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=rank, **lora))


def downs(peft: Any) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().clone()
        for name, parameter in peft.named_parameters()
        if "lora_A" in name
    }


def mixture() -> Any:
    """Return a tiny model whose shared expert gets the rows end to end, as one long row."""
    from transformers import AutoModelForCausalLM, Qwen2MoeConfig

    torch.manual_seed(3)
    sizes = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 32}
    experts = {"num_experts": 4, "num_experts_per_tok": 2}
    config = Qwen2MoeConfig(vocab_size=400, **SHAPE, **sizes, **experts, **NAMES)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(
    ("harmful", "benign", "width"), [(6, 9, 40), (12, 12, 24), (50, 30, 12), (200, 100, 5)]
)
def test_discriminants_equal_the_dense_computation(harmful, benign, width):
    generator = torch.Generator().manual_seed(width)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    left, right = (
        torch.randn(count, width, generator=generator, dtype=torch.float64) @ mixing + shift
        for count, shift in ((harmful, 3.0), (benign, 1.0))
    )
    found = discriminants(left, right)
    assert found.shape == (len(RIDGES), width)
    covariance = harmful * left.T.cov(correction=0) + benign * right.T.cov(correction=0)
    covariance = covariance / (harmful + benign)
    identity = torch.eye(width, dtype=torch.float64)
    for ridge, direction in zip(RIDGES, found, strict=True):
        ridged = covariance + ridge * covariance.diagonal().mean() * identity
        expected = torch.linalg.inv(ridged) @ (left.mean(0) - right.mean(0))
        expected /= (torch.cat([left, right]) @ expected).std()
        assert torch.allclose(direction, expected, rtol=1e-8, atol=1e-10)
        assert (torch.cat([left, right]) @ direction).std().item() == pytest.approx(1)
        assert (left @ direction).mean() > (right @ direction).mean()


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "mpt", "qwen2-moe"])
@pytest.mark.parametrize("head", [0, 5])
def test_last_token_inputs_equal_those_of_single_rows(name, head, monkeypatch):
    model = mixture() if name == "qwen2-moe" else deepcopy(tiny(name))
    names = set(target_modules(model))
    modules = {key: one for key, one in model.named_modules() if key.split(".")[-1] in names}
    assert len(modules) > 1
    requests = made_requests(11, head)
    shared: list[bool] = []

    def spy(*arguments: Any) -> Any:
        found = original(*arguments)
        shared.append(found is not None)
        return found

    original = room.shared_cache
    monkeypatch.setattr(room, "shared_cache", spy)
    monkeypatch.setattr(room, "ROWS", 4)
    found = last_token_inputs(model, modules, requests)
    assert shared == [head > 0 and name in SHARING]
    assert set(found) == set(modules)
    assert not any(module._forward_pre_hooks for module in modules.values())
    direct: dict[str, torch.Tensor] = {}
    for key, module in modules.items():
        module.register_forward_pre_hook(
            lambda module, given, key=key: direct.update({key: given[0].reshape(-1, width(given))})
        )
    for place, request in enumerate(requests):
        with torch.no_grad():
            model(torch.tensor([request]))
        for key, rows in found.items():
            assert rows.dtype == torch.float32
            assert rows.shape[0] == len(requests)
            assert torch.allclose(rows[place], direct[key][-1], rtol=1e-3, atol=1e-4), key


def width(given: tuple[torch.Tensor, ...]) -> int:
    return given[0].shape[-1]


def test_modules_that_see_only_some_tokens_are_left_out():
    class Routed(torch.nn.Module):
        def __init__(self, norm: Any) -> None:
            super().__init__()
            self.norm, self.expert = norm, torch.nn.Identity()

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            self.expert(hidden[:, ::2].reshape(-1, hidden.shape[-1]))
            return self.norm(hidden)

    model = deepcopy(tiny("llama"))
    model.model.norm = Routed(model.model.norm)
    modules = {"expert": model.model.norm.expert, "norm": model.model.norm.norm}
    requests = [(*request, 7, 8) for request in made_requests(6)]
    assert set(last_token_inputs(model, modules, requests)) == {"norm"}


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_an_informed_model_answers_as_before_and_sees_the_difference(name):
    harmful, benign = templated(14, seed=1), templated(12, seed=2)
    peft = wrapped(name, layers_to_transform=[1])
    before = downs(peft)
    layers = {
        key: module
        for key, module in peft.base_model.model.named_modules()
        if hasattr(module, "lora_A")
    }
    inputs = last_token_inputs(peft.base_model.model, layers, [*harmful, *benign])
    ids = torch.tensor([harmful[0]])
    with torch.no_grad():
        logits = peft(ids).logits
        assert inform(peft, harmful, benign) == len(before) == len(layers)
        assert torch.equal(peft(ids).logits, logits)
    for key, module in layers.items():
        samples = inputs[key].double()
        rows = module.lora_A["default"].weight.detach().double()
        assert not bool(module.lora_B["default"].weight.any())
        expected = discriminants(samples[:14], samples[14:])
        assert torch.allclose(rows[:3], expected, rtol=1e-4, atol=1e-5)
        assert (rows[3] @ samples.mean(0)).item() == pytest.approx(1, rel=1e-4)
        assert torch.allclose(rows[3] / rows[3].norm(), samples.mean(0) / samples.mean(0).norm())
        spreads = (samples @ rows[4:].T).std(0)
        assert torch.allclose(spreads, torch.full((4,), 1 / QUIET, dtype=torch.float64), rtol=1e-4)
        random_rows = before[f"base_model.model.{key}.lora_A.default.weight"][4:].double()
        cosines = torch.cosine_similarity(rows[4:], random_rows)
        assert torch.allclose(cosines, torch.ones(4, dtype=torch.float64))


def test_a_low_rank_takes_the_first_directions():
    harmful, benign = templated(10, seed=1), templated(10, seed=2)
    low, high = wrapped("llama", 2), wrapped("llama", 8)
    assert inform(low, harmful, benign) == inform(high, harmful, benign)
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_A.default.weight"
    assert torch.allclose(downs(low)[key], downs(high)[key][:2])


def test_informing_is_deterministic_and_draws_nothing():
    harmful, benign = templated(10, seed=1), templated(10, seed=2)
    first, second = wrapped("llama"), wrapped("llama")
    state = torch.get_rng_state()
    inform(first, harmful, benign)
    assert torch.equal(torch.get_rng_state(), state)
    inform(second, harmful, benign)
    for name, one in downs(first).items():
        assert torch.equal(one, downs(second)[name]), name


@pytest.mark.parametrize(("harmful", "benign"), [(7, 12), (12, 7), (0, 12), (12, 0)])
def test_with_too_few_requests_the_beginning_stays_random(harmful, benign):
    peft = wrapped("llama")
    before = downs(peft)
    assert inform(peft, templated(harmful, seed=1), templated(benign, seed=2)) == 0
    assert all(torch.equal(one, before[name]) for name, one in downs(peft).items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_the_same_at_the_end_of_every_request_informs_nothing(dtype):
    peft = wrapped("llama")
    peft.base_model.model.to(dtype)
    before = downs(peft)
    constant = {f"model.layers.0.self_attn.{part}_proj" for part in "qkv"}
    assert inform(peft, templated(10, seed=1), templated(10, seed=2)) == 14 - len(constant)
    for name, one in downs(peft).items():
        same = any(part in name for part in constant)
        assert torch.equal(one, before[name]) == same, name
        assert bool(torch.isfinite(one).all())
        assert float(one.abs().max()) < 1e2


def test_sides_of_which_each_is_the_same_throughout_are_told_apart():
    one, other = torch.randn(2, 12, generator=torch.Generator().manual_seed(0)).double()
    harmful, benign = one.repeat(9, 1), other.repeat(20, 1)
    for direction in discriminants(harmful, benign):
        assert bool(torch.isfinite(direction).all())
        assert torch.cosine_similarity(direction, one - other, dim=0) > 0.999
        assert (torch.cat([harmful, benign]) @ direction).std().item() == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_adapters_of_fused_experts_stay_random():
    peft = wrapped("mixtral", target_parameters=["mlp.experts.gate_up_proj"])
    before = downs(peft)
    experts = {name for name in before if "experts" in name}
    assert experts
    count = inform(peft, templated(10, seed=1), templated(10, seed=2))
    assert 0 < count <= len(before) - len(experts)
    after = downs(peft)
    assert all(torch.equal(after[name], before[name]) for name in experts)
