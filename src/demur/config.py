"""Every choice of a run, with its default. The resolved configuration is kept in the run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

REFUSAL = "Sorry, but I can't help with that."


@dataclass(frozen=True)
class AlignConfig:
    """The choices of `demur align`; each has a flag of the same name.

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
        refusal: the sentence that the model learns to refuse with.
        train_pairs: how many harmful requests, and as many twins, become lessons.
        train_ordinary: how many ordinary instructions become lessons.
        longest: prompts of more tokens than this (template included) are not trained on.
        own_tokens: tokens of the student's own answer in a lesson.
        rank: rank of the low-rank patch.
        first_layer: where training begins, as a fraction of the model's depth.
        last_layer: where training ends, as a fraction of the model's depth.
        learning_rate: of AdamW.
        batch: lessons a step.
        micro_batch: lessons a forward pass.
        epochs: how often each lesson is seen.
        keep_weight: the price of divergence on benign requests.
        checkpoints: stopping points that validation chooses from.
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

    model: str
    revision: str | None = None
    base: str | None = None
    trust_remote_code: bool = False
    device: str = "auto"
    dtype: str = "auto"
    system: str | None = None
    thinking: bool = False
    chat_template: str | None = None
    pairs: str | None = None
    harmful: str | None = None
    harmful_column: str | None = None
    benign: str | None = None
    benign_column: str | None = None
    ordinary: str | None = None
    ordinary_column: str | None = None
    refusal: str = REFUSAL
    train_pairs: int = 1000
    train_ordinary: int = 300
    longest: int = 64
    own_tokens: int = 12
    rank: int = 16
    first_layer: float = 0.33
    last_layer: float = 1.0
    learning_rate: float = 1e-3
    batch: int = 32
    micro_batch: int = 16
    epochs: int = 1
    keep_weight: float = 1.0
    checkpoints: int = 3
    strengths: tuple[float, ...] = (0.8, 1.2)
    validation_pairs: int = 100
    test_pairs: int = 200
    test_ordinary: int = 140
    prefill: int = 60
    answer_tokens: int = 20
    text: str | None = None
    text_tokens: int = 6144
    seed: int = 0

    def resolved(self) -> dict[str, Any]:
        """Return the configuration as JSON can hold it."""
        return {**asdict(self), "strengths": list(self.strengths)}
