"""Tiny models of every architecture whose anatomy is known, with no two weights alike."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GEMMA = {**SHAPE, "head_dim": 16}
EXPERTS = {**SHAPE, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
FALCON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SHAPE),
    "llama-bias": ("llama", {**SHAPE, "attention_bias": True, "mlp_bias": True}),
    "llama-tied": ("llama", {**SHAPE, "tie_word_embeddings": True}),
    "mistral": ("mistral", SHAPE),
    "qwen2": ("qwen2", SHAPE),
    "qwen3": ("qwen3", {**SHAPE, "head_dim": 16}),
    "gemma": ("gemma", GEMMA),
    "gemma2": ("gemma2", GEMMA),
    "gemma3": ("gemma3_text", GEMMA),
    "phi3": ("phi3", SHAPE),
    "olmo": ("olmo", SHAPE),
    "olmo2": ("olmo2", SHAPE),
    "falcon-one-key": ("falcon", {**FALCON, "multi_query": True, "bias": True}),
    "falcon-grouped": ("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon-by-head": ("falcon", {**FALCON, "multi_query": False, "parallel_attn": False}),
    "mpt": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "gpt-neox": ("gpt_neox", SHAPE),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "glm4": ("glm4", {**SHAPE, "head_dim": 8}),
    "granite-moe": ("granitemoe", {**SHAPE, "num_local_experts": 4}),
    "qwen2-moe": (
        "qwen2_moe",
        {**EXPERTS, "shared_expert_intermediate_size": 40, "mlp_only_layers": [1]},
    ),
    "qwen3-moe": ("qwen3_moe", {**EXPERTS, "head_dim": 16}),
    "mixtral": ("mixtral", {**SHAPE, "num_local_experts": 4}),
    "gpt-oss": ("gpt_oss", {**SHAPE, "num_local_experts": 4, "head_dim": 16}),
}
UNGATED = ("falcon-one-key", "falcon-grouped", "falcon-by-head", "mpt", "gpt2", "gpt-neox", "bloom")
ROUTED = ("qwen2-moe", "qwen3-moe", "mixtral", "gpt-oss", "granite-moe")


def config_of(name: str) -> Any:
    kind, settings = SETTINGS[name]
    ids = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    return AutoConfig.for_model(kind, **{**ids, **settings})


def build(name: str) -> Any:
    """Return a model whose every weight is random, norms and biases too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return randomise(AutoModelForCausalLM.from_config(config_of(name)))


def randomise(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model.eval()
