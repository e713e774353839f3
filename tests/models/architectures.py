"""Tiny random models of many architectures, for tests of what must hold for all of them."""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.tiny import tiny_tokenizer

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
NAMES = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SHAPE),
    "mistral": ("mistral", {**SHAPE, "sliding_window": None}),
    "mistral-window": ("mistral", {**SHAPE, "sliding_window": 6}),
    "mistral-wide": ("mistral", {**SHAPE, "sliding_window": 200}),
    "qwen2": ("qwen2", SHAPE),
    "qwen2-window": (
        "qwen2",
        {**SHAPE, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {**SHAPE, "head_dim": 8}),
    "gemma2": ("gemma2", {**SHAPE, "head_dim": 8, "sliding_window": 6}),
    "gemma3": (
        "gemma3_text",
        {**SHAPE, "head_dim": 8, "sliding_window": 6, "sliding_window_pattern": 2},
    ),
    "phi3": ("phi3", SHAPE),
    "olmo2": ("olmo2", SHAPE),
    "gpt-neox": ("gpt_neox", SHAPE),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "gpt-neo": (
        "gpt_neo",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 6,
            "max_position_embeddings": 256,
        },
    ),
    "falcon": ("falcon", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}),
    "falcon-alibi": (
        "falcon",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
    ),
    "mpt": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256}),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "opt": (
        "opt",
        {
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
        },
    ),
    "lfm2": ("lfm2", {**SHAPE, "layer_types": ["conv", "full_attention"]}),
    "mixtral": ("mixtral", {**SHAPE, "num_local_experts": 4, "sliding_window": None}),
}


@cache
def tiny(name: str) -> Any:
    """Return the tiny model of that name in eval mode; it is shared, so leave it as it is."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, settings = SETTINGS[name]
    vocabulary = len(tiny_tokenizer())
    config = AutoConfig.for_model(kind, vocab_size=vocabulary, **settings, **NAMES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():  # far from uniform, so that the argmax is no accident
            if parameter.dim() > 1:
                parameter.data.normal_(0, 0.25)
    model.generation_config.eos_token_id = 2
    return model.eval().requires_grad_(False)
