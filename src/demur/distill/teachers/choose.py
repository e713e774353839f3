"""What a user means by a teacher: the student itself, an endpoint, a file, or another model.

find_teacher("self")                             # the student under a safety instruction
find_teacher("openai:gpt-4o-mini")               # an endpoint, as `demur measure` takes them
find_teacher("http://localhost:8000/v1#model")
find_teacher("answers.jsonl")                    # recorded answers
find_teacher("org/model")                        # hub id, folder, GGUF, alias, run folder
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from demur.distill.teachers.recorded import RECORDED_ENDINGS, read_recorded_prompts
from demur.errors import ConfigError, PromptError
from demur.models.endpoint import Endpoint, is_endpoint, parse_endpoint
from demur.models.resolve import ResolvedModel, resolve

SELF = "self"
FORMS = (
    "Write self, a file of recorded answers, a model, or an endpoint such as openai:MODEL or "
    "http://HOST:PORT/v1#MODEL."
)


@dataclass(frozen=True)
class FoundTeacher:
    """What a teacher's name stands for; of the last three, the one of its kind is there."""

    spec: str
    kind: Literal["self", "endpoint", "file", "model"]
    endpoint: Endpoint | None = None
    path: Path | None = None
    resolved: ResolvedModel | None = None


def find_teacher(
    spec: str,
    *,
    key_variable: str | None = None,
    trust_remote_code: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> FoundTeacher:
    """Tell what `spec` names, and check that it is there, before any work is done.

    Args:
        key_variable: the environment variable that holds an endpoint's key, if not the usual.
        say: told what is fetched or converted.

    Raises:
        ConfigError: it is empty.
        EndpointError: an endpoint is not written as one, or its key is missing.
        PromptError: a file is missing, or no file of recorded answers.
        ModelError: there is no such model.
    """
    if not spec.strip():
        raise ConfigError("The teacher has no name.", FORMS)
    if spec == SELF:
        return FoundTeacher(spec, "self")
    if is_endpoint(spec):
        endpoint = parse_endpoint(spec, key_variable)
        endpoint.key()  # a missing key is told before any work
        return FoundTeacher(spec, "endpoint", endpoint=endpoint)
    path = Path(spec).expanduser()
    ending = path.suffix.lower()
    if ending in RECORDED_ENDINGS and not path.is_dir():
        read_recorded_prompts(path)
        return FoundTeacher(spec, "file", path=path)
    if path.is_file() and ending != ".gguf":
        raise PromptError(
            f"The teacher '{spec}' is a file, but not one of recorded answers.",
            f"Give a file that ends in one of: {', '.join(RECORDED_ENDINGS)}.",
        )
    model = path / "model" if (path / "journal.sqlite").is_file() else None
    source = str(model) if model is not None and model.is_dir() else spec
    found = resolve(source, trust_remote_code=trust_remote_code, say=say)
    return FoundTeacher(spec, "model", resolved=found)
