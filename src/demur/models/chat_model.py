"""A chat model in memory: its weights, its tokenizer, and its chat template as it defines it.

`load_chat_model(folder, placement)` is the one way to get one. `ChatModel.encode` turns a user's
request into token ids exactly as the model's own template has it, with the answer opened and a
thinking block, where the template has one, closed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demur.errors import ModelError, PromptError
from demur.models.device import Placement
from demur.models.memory import keep_freed_memory
from demur.models.skeleton import without_weights
from demur.run.journal import content_key
from demur.run.processes import launched

TEMPLATES = {
    "chatml": (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "plain": (
        "{% for message in messages %}{{ message['role'] | capitalize }}: "
        "{{ message['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    ),
}
THINKING_OPEN, THINKING_CLOSE = "<think>", "</think>"


@dataclass
class ChatModel:
    """A causal language model that answers chat requests.

    Attributes:
        folder: where the plain Hugging Face checkpoint lies.
        model, tokenizer: the transformers objects.
        placement: device and dtype, and why.
        weights: content hash of the checkpoint, the first part of every journal key.
        system: a system prompt to use, or None for what the template itself puts in.
        thinking: whether a thinking block is left open where the template has one.
    """

    folder: Path
    model: Any
    tokenizer: Any
    placement: Placement
    weights: str
    system: str | None = None
    thinking: bool = False
    _stops: frozenset[int] = field(default_factory=frozenset)

    def messages(self, request: str) -> list[dict[str, str]]:
        """Return the conversation that ends with a request, as the template takes it."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": request}]

    def text(self, request: str, answer: str | None = None) -> str:
        """Return the templated text of one request, the answer opened.

        Args:
            answer: close the conversation with this answer instead.

        Raises:
            ModelError: the template cannot take this conversation (no system role, say).
        """
        from jinja2 import TemplateError

        messages = self.messages(request)
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=answer is None,
                enable_thinking=self.thinking,
            )
        except TemplateError as error:
            raise ModelError(
                f"The chat template of {self.folder.name} refuses this conversation ({error}).",
                "If it has no system role, leave --system out.",
            ) from error
        if answer is None and not self.thinking and text.rstrip().endswith(THINKING_OPEN):
            text = text.rstrip() + f"\n\n{THINKING_CLOSE}\n\n"
        return text

    def encode(self, request: str, opening: str = "") -> list[int]:
        """Return the token ids of one request, followed by the answer's first words if given.

        Raises:
            PromptError: the request is longer than the model's context.
        """
        ids: list[int] = self.tokenizer(
            self.text(request) + opening, add_special_tokens=False
        ).input_ids
        context = context_length(self.model)
        if len(ids) >= context:
            raise PromptError(
                f"A prompt has {len(ids)} tokens, the model's context holds {context}: "
                f"{request[:40]!r}...",
                "Shorten this prompt or leave it out.",
            )
        return ids

    def decode(self, tokens: list[int] | tuple[int, ...]) -> str:
        """Return the answer's text: special tokens and a closed thinking block left out."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        if THINKING_CLOSE in text:
            text = text.split(THINKING_CLOSE, 1)[1]
        return text.strip()

    @property
    def stops(self) -> frozenset[int]:
        """The token ids that end an answer."""
        return self._stops

    @property
    def identity(self) -> str:
        """Hash of all that decides an answer but the prompt: weights, template, dtype, system."""
        return content_key(
            self.weights,
            self.tokenizer.chat_template,
            self.system,
            self.thinking,
            self.placement.dtype,
        )


def context_length(model: Any) -> int:
    """Return how many tokens the model's positions reach; 2**30 where they have no end."""
    config = model.config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len")
    lengths = [int(getattr(config, name, None) or 0) for name in names]
    return max(lengths) or 1 << 30


def _stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    stops: set[int] = set()
    for owner in (model.generation_config, model.config, tokenizer):
        ids = getattr(owner, "eos_token_id", None)
        stops.update(ids if isinstance(ids, list | tuple) else [] if ids is None else [ids])
    return frozenset(stops)


def choose_template(tokenizer: Any, name: str, choice: str | None) -> None:
    """Give `tokenizer` the chosen chat template; without a choice it must have one of its own.

    Args:
        choice: `chatml`, `plain`, a path of a Jinja file, or None for the tokenizer's own.

    Raises:
        ModelError: there is no template and none was chosen, or the file cannot be read.
    """
    if choice is not None:
        if choice in TEMPLATES:
            first = tokenizer("a").input_ids[:1]
            begins = tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]
            tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + TEMPLATES[choice]
            return
        try:
            tokenizer.chat_template = Path(choice).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(
                f"The chat template {choice} cannot be read ({error}).",
                f"Give a Jinja file, or one of {', '.join(TEMPLATES)}.",
            ) from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"{name} has no chat template, so that it is not known how to talk to it.",
            "Choose one: --chat-template chatml, --chat-template plain, or a Jinja file.",
        )


def _device_map(placement: Placement) -> Any:
    """Return where the weights go: over all GPUs, or on the one of this process among several."""
    if placement.device != "cuda":
        return None
    processes = launched()
    alone = not processes.several or processes.divided
    return "auto" if alone else {"": processes.local}


def load_weights(
    folder: Path, placement: Placement, device_map: Any = None, *, trust_remote_code: bool = False
) -> Any:
    """Return the model of a folder, ready to be asked and none of it trainable.

    Args:
        device_map: where its weights go, as transformers has it; by default the CPU.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, placement.dtype),
        trust_remote_code=trust_remote_code,
        device_map=device_map,
    )
    model.eval()
    model.requires_grad_(False)
    return model


def _load(folder: Path, placement: Placement, trust_remote_code: bool) -> Any:
    """Return the model of a folder; its shape alone where another process asks it."""
    from transformers import GenerationConfig

    processes = launched()
    if not (processes.divided and processes.follows):
        device_map = _device_map(placement)
        return load_weights(folder, placement, device_map, trust_remote_code=trust_remote_code)
    model = without_weights(folder, trust_remote_code=trust_remote_code)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval()


def load_chat_model(
    folder: Path,
    placement: Placement,
    *,
    weights: str,
    name: str = "",
    system: str | None = None,
    thinking: bool = False,
    chat_template: str | None = None,
    trust_remote_code: bool = False,
) -> ChatModel:
    """Load a plain Hugging Face folder for inference; see `ChatModel` for the arguments.

    Raises:
        ModelError: transformers cannot read the model or the tokenizer.
    """
    from safetensors import SafetensorError
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if placement.device == "cpu":
        keep_freed_memory()
    label = name or folder.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        model = _load(folder, placement, trust_remote_code)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{label} cannot be loaded ({reason}).",
            "Check that the folder holds a complete causal language model with its tokenizer.",
        ) from error
    if placement.device == "mps":
        model.to("mps")
    choose_template(tokenizer, label, chat_template)
    return ChatModel(
        folder,
        model,
        tokenizer,
        placement,
        weights,
        system,
        thinking,
        _stop_tokens(model, tokenizer),
    )
