"""What a model folder says about itself, and whether demur can work with it.

Everything here is read from small files, before any weight is touched: `read_config` and
`read_json` give the files' content, `check_config` refuses what is no plain causal language model,
`check_tokenizer` what has no tokenizer, `check_weights` (which does read the weights) what is not
a number.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from demur.errors import ModelError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
CAUSAL_ENDINGS = ("forcausallm", "lmheadmodel")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`.

    Raises:
        ModelError: the file is missing, unreadable, not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        found = ", ".join(sorted(entry.name for entry in path.parent.iterdir())[:6])
        raise ModelError(
            f"The folder {path.parent} has no {path.name}; it holds {found or 'nothing'}.",
            "Name the folder of a model in Hugging Face format, or download it again.",
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{path} is not readable JSON ({error}).",
            "Download or save the model again.",
        ) from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{path} holds a JSON {type(content).__name__} where an object belongs.",
            "Download or save the model again.",
        )
    return content


def read_config(folder: Path) -> dict[str, Any]:
    """Return the folder's config.json; raises as `read_json` does."""
    return read_json(folder / "config.json")


def check_config(config: dict[str, Any], name: str, *, trust_remote_code: bool = False) -> None:
    """Refuse a model that is not a plain causal language model known to transformers.

    Args:
        config: the content of config.json.
        name: how the user calls the model.
        trust_remote_code: whether the model may bring its own code.

    Raises:
        ModelError: it is quantised, of an unknown architecture, or no causal language model.
    """
    refuse_quantized(config, name)
    remote = config.get("auto_map")
    if trust_remote_code and isinstance(remote, dict) and "AutoModelForCausalLM" in remote:
        return
    _refuse_unknown(config, name)
    _refuse_non_causal(config, name)


def architecture_name(config: dict[str, Any]) -> str:
    """Return the class that the config names, or the one that transformers gives its type."""
    if names := _architectures(config):
        return names[0]
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.get("model_type", ""), "unknown"))


def _architectures(config: dict[str, Any]) -> list[str]:
    names = config.get("architectures")
    return [str(name) for name in names] if isinstance(names, list) else []


def refuse_quantized(config: dict[str, Any], name: str) -> None:
    """Refuse a model whose config says that its weights are quantised.

    Raises:
        ModelError: it does; the method is named.
    """
    text = config.get("text_config")
    quantization = config.get("quantization_config") or (
        text.get("quantization_config") if isinstance(text, dict) else None
    )
    if not quantization:
        return
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    if not method and isinstance(quantization, dict):
        bits = [key for key in ("load_in_4bit", "load_in_8bit") if quantization.get(key)]
        method = "bitsandbytes" if bits else None
    raise ModelError(
        f"{name} is quantised ({method or 'method not said'}), so its weights cannot be changed.",
        "Name the unquantised model that it was made from (often the same name without its "
        "ending), or a GGUF file, which is converted.",
    )


def _refuse_unknown(config: dict[str, Any], name: str) -> None:
    from transformers import __version__
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    model_type = config.get("model_type")
    if model_type in CONFIG_MAPPING_NAMES:
        return
    found = f"model_type {model_type!r}, architectures {_architectures(config) or 'not named'}"
    if config.get("auto_map"):
        raise ModelError(
            f"{name} has an architecture that transformers {__version__} does not know ({found}) "
            "and brings its own code for it.",
            "Read that code, and if you trust it, allow it with --trust-remote-code.",
        )
    raise ModelError(
        f"{name} has an architecture that transformers {__version__} does not know ({found}).",
        "Update transformers if the model is newer, or check that its config.json is complete.",
    )


def _refuse_non_causal(config: dict[str, Any], name: str) -> None:
    from transformers.models.auto import modeling_auto

    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    vision = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    model_type = str(config.get("model_type"))
    names = _architectures(config)
    known = {str(value).lower() for value in causal.values()}
    named = any(each.lower() in known or each.lower().endswith(CAUSAL_ENDINGS) for each in names)
    if model_type in causal and (named or (not names and model_type not in masked)):
        return
    found = f"{', '.join(names) or 'no architecture named'}, model_type {model_type!r}"
    if model_type in vision:
        raise ModelError(
            f"{name} is a vision-language model ({found}), which this transformers does not load "
            "as a causal language model of text.",
            "Name a text model of its family.",
        )
    if config.get("is_encoder_decoder"):
        kind = "an encoder-decoder model"
    elif model_type in masked:
        kind = "an encoder"
    else:
        kind = "not a causal language model"
    raise ModelError(
        f"{name} is {kind} ({found}), which does not answer chat requests.",
        "Name a causal language model, such as a LlamaForCausalLM.",
    )


def check_tokenizer(folder: Path, name: str) -> None:
    """Refuse a folder without a tokenizer.

    Raises:
        ModelError: none of the files that hold a vocabulary is there.
    """
    if any((folder / file).is_file() for file in TOKENIZER_FILES):
        return
    if any(folder.glob("*.tiktoken")):
        return
    raise ModelError(
        f"{name} has no tokenizer: {folder} holds none of {', '.join(TOKENIZER_FILES[:4])}.",
        "Put the tokenizer files of the model that it was made from beside its weights.",
    )


def check_weights(folder: Path) -> None:
    """Read every weight in `folder` and refuse infinities and what is not a number.

    Raises:
        ModelError: some weights are not finite; the first tensors are named.
        CheckpointError: the checkpoint cannot be read.
    """
    from demur.checkpoint.index import find_nonfinite, open_checkpoint

    names = list(find_nonfinite(open_checkpoint(folder)))
    if not names:
        return
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    raise ModelError(
        f"{folder} has weights that are not finite numbers, in {', '.join(names[:3])}{more}.",
        "Download the model again, or go back to a checkpoint from before its training diverged.",
    )
