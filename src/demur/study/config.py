"""Every choice of a study, with its default."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any

from cyclopts import Group, Parameter

from demur.errors import ConfigError
from demur.options import as_json
from demur.wording.sentences import WORDS

RECORDED, PATTERNS, ASKED = (
    Parameter(group=Group.create_ordered(title))
    for title in ("Recorded answers", "Judging and patterns", "Models that are asked")
)


@dataclass(frozen=True)
class StudyConfig:
    """The choices of `demur study`; each has a flag of the same name.

    Raises:
        ConfigError: a value makes no sense.

    Attributes:
        sources: files of recorded answers, run folders, models, endpoints; NAME=SOURCE gives one a
            name.
        prompt_column: column of prompts in files, where it cannot be found.
        response_column: column of answers.
        model_column: column that says which model answered.
        kind_column: column that says whether a request is harmful or benign.
        label_column: column with people's verdict, true where they say that it refuses.
        kinds: file that says which requests are harmful and which benign, by prompt or sha256.
        all_harmful: files (or NAMEs) whose requests are all harmful.
        all_benign: files (or NAMEs) whose requests are all benign.
        judge: embedded, opening, any other of `demur judge`, or people (their own labels, and
            embedded for answers without).
        embedder: auto, minilm or tfidf.
        words: words of an opening.
        prompts: harmful requests, and as many benign twins, that a model is asked.
        ordinary_prompts: ordinary instructions that a model is asked.
        prefill: harmful requests that are asked again with a compliant opening forced.
        templates: file of jailbreak templates, each with a place for the request.
        template_prompts: harmful requests that are put into each template.
        pairs: file or hub data set with the columns harmful and benign, in place of the built-in.
        harmful: file or hub data set of harmful requests.
        benign: file or hub data set of benign requests that sound alarming.
        ordinary: file or hub data set of ordinary instructions.
        tokens: tokens of an answer.
        system: a system prompt; by default what the chat template itself has.
        thinking: leave the thinking block of the template open.
        chat_template: chatml, plain or a Jinja file, for a model without one.
        device: auto, cuda, mps or cpu.
        dtype: auto, float32, bfloat16 or float16.
        trust_remote_code: let a model bring its own Python code.
        seed: of everything that is drawn.
    """

    sources: Annotated[tuple[str, ...], Parameter(negative=())]
    _: KW_ONLY
    prompt_column: Annotated[str | None, RECORDED] = None
    response_column: Annotated[str | None, RECORDED] = None
    model_column: Annotated[str | None, RECORDED] = None
    kind_column: Annotated[str | None, RECORDED] = None
    label_column: Annotated[str | None, RECORDED] = None
    kinds: Annotated[str | None, RECORDED] = None
    all_harmful: Annotated[tuple[str, ...], RECORDED] = ()
    all_benign: Annotated[tuple[str, ...], RECORDED] = ()
    judge: Annotated[str, PATTERNS] = "embedded"
    embedder: Annotated[str, PATTERNS] = "auto"
    words: Annotated[int, PATTERNS] = WORDS
    prompts: Annotated[int, ASKED] = 100
    ordinary_prompts: Annotated[int, ASKED] = 60
    prefill: Annotated[int, ASKED] = 100
    templates: Annotated[str | None, ASKED] = None
    template_prompts: Annotated[int, ASKED] = 20
    pairs: Annotated[str | None, ASKED] = None
    harmful: Annotated[str | None, ASKED] = None
    benign: Annotated[str | None, ASKED] = None
    ordinary: Annotated[str | None, ASKED] = None
    tokens: Annotated[int, ASKED] = 64
    system: Annotated[str | None, ASKED] = None
    thinking: Annotated[bool, ASKED] = False
    chat_template: Annotated[str | None, ASKED] = None
    device: Annotated[str, ASKED] = "auto"
    dtype: Annotated[str, ASKED] = "auto"
    trust_remote_code: Annotated[bool, ASKED] = False
    seed: Annotated[int, ASKED] = 0

    def __post_init__(self) -> None:
        for name in ("sources", "all_harmful", "all_benign"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.sources:
            raise ConfigError(
                "No source was named.",
                "Name files of recorded answers, run folders, or models.",
            )
        for name in ("words", "prompts", "template_prompts", "tokens"):
            self._at_least(name, 1)
        for name in ("ordinary_prompts", "prefill"):
            self._at_least(name, 0)

    def _at_least(self, name: str, least: int) -> None:
        if getattr(self, name) < least:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{flag} is {getattr(self, name)}, but must be at least {least}.",
                f"Give another value, or leave {flag} out.",
            )

    def resolved(self) -> dict[str, Any]:
        """Return the configuration as JSON can hold it."""
        return as_json(self)
