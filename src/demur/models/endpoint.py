"""Models behind an endpoint: where they are, what is sent to them, and what their replies say.

    openai:gpt-4o-mini                    OpenAI's own (OPENAI_API_KEY)
    anthropic:claude-haiku-4-5            Anthropic's own (ANTHROPIC_API_KEY)
    http://localhost:8000/v1#my-model     anything that speaks OpenAI's protocol: vLLM, llama.cpp,
                                          Ollama, ... (OPENAI_API_KEY, if it is set)

This file knows the protocols; `demur.models.asking` sends, waits and tries again. A key is only
ever named here, by its environment variable: it is read at the moment of sending.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from demur.errors import EndpointError

Dialect = Literal["openai", "anthropic"]
OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com/v1"
ANTHROPIC_VERSION = "2023-06-01"
FORMS = "openai:MODEL, anthropic:MODEL or http://HOST:PORT/v1#MODEL"


@dataclass(frozen=True)
class Endpoint:
    """Where a model is asked.

    Attributes:
        spec: what the user wrote.
        dialect: the protocol it speaks.
        url: the address that the protocol's paths are appended to.
        model: the model's name there.
        key_variable: the environment variable that holds the key.
        key_needed: whether there is no asking without a key.
    """

    spec: str
    dialect: Dialect
    url: str
    model: str
    key_variable: str
    key_needed: bool

    @property
    def name(self) -> str:
        """A short name, of which two are equal only if the same is asked at the same place."""
        if self.url in (OPENAI, ANTHROPIC):
            return f"{self.dialect}:{self.model}"
        parts = urlsplit(self.url)
        return f"{parts.netloc}{parts.path.removesuffix('/v1')}#{self.model}"

    def key(self) -> str:
        """Return the key, or an empty string where none is set and none is needed.

        Raises:
            EndpointError: the variable is not set, or cannot be a key.
        """
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise EndpointError(
                f"What the environment variable {self.key_variable} holds is no key: it has "
                "characters that a key cannot have.",
                "Set it again.",
            )
        if not key and self.key_needed:
            raise EndpointError(
                f"There is no key for {self.spec}: the environment variable "
                f"{self.key_variable} is not set.",
                f"Set it (export {self.key_variable}=...), or name another with --key-variable.",
            )
        return key

    def headers(self) -> dict[str, str]:
        """Return the headers of a request, the key among them: never to be shown or kept."""
        key = self.key()
        if self.dialect == "anthropic":
            return {"x-api-key": key, "anthropic-version": ANTHROPIC_VERSION}
        return {"authorization": f"Bearer {key}"} if key else {}


def is_endpoint(text: str) -> bool:
    """Return whether `text` names an endpoint rather than a folder or a hub model."""
    return bool(re.match(r"(?:openai|anthropic):|https?://", text))


def parse_endpoint(spec: str, key_variable: str | None = None) -> Endpoint:
    """Return the endpoint that `spec` names.

    Args:
        spec: one of the forms in this module's docstring.
        key_variable: the environment variable that holds the key, if not the usual one.

    Raises:
        EndpointError: `spec` has none of these forms, or holds a key or a password itself.
    """
    scheme, _, model = spec.partition(":")
    if scheme in ("openai", "anthropic"):
        if not model:
            raise EndpointError(f"'{spec}' names no model.", f"Write {FORMS}.")
        if scheme == "anthropic":
            variable = key_variable or "ANTHROPIC_API_KEY"
            return Endpoint(spec, "anthropic", ANTHROPIC, model, variable, True)
        return Endpoint(spec, "openai", OPENAI, model, key_variable or "OPENAI_API_KEY", True)
    try:
        parts = urlsplit(spec)
        known = scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        known = False
    if not known:
        raise EndpointError(f"'{spec}' is no endpoint.", f"Write {FORMS}.")
    if parts.username or parts.password or parts.query:
        raise EndpointError(
            "The endpoint's address holds a user, a password or a query.",
            "Leave it out of the address, and put the key into an environment variable that "
            "--key-variable names.",
        )
    if not parts.fragment:
        raise EndpointError(
            f"'{spec}' does not say which model.", "Append it: http://HOST:PORT/v1#MODEL."
        )
    url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    return Endpoint(
        spec,
        "openai",
        url,
        parts.fragment,
        key_variable or "OPENAI_API_KEY",
        key_variable is not None,
    )


@dataclass(frozen=True)
class Question:
    """One request to a model.

    Attributes:
        user: what the user says; None for a plain completion.
        system: a system prompt, or an empty string.
        assistant: an answer that follows the user's words: a guard model's template judges it.
        prompt: for a plain completion, the whole text.
        tokens: at most so many new ones.
        choices: how many of the likeliest first tokens to report, 0 for none.
    """

    user: str | None = None
    system: str = ""
    assistant: str | None = None
    prompt: str = ""
    tokens: int = 256
    choices: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is sent in it."""
        parts = (self.system, self.user, self.assistant, self.prompt)
        return tuple(part for part in parts if part)

    def messages(self) -> list[dict[str, str]]:
        """Return the conversation, without the system prompt."""
        turns = (("user", self.user), ("assistant", self.assistant))
        return [{"role": role, "content": text} for role, text in turns if text is not None]


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        text: the model's words.
        finished: whether the model itself ended them; False where they were cut off.
        first: log-probabilities of the likeliest first tokens, where they were asked for.
        tokens_in, tokens_out: as the endpoint reports them; None where it does not.
        filtered: whether the endpoint's content filter withheld the words or cut them.
    """

    text: str
    finished: bool
    first: Mapping[str, float]
    tokens_in: int | None
    tokens_out: int | None
    filtered: bool = False


def path_and_body(endpoint: Endpoint, question: Question) -> tuple[str, dict[str, Any]]:
    """Return the path and the JSON body of a request.

    Raises:
        EndpointError: the protocol has no plain completions.
    """
    body: dict[str, Any] = {"model": endpoint.model, "temperature": 0}
    if endpoint.dialect == "anthropic":
        if question.user is None:
            raise EndpointError(
                f"{endpoint.spec} takes no plain prompt, only a conversation.",
                "Use an endpoint with /completions, such as vLLM or llama.cpp.",
            )
        body |= {"max_tokens": question.tokens, "messages": question.messages()}
        if question.system:
            body["system"] = question.system
        return "/messages", body
    if question.user is None:
        body |= {"max_tokens": question.tokens, "prompt": question.prompt}
        if question.choices:
            body["logprobs"] = question.choices
        return "/completions", body
    limit = "max_completion_tokens" if endpoint.url == OPENAI else "max_tokens"
    system = [{"role": "system", "content": question.system}] if question.system else []
    body |= {limit: question.tokens, "messages": [*system, *question.messages()]}
    if question.choices:
        body |= {"logprobs": True, "top_logprobs": question.choices}
    return "/chat/completions", body


def read_reply(endpoint: Endpoint, value: Any) -> Reply:
    """Return what the JSON value of an answer says.

    Raises:
        KeyError, IndexError, TypeError, ValueError: it is not what the protocol says it is.
    """
    usage = value.get("usage") or {}
    if endpoint.dialect == "anthropic":
        text = "".join(part["text"] for part in value["content"] if part.get("type") == "text")
        finished = value.get("stop_reason") in ("end_turn", "stop_sequence")
        return Reply(
            text,
            finished,
            {},
            _count(usage, "input_tokens"),
            _count(usage, "output_tokens"),
            value.get("stop_reason") == "refusal",
        )
    choice = value["choices"][0]
    text = choice["message"].get("content") or "" if "message" in choice else choice["text"]
    if not isinstance(text, str):
        raise TypeError("the reply's text is no text")
    return Reply(
        text,
        choice.get("finish_reason") in ("stop", "eos"),
        _first(choice.get("logprobs")),
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
        choice.get("finish_reason") == "content_filter",
    )


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return int(value) if isinstance(value, int | float) else None


def _first(logprobs: Any) -> dict[str, float]:
    """Return the first position's likeliest tokens: both of the shapes that servers send."""
    if not isinstance(logprobs, Mapping):
        return {}
    positions: Sequence[Any] = logprobs.get("content") or logprobs.get("top_logprobs") or ()
    if not positions:
        return {}
    first = positions[0]
    if isinstance(first, Mapping) and "top_logprobs" in first:
        return {str(each["token"]): float(each["logprob"]) for each in first["top_logprobs"]}
    if isinstance(first, Mapping):
        return {str(token): float(value) for token, value in first.items()}
    return {}
