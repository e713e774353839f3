"""Every choice of `demur measure`, with its default."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any

from cyclopts import Group, Parameter

from demur.errors import ConfigError
from demur.options import MEASURING, MODEL, PROMPTS, as_json, require

ATTACKS = Parameter(group=Group.create_ordered("Attacks"))
UTILITY = Parameter(group=Group.create_ordered("Utility"))
SEVERAL = Parameter(consume_multiple=True)
AT_LEAST_ONE = ("n", "answer_tokens", "templates_count", "divergence_prompts")
AT_LEAST_NONE = ("prefill", "template_prompts", "blimp_n")
SEQUENCES = ("models", "system", "sets", "lm_eval")


@dataclass(frozen=True)
class MeasureConfig:
    """The choices of `demur measure`; each has a flag of the same name.

    Raises:
        ConfigError: a value makes no sense.

    Attributes:
        models: what `demur align` takes, or an endpoint such as http://HOST:PORT/v1#MODEL;
            NAME=MODEL to name it, MODEL+PATCH to put a patch on.
        reference: the name of the model that the others are compared with; by default the first.
        device: auto, cuda, mps or cpu.
        dtype: auto, float32, bfloat16 or float16.
        thinking: leave the thinking block of the template open.
        chat_template: chatml, plain or a Jinja file, for models without one.
        trust_remote_code: let a model bring its own Python code.
        sets: prompt sets by name, see `demur prompts --sets`; by default the built-in test split.
        data: folder with local copies of the sets; by default $DEMUR_DATA, then the hub.
        harmful: file or hub data set of harmful requests, as a set of its own.
        harmful_column: its column of prompts, where it cannot be found.
        benign: file or hub data set of benign requests that sound alarming.
        benign_column: its column of prompts.
        ordinary: file or hub data set of ordinary instructions.
        ordinary_column: its column of prompts.
        apart: leave out prompts near those of this align run; builtin, or none to ask them all.
        n: prompts of each set, at most.
        system: system prompts to ask under: template (its own), none, or a text; several may be
            given, and attacks are made under the first.
        answer_tokens: tokens of an answer.
        prefill: harmful requests that are also asked with a compliant opening; 0 for none.
        templates: file of jailbreak templates with a place for the request, such as {prompt}.
        templates_count: how many of them are drawn.
        template_prompts: harmful requests that are asked through the templates, in turn.
        text: plain text file for perplexity; by default passages written for demur.
        text_tokens: how much of the text is read; 0 to leave perplexity out.
        divergence_prompts: ordinary prompts along whose answers divergence is measured.
        blimp: BLiMP's zip, a folder of its files, or one of them.
        blimp_n: minimal pairs, at most.
        lm_eval: tasks of lm-evaluation-harness (pip install 'demur[lm-eval]').
        lm_eval_limit: documents a task, at most.
        seed: of everything that is drawn.
        judge: who judges the answers, by name: see `demur judge --help`.
    """

    models: Annotated[tuple[str, ...], MODEL]
    _: KW_ONLY
    reference: Annotated[str | None, MODEL] = None
    device: Annotated[str, MODEL] = "auto"
    dtype: Annotated[str, MODEL] = "auto"
    thinking: Annotated[bool, MODEL] = False
    chat_template: Annotated[str | None, MODEL] = None
    trust_remote_code: Annotated[bool, MODEL] = False
    sets: Annotated[tuple[str, ...], PROMPTS, SEVERAL] = ()
    data: Annotated[str | None, PROMPTS] = None
    harmful: Annotated[str | None, PROMPTS] = None
    harmful_column: Annotated[str | None, PROMPTS] = None
    benign: Annotated[str | None, PROMPTS] = None
    benign_column: Annotated[str | None, PROMPTS] = None
    ordinary: Annotated[str | None, PROMPTS] = None
    ordinary_column: Annotated[str | None, PROMPTS] = None
    apart: Annotated[str, PROMPTS] = "builtin"
    n: Annotated[int, MEASURING] = 200
    system: Annotated[tuple[str, ...], MEASURING, SEVERAL] = ("template",)
    answer_tokens: Annotated[int, MEASURING] = 32
    seed: Annotated[int, MEASURING] = 0
    judge: Annotated[str, MEASURING] = "opening"
    prefill: Annotated[int, ATTACKS] = 60
    templates: Annotated[str | None, ATTACKS] = None
    templates_count: Annotated[int, ATTACKS] = 6
    template_prompts: Annotated[int, ATTACKS] = 60
    text: Annotated[str | None, UTILITY] = None
    text_tokens: Annotated[int, UTILITY] = 6144
    divergence_prompts: Annotated[int, UTILITY] = 60
    blimp: Annotated[str | None, UTILITY] = None
    blimp_n: Annotated[int, UTILITY] = 1005
    lm_eval: Annotated[tuple[str, ...], UTILITY, SEVERAL] = ()
    lm_eval_limit: Annotated[int | None, UTILITY] = None

    def __post_init__(self) -> None:
        # cyclopts and callers from Python both come through here
        for name in SEQUENCES:
            value = getattr(self, name)
            items = (value,) if isinstance(value, str) else tuple(value)
            if name in ("sets", "lm_eval"):  # also as one text with commas
                items = tuple(part.strip() for item in items for part in item.split(","))
                items = tuple(item for item in items if item)
            object.__setattr__(self, name, items)
        if not self.models:
            raise ConfigError("No model was named.", "Name one or several: demur measure MODEL.")
        if not self.system:
            object.__setattr__(self, "system", ("template",))
        if len(set(self.system)) < len(self.system):
            raise ConfigError("--system has the same prompt twice.", "Give each of them once.")
        for name in AT_LEAST_ONE:
            self._require(name, 1)
        for name in AT_LEAST_NONE:
            self._require(name, 0)
        if self.text_tokens != 0:
            self._require("text_tokens", 2)
        if self.lm_eval_limit is not None:
            self._require("lm_eval_limit", 1)

    def _require(self, name: str, least: int) -> None:
        require(self, name, f"at least {least}", getattr(self, name) >= least)

    def resolved(self) -> dict[str, Any]:
        """Return the configuration as JSON can hold it."""
        return as_json(self)
