"""GGUF files, turned once into a plain Hugging Face folder that transformers loads alone.

The weights are dequantised by transformers; what it leaves out is added here: the digits that some
vocabularies split, every end-of-turn token, the context length of the tokenizer.
"""

from __future__ import annotations

import errno
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import ModelError
from demur.models.cache import build_once, cache_root, file_sha256, require_room, save_model

if TYPE_CHECKING:
    import torch

# Part of the cache's path: raise it when the same file is to give another folder.
CONVERSION = 1
# Quantised weights are exact in float32 only; above this many, bfloat16 keeps them loadable.
FLOAT32_LIMIT = 2_000_000_000
# llama.cpp splits digits one by one for these; transformers 5 does not know their names.
DIGIT_SPLITTERS = ("smollm", "starcoder", "refact", "command-r", "codeshell")


def is_gguf(path: Path) -> bool:
    """Return whether `path` is a file that begins as a GGUF file does."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def convert(
    path: Path, cache: Path | None = None, say: Callable[[str], None] | None = None
) -> tuple[Path, str]:
    """Return the plain folder of a GGUF file, converted at most once, and the file's SHA-256.

    Args:
        path: the GGUF file.
        cache: demur's cache folder; the usual one if None.
        say: told, in a sentence, what takes long.

    Raises:
        ModelError: the file is not a whole GGUF file, holds no causal language model that this
            transformers can convert, has no tokenizer, or the disk is full.
    """
    if not is_gguf(path):
        raise ModelError(
            f"{path} is not a GGUF file: it does not begin with the letters GGUF.",
            "Download it again, or name the model's folder.",
        )
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror or error}).", "Check the disk it is on."
        ) from error
    folder = cache_root(cache) / f"gguf-{CONVERSION}" / digest

    def build(target: Path) -> None:
        if say is not None:
            say(f"Converting {path.name} to safetensors; this happens once.")
        _convert(path, target)

    return build_once(folder, build), digest


def _convert(path: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    facts, parameters, dtype_name = _examine(path)
    dtype: torch.dtype = getattr(torch, dtype_name)
    require_room(target, parameters * dtype.itemsize)
    with _reading(path, facts):
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        loaded = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=dtype, output_loading_info=True
        )
    model, information = loaded
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    if missing := sorted(set(information["missing_keys"]) - tied):
        raise ModelError(
            f"{path} lacks weights of its {facts['general.architecture']} model, {missing[0]} "
            f"for one ({len(missing)} in all).",
            "Download the file again, or name a folder with the model's safetensors.",
        )
    _split_digits(tokenizer, str(facts.get("tokenizer.ggml.pre", "")))
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    ends = _ends(facts)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends or None,
        pad_token_id=tokenizer.pad_token_id,
    )
    save_model(model, tokenizer, target)


def _examine(path: Path) -> tuple[dict[str, Any], int, str]:
    """Return the file's small metadata, its number of weights, and the dtype to convert to.

    Raises:
        ModelError: the file is truncated, one of several parts, or has no vocabulary.
    """
    from gguf import GGMLQuantizationType, GGUFReader

    try:
        reader = GGUFReader(path)
        # Arrays are the vocabulary and its merges: long, and not needed here.
        facts = {
            key: field.contents() for key, field in reader.fields.items() if len(field.data) == 1
        }
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise ModelError(
            f"{path} is a GGUF file that is truncated or damaged ({error}).", "Download it again."
        ) from error
    if "general.architecture" not in facts or not reader.tensors:
        raise ModelError(
            f"{path} is a GGUF file without a model's architecture or weights.",
            "Name the GGUF file of a whole model.",
        )
    if int(facts.get("split.count", 1)) > 1:
        raise ModelError(
            f"{path} is one of {facts['split.count']} parts of a model.",
            "Join them first: llama-gguf-split --merge FIRST_PART WHOLE_FILE",
        )
    if "tokenizer.ggml.tokens" not in reader.fields:
        raise ModelError(
            f"{path} has no tokenizer.", "Name the GGUF file of a whole language model."
        )
    parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)
    kinds = {tensor.tensor_type for tensor in reader.tensors}
    plain = {
        GGMLQuantizationType.F32: "float32",
        GGMLQuantizationType.F16: "float16",
        GGMLQuantizationType.BF16: "bfloat16",
    }
    # Norms are float32 in every file, so that the others tell what the file was written in.
    rest = kinds - {GGMLQuantizationType.F32}
    if not rest:
        dtype = "float32"
    elif len(rest) == 1 and rest <= plain.keys():
        dtype = plain[rest.pop()]
    else:
        dtype = "float32" if parameters <= FLOAT32_LIMIT else "bfloat16"
    return facts, parameters, dtype


def _ends(facts: dict[str, Any]) -> list[int]:
    """Return the tokens that end an answer: end of text, and end of turn where it is another."""
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    return list(dict.fromkeys(int(facts[key]) for key in keys if key in facts))


def _split_digits(tokenizer: Any, vocabulary: str) -> None:
    """Give a byte-level tokenizer the split of single digits that its merges were learned with."""
    from tokenizers import pre_tokenizers

    if vocabulary in DIGIT_SPLITTERS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )


@contextmanager
def _reading(path: Path, facts: dict[str, Any]) -> Iterator[None]:
    """Turn what transformers raises for a file it cannot convert into a `ModelError`."""
    from transformers import __version__
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        detail = re.split(r"\n|(?<=\.)\s", str(error).strip(), maxsplit=1)[0]
        raise ModelError(
            f"transformers {__version__} cannot convert {path}, of the architecture "
            f"{facts['general.architecture']} ({detail.rstrip('.')}).",
            "Name a folder with the model's safetensors instead.",
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
