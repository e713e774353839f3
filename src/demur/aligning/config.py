"""Every choice of a run, with its default. The resolved configuration is kept in the run folder."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from demur.errors import ConfigError
from demur.options import MEASURING, MODEL, PROMPTS, TRAINING

REFUSAL = ("Sorry, but I can't help with that.",)
STRENGTHS = (0.85,)
POSITIVE = (
    "train_pairs",
    "longest",
    "own_tokens",
    "rank",
    "batch",
    "micro_batch",
    "epochs",
    "checkpoints",
    "stopping_points",
    "validation_pairs",
    "test_pairs",
    "test_ordinary",
    "answer_tokens",
)


@dataclass(frozen=True)
class AlignConfig:
    """The choices of `demur align`; each has a flag of the same name.

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
        refusal: the sentence that the model learns to refuse with, or several to vary.
        train_pairs: how many harmful requests, and as many twins, become lessons.
        train_ordinary: how many ordinary instructions become lessons.
        longest: tokens of a request that is trained on; longer ones only where there are too few.
        own_tokens: tokens of the student's own answer in a lesson.
        train_texts: texts that the student writes of itself, as an anchor outside chats.
        rank: rank of the low-rank patch.
        informed: requests a side from which training's first directions are drawn; 0 for random.
        first_layer: where training begins, as a fraction of the model's depth.
        last_layer: where training ends, as a fraction of the model's depth.
        learning_rate: of AdamW.
        batch: lessons a step.
        micro_batch: lessons a forward pass, at most.
        epochs: how often each lesson is seen.
        keep_weight: the price of divergence on benign requests.
        decision_weight: the weight of deciding rightly at the answer's first token.
        checkpoints: how often training is written down, to go on from.
        stopping_points: of the last checkpoints, how many validation chooses from.
        strengths: factors on the delta that validation chooses from, beside 1.
        validation_pairs: pairs that choices are made on; as many or fewer ordinary instructions.
        test_pairs: pairs that results are reported from.
        test_ordinary: ordinary instructions that results are reported from.
        prefill: harmful test requests that are also asked with a compliant opening.
        answer_tokens: tokens of an answer in measurements.
        text: plain text file for perplexity; by default passages written for demur.
        text_tokens: how much of the text is read.
        seed: of everything that is drawn.
    """

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
    refusal: Annotated[tuple[str, ...], TRAINING, Parameter(consume_multiple=True)] = REFUSAL
    train_pairs: Annotated[int, TRAINING] = 1300
    train_ordinary: Annotated[int, TRAINING] = 350
    longest: Annotated[int, TRAINING] = 18
    own_tokens: Annotated[int, TRAINING] = 8
    train_texts: Annotated[int, TRAINING] = 64
    rank: Annotated[int, TRAINING] = 8
    informed: Annotated[int, TRAINING] = 200
    first_layer: Annotated[float, TRAINING] = 0.4
    last_layer: Annotated[float, TRAINING] = 1.0
    learning_rate: Annotated[float, TRAINING] = 1.4e-3
    batch: Annotated[int, TRAINING] = 32
    micro_batch: Annotated[int, TRAINING] = 32
    epochs: Annotated[int, TRAINING] = 1
    keep_weight: Annotated[float, TRAINING] = 1.0
    decision_weight: Annotated[float, TRAINING] = 1.0
    checkpoints: Annotated[int, TRAINING] = 3
    stopping_points: Annotated[int, TRAINING] = 1
    strengths: Annotated[tuple[float, ...], TRAINING, Parameter(consume_multiple=True)] = STRENGTHS
    validation_pairs: Annotated[int, MEASURING] = 80
    test_pairs: Annotated[int, MEASURING] = 150
    test_ordinary: Annotated[int, MEASURING] = 100
    prefill: Annotated[int, MEASURING] = 40
    answer_tokens: Annotated[int, MEASURING] = 16
    text: Annotated[str | None, MEASURING] = None
    text_tokens: Annotated[int, MEASURING] = 6144
    seed: Annotated[int, TRAINING] = 0

    def __post_init__(self) -> None:
        # cyclopts and callers from Python both come through here
        object.__setattr__(self, "strengths", tuple(self.strengths))
        one = (self.refusal,) if isinstance(self.refusal, str) else self.refusal
        object.__setattr__(self, "refusal", tuple(one))
        for name in POSITIVE:
            self._require(name, "at least 1", getattr(self, name) >= 1)
        for name in (
            *("train_ordinary", "train_texts", "prefill"),
            *("keep_weight", "decision_weight", "informed"),
        ):
            self._require(name, "at least 0", getattr(self, name) >= 0)
        self._require("text_tokens", "at least 2", self.text_tokens >= 2)
        self._require("learning_rate", "above 0, at most 1", 0 < self.learning_rate <= 1)
        self._require("first_layer", "at least 0 and below 1", 0 <= self.first_layer < 1)
        self._require("last_layer", "above first_layer, at most 1", self._layers_in_order)
        self._require("strengths", "above 0, each", all(0 < s < math.inf for s in self.strengths))

    @property
    def _layers_in_order(self) -> bool:
        return self.first_layer < self.last_layer <= 1

    def _require(self, name: str, wanted: str, met: bool) -> None:
        if not met:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{flag} is {getattr(self, name)}, but must be {wanted}.",
                f"Give another value, or leave {flag} out.",
            )

    def resolved(self) -> dict[str, Any]:
        """Return the configuration as JSON can hold it."""
        return {**asdict(self), "strengths": list(self.strengths), "refusal": list(self.refusal)}
