"""The choices that every treatment of a model shares, with their defaults.

The resolved configuration is kept in the run folder. Annotations are not postponed in the files of
configurations: the command line reads them, those of a base class too.
"""

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Annotated, Any, ClassVar, Self

from demur.options import BUDGET, MEASURING, MODEL, PROMPTS, as_json, require

BUDGETED = ("max_over_refusal", "max_divergence")


@dataclass(frozen=True)
class TreatmentConfig:
    """Which model, which prompts, and how it is measured; each has a flag of the same name.

    Raises:
        ConfigError: a value makes no sense, such as a negative number of prompts.

    Attributes:
        model: hub id, folder, GGUF file, PEFT adapter folder, or the alias smollm2-135m.
        revision: branch, tag or commit of a hub model.
        base: base model of a PEFT adapter, if not the one that it names.
        trust_remote_code: let a model bring its own Python code.
        device: auto, cuda, mps or cpu.
        dtype: auto, float32, bfloat16 or float16.
        system: a system prompt; by default what the chat template itself has.
        thinking: leave the thinking block of the template open.
        chat_template: chatml, plain or a Jinja file, for a model without one.
        pairs: file or hub data set with the columns harmful and benign, in place of the built-in.
        harmful: file or hub data set of harmful requests, in place of the built-in pairs.
        harmful_column: its column of prompts, where it cannot be found.
        benign: file or hub data set of benign requests that sound alarming.
        benign_column: its column of prompts.
        ordinary: file or hub data set of ordinary instructions, in place of the built-in.
        ordinary_column: its column of prompts.
        max_over_refusal: the most of benign requests that may be refused, twins and ordinary ones
            counted alike: of what keeps to it on validation prompts, what refuses most is chosen.
        max_divergence: the most that may be diverged from the original on ordinary answers, in nats
            a token (KL).
        validation_pairs: pairs that choices are made on; as many or fewer ordinary instructions.
        test_pairs: pairs that results are reported from.
        test_ordinary: ordinary instructions that results are reported from.
        prefill: harmful test requests that are also asked with a compliant opening.
        answer_tokens: tokens of an answer in measurements.
        text: plain text file for perplexity; by default passages written for demur.
        text_tokens: how much of the text is read.
        seed: of everything that is drawn.
    """

    verb: ClassVar[str] = ""
    parallel: ClassVar[bool] = False  # whether several processes may be launched to run it together
    purpose: ClassVar[str] = "train"  # what the first split's prompts are there for
    positive: ClassVar[tuple[str, ...]] = (
        *("validation_pairs", "test_pairs", "test_ordinary", "answer_tokens"),
    )
    not_negative: ClassVar[tuple[str, ...]] = ("prefill",)

    model: Annotated[str, MODEL]
    _: KW_ONLY
    revision: Annotated[str | None, MODEL] = None
    base: Annotated[str | None, MODEL] = None
    trust_remote_code: Annotated[bool, MODEL] = False
    device: Annotated[str, MODEL] = "auto"
    dtype: Annotated[str, MODEL] = "auto"
    system: Annotated[str | None, MODEL] = None
    thinking: Annotated[bool, MODEL] = False
    chat_template: Annotated[str | None, MODEL] = None
    pairs: Annotated[str | None, PROMPTS] = None
    harmful: Annotated[str | None, PROMPTS] = None
    harmful_column: Annotated[str | None, PROMPTS] = None
    benign: Annotated[str | None, PROMPTS] = None
    benign_column: Annotated[str | None, PROMPTS] = None
    ordinary: Annotated[str | None, PROMPTS] = None
    ordinary_column: Annotated[str | None, PROMPTS] = None
    max_over_refusal: Annotated[float | None, BUDGET] = None
    max_divergence: Annotated[float | None, BUDGET] = None
    validation_pairs: Annotated[int, MEASURING] = 80
    test_pairs: Annotated[int, MEASURING] = 150
    test_ordinary: Annotated[int, MEASURING] = 100
    prefill: Annotated[int, MEASURING] = 40
    answer_tokens: Annotated[int, MEASURING] = 16
    text: Annotated[str | None, MEASURING] = None
    text_tokens: Annotated[int, MEASURING] = 6144
    seed: Annotated[int, MEASURING] = 0

    def __post_init__(self) -> None:
        for name in self.positive:
            self._require(name, "at least 1", getattr(self, name) >= 1)
        for name in self.not_negative:
            self._require(name, "at least 0", getattr(self, name) >= 0)
        self._require("text_tokens", "at least 2", self.text_tokens >= 2)
        self._require(
            "max_over_refusal",
            "from 0 to 1",
            self.max_over_refusal is None or 0 <= self.max_over_refusal <= 1,
        )
        self._require(
            "max_divergence",
            "at least 0",
            self.max_divergence is None or 0 <= self.max_divergence < math.inf,
        )

    @property
    def adapter_base(self) -> str | None:
        """The base of a PEFT adapter, if not the one that it names."""
        return self.base

    def _require(self, name: str, wanted: str, met: bool) -> None:
        require(self, name, wanted, met)

    @classmethod
    def of(cls, model: str | Self, **choices: Any) -> Self:
        """Return the configuration of a model's name, or a whole one, with other choices."""
        return cls(model, **choices) if isinstance(model, str) else replace(model, **choices)

    def identity(self) -> dict[str, Any]:
        """Return what makes a run another run: by default every choice."""
        return self.resolved()

    def resolved(self) -> dict[str, Any]:
        """Return the configuration as JSON can hold it."""
        return as_json(self)
