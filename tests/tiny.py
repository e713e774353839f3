"""Tiny random models for tests: a byte-pair tokenizer with a chat template, a Llama, a GGUF file.

All are built from the libraries' own classes, in well under a second, and are the same each time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXT = (
    "How do I kill a process that hangs? I cannot help with that request. "
    "Tell me how to bake bread, and what the weather is like in the mountains. "
    "Sorry, but I can't assist with this. Here is how you can do it: first, take the flour. "
    "The assistant answers the user in a short and friendly way, and says what it thinks. "
)


def tiny_tokenizer(chat_template: str | None = CHAT_TEMPLATE) -> Any:
    """Return a byte-level BPE tokenizer of some 400 tokens; ids 0, 1, 2 are the special tokens.

    As in SmolLM2, `<|im_start|>` begins, `<|im_end|>` ends and pads.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=chat_template,
        model_max_length=512,
    )


def tiny_llama(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Save a random two-layer Llama and its tokenizer in `folder`, and return the folder.

    Args:
        seed: of the random weights.
        config: what differs from the defaults of the LlamaConfig below; `max_shard_size` too.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    shard_size = config.pop("max_shard_size", "5GB")
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**{**settings, **config}))
    model.save_pretrained(folder, max_shard_size=shard_size)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_gguf(folder: Path, path: Path, *, pre: str = "smollm", skip: tuple[str, ...] = ()) -> Path:
    """Write the tiny Llama in `folder` as a GGUF file in float32, and return its path.

    Args:
        pre: the name of the vocabulary's split, as llama.cpp has it.
        skip: GGUF names of tensors to leave out.
    """
    import gguf
    from safetensors.numpy import load_file
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer, pre)
    for name, weight in weights.items():
        renamed = _gguf_name(name)
        if renamed in skip:
            continue
        if "attn_q." in renamed:
            weight = _permuted(weight, config.num_attention_heads)
        if "attn_k." in renamed:
            weight = _permuted(weight, config.num_key_value_heads)
        writer.add_tensor(renamed, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: Any, tokenizer: Any, pre: str) -> None:
    import json

    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL_TOKENS else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)


def _gguf_name(name: str) -> str:
    renamings = {
        "model.embed_tokens.": "token_embd.",
        "model.norm.": "output_norm.",
        "lm_head.": "output.",
        "model.layers.": "blk.",
        "self_attn.q_proj.": "attn_q.",
        "self_attn.k_proj.": "attn_k.",
        "self_attn.v_proj.": "attn_v.",
        "self_attn.o_proj.": "attn_output.",
        "mlp.gate_proj.": "ffn_gate.",
        "mlp.up_proj.": "ffn_up.",
        "mlp.down_proj.": "ffn_down.",
        "input_layernorm.": "attn_norm.",
        "post_attention_layernorm.": "ffn_norm.",
    }
    for old, new in renamings.items():
        name = name.replace(old, new)
    return name


def _permuted(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """Reorder the rows of a rotary projection as llama.cpp does when it converts."""
    rows = weight.shape[0] // heads // 2
    split = weight.reshape(heads, 2, rows, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(weight.shape)
