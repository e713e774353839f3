"""The anatomy of every known architecture: by round trips between memory and disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.anatomies import ROUTED, SETTINGS, UNGATED, build, config_of, randomise
from transformers import AutoModelForCausalLM

from demur.checkpoint import Checkpoint, open_checkpoint, read_tensor
from demur.errors import ModelError
from demur.models.anatomy import (
    ATTENTION,
    KINDS,
    Anatomy,
    Module,
    Part,
    anatomy_of,
    assign,
    part_elements,
    part_shape,
    select,
    whole,
)


def saved(model: Any, folder: Path) -> Checkpoint:
    model.save_pretrained(folder)
    return open_checkpoint(folder)


def in_memory(model: Any, module: Module) -> np.ndarray[Any, Any]:
    parts = [select(model.get_parameter(part.tensor), part) for part in module.memory]
    return torch.cat([part.detach().reshape(-1) for part in parts]).numpy()


def on_disk(checkpoint: Checkpoint, module: Module) -> np.ndarray[Any, Any]:
    parts = [select(read_tensor(checkpoint, part.tensor), part) for part in module.disk]
    return np.concatenate([part.reshape(-1) for part in parts])


def assert_agrees(model: Any, checkpoint: Checkpoint, anatomy: Anatomy) -> None:
    for module in anatomy.modules:
        values = in_memory(model, module)
        assert np.array_equal(values, on_disk(checkpoint, module)), module.name
        assert len(values) == module.parameters > 0


def assert_covers(checkpoint: Checkpoint, anatomy: Anatomy) -> None:
    seen = {name: np.zeros(one.shape, int) for name, one in checkpoint.tensors.items()}
    for part in (part for module in anatomy.modules for part in module.disk):
        places = seen[part.tensor]
        assign(places, part, select(places, part) + 1)
    for name in anatomy.untouched:
        seen[name] += 1
    assert all((count == 1).all() for count in seen.values())
    assert anatomy.parameters == checkpoint.parameters


@pytest.mark.parametrize("name", SETTINGS)
def test_memory_and_disk_hold_the_same_values_and_cover_everything_once(name, tmp_path):
    model = build(name)
    checkpoint = saved(model, tmp_path)
    anatomy = anatomy_of(model, checkpoint)
    assert_agrees(model, checkpoint, anatomy)
    assert_covers(checkpoint, anatomy)
    assert len(anatomy.layers) == 2
    order = [(module.layer, KINDS.index(module.kind)) for module in anatomy.modules]
    assert order == sorted(set(order))
    kinds = {module.kind for module in anatomy.modules}
    absent = {"gate"} if name in UNGATED else set()
    absent |= set() if name in ROUTED else {"router"}
    absent |= {"norm"} if name == "olmo" else set()
    assert set(anatomy.missing) == absent == set(KINDS) - kinds
    assert model.get_submodule(anatomy.embedding) is model.get_input_embeddings()


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_assigned_in_memory_is_what_is_saved(name, tmp_path):
    model = build(name)
    anatomy = anatomy_of(model)
    before = {key: one.clone() for key, one in model.state_dict().items()}
    changed = [module for module in anatomy.modules if module.kind in ("up", "k", "norm")]
    generator = torch.Generator().manual_seed(3)
    for part in (part for module in changed for part in module.memory):
        parameter = model.get_parameter(part.tensor)
        shape = part_shape(parameter.shape, part)
        assign(parameter, part, torch.randn(shape, generator=generator))
    checkpoint = saved(model, tmp_path)
    assert_agrees(model, checkpoint, anatomy)
    places = sum(int((one != before[key]).sum()) for key, one in model.state_dict().items())
    assert places == sum(module.parameters for module in changed)


@pytest.mark.parametrize("name", SETTINGS)
def test_neither_weights_nor_a_checkpoint_are_needed(name, tmp_path):
    model = build(name)
    known = anatomy_of(model, saved(model, tmp_path))
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config_of(name))
    bare = anatomy_of(empty)
    assert bare.modules == known.modules
    assert bare.layers == known.layers
    assert sorted(bare.untouched) == sorted(known.untouched)
    assert bare.parameters == known.parameters
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert anatomy_of(loaded).modules == known.modules


@pytest.mark.parametrize("name", ["mixtral", "gpt2"])
def test_older_names_on_disk_are_followed(name, tmp_path):
    from safetensors.torch import load_file, save_file

    model = build(name)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    if name == "mixtral":  # experts that were saved as they are in memory
        tensors = {key: one.contiguous() for key, one in model.state_dict().items()}
    else:  # without the head, and with masks that later versions do not keep
        tensors = {key.removeprefix("transformer."): one for key, one in tensors.items()}
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    anatomy = anatomy_of(model, checkpoint)
    assert_agrees(model, checkpoint, anatomy)
    assert_covers(checkpoint, anatomy)
    assert ("h.0.attn.bias" in anatomy.untouched) == (name == "gpt2")


def test_a_vision_tower_is_left_alone(tmp_path):
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {**SETTINGS["gemma3"][1], "vocab_size": 64}
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    settings = {"mm_tokens_per_image": 4, "image_token_index": 60}
    config = Gemma3Config(text_config=text, vision_config=vision, **settings)
    model = randomise(Gemma3ForConditionalGeneration(config))
    checkpoint = saved(model, tmp_path)
    anatomy = anatomy_of(model, checkpoint)
    assert_agrees(model, checkpoint, anatomy)
    assert_covers(checkpoint, anatomy)
    touched = {part.tensor for module in anatomy.modules for part in module.disk}
    assert not any("vision" in tensor or "projector" in tensor for tensor in touched)
    assert sum("vision" in tensor for tensor in anatomy.untouched) > 10
    assert len(anatomy.layers) == 2


def test_sinks_belong_to_no_module():
    sinks = [name for name in anatomy_of(build("gpt-oss")).untouched if "layers" in name]
    assert [name.rsplit(".", 1)[1] for name in sinks] == ["sinks", "sinks"]


def test_experts_are_one_module_and_layers_may_differ():
    anatomy = anatomy_of(build("qwen2-moe"))
    by_name = {module.name: module for module in anatomy.modules}
    routed, plain = by_name["layers.0.gate"], by_name["layers.1.gate"]
    assert len(routed.disk) == 5 and routed.output is None  # four experts and the shared one
    assert routed.path == "model.layers.0.mlp"
    assert len(plain.disk) == 1 and plain.path.endswith("mlp.gate_proj")
    assert len(by_name["layers.0.router"].disk) == 2
    assert "layers.1.router" not in by_name


def test_shapes_of_parts():
    values = torch.arange(24).reshape(2, 12)
    grouped = Part("t", 1, 6, 1, 3, 12)
    assert select(values, grouped).tolist() == [[1, 2, 7, 8], [13, 14, 19, 20]]
    assert select(values.numpy(), grouped).tolist() == select(values, grouped).tolist()
    assert part_shape((2, 12), grouped) == (2, 4) and part_elements((2, 12), grouped) == 8
    half = select(values, Part("t", 1, 12, 6, 12, 12))
    assert half.data_ptr() == values[:, 6:].data_ptr()
    stripe = select(values, Part("t", -1, 2, 1, 2, 12))
    assert torch.equal(stripe, values[:, 1::2]) and stripe.data_ptr() == values[:, 1:].data_ptr()
    assert select(values, whole("t", 2)) is values
    with pytest.raises(ModelError, match="meant for 12 places"):
        select(values[:, :6], grouped)
    with pytest.raises(ModelError, match="do not fit"):
        assign(values, grouped, torch.zeros(2, 5))


def test_a_strange_architecture_is_named():
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4,
        word_embed_proj_dim=32, max_position_embeddings=64,
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"OPTDecoderLayer.*look like an MLP"):
        anatomy_of(OPTForCausalLM(config))


def test_a_matrix_that_is_not_understood_is_named():
    model = build("llama")
    model.model.layers[1].mlp.extra = torch.nn.Linear(32, 32)
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.extra \(Linear\) was not understood"):
        anatomy_of(model)


def test_a_fused_matrix_of_an_unknown_class_is_not_guessed():
    model = build("phi3")
    for layer in model.model.layers:
        layer.self_attn.__class__ = type("OtherAttention", (torch.nn.Module,), {})
    with pytest.raises(ModelError, match="order that OtherAttention gives it is not known"):
        anatomy_of(model)


def test_a_projection_of_another_width_is_no_projection():
    model = build("llama")
    model.model.layers[0].mlp.up_proj = torch.nn.Linear(32, 40, bias=False)
    with pytest.raises(ModelError, match="taken for the up projection"):
        anatomy_of(model)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    small = open_checkpoint_of("llama", tmp_path)
    config = config_of("llama")
    config.intermediate_size = 64
    with pytest.raises(ModelError, match=r"is \[64, 32\] in memory, .* \[48, 32\]"):
        anatomy_of(AutoModelForCausalLM.from_config(config), small)
    config.intermediate_size, config.num_hidden_layers = 48, 3
    with pytest.raises(ModelError, match=r"no tensor for model\.layers\.2"):
        anatomy_of(AutoModelForCausalLM.from_config(config), small)


def open_checkpoint_of(name: str, folder: Path) -> Checkpoint:
    return saved(build(name), folder)


def test_attention_holds_four_kinds():
    assert [module.kind for module in anatomy_of(build("phi3")).modules[3:7]] == list(ATTENTION)
