"""Every choice of `demur distill`, with its default."""

import math
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from cyclopts import Parameter

from demur.options import TRAINING
from demur.run.folder import PATCH
from demur.treating.config import BUDGETED, TreatmentConfig

OBJECTIVE = Literal["sft", "dpo", "rloo", "grpo", "logits"]
GUIDE = Literal["decided", "shown", "instructed", "hinted"]
REWARD = Literal["verdicts", "learned"]
REFUSAL = ("Sorry, but I can't help with that.",)
STRENGTHS = (0.85,)
# choices that earlier runs did not have
ADDED = (
    *("full", "full_learning_rate", "learning_rates", "reward", "from_patch"),
    *("step_texts", "text_weight"),
)


@dataclass(frozen=True)
class DistillConfig(TreatmentConfig):
    """How refusals are taught, beside what every treatment has; each has a flag of the same name.

    Attributes:
        refusal: the sentence that the model learns to refuse with, or several to vary.
        teacher: whose refusals are learnt in its place: self (the model under a safety
            instruction), a model, an endpoint such as openai:MODEL or http://HOST:PORT/v1#MODEL,
            or a file of recorded answers.
        pattern: uniform teaches one sentence, the teacher's commonest; varied all of them.
        train_pairs: how many harmful requests, and as many twins, become lessons.
        train_ordinary: how many ordinary instructions become lessons.
        longest: tokens of a request that is trained on; longer ones only where there are too few.
        own_tokens: tokens of the student's own answer in a lesson.
        train_texts: texts that the student writes of itself, as an anchor outside chats.
        step_texts: how many of them a step reads.
        full: train all weights of the layers in place of a low-rank change; with first_layer 0 and
            last_layer 1 those outside the layers too.
        full_learning_rate: of AdamW, in place of learning_rate, where all weights are trained.
        from_patch: a patch of this model, as an earlier run wrote it, that training goes on from,
            for instance with rloo where sft has taught first.
        rank: rank of the low-rank patch.
        informed: requests a side from which training's first directions are drawn; 0 for random.
        first_layer: where training begins, as a fraction of the model's depth.
        last_layer: where training ends, as a fraction of the model's depth.
        learning_rate: of AdamW.
        learning_rates: train once at each of these in its place, and let validation choose: what
            is best at one size of model need not be at another. Without a budget the lowest that
            is within a standard error of the best is kept.
        batch: lessons a step.
        micro_batch: lessons a forward pass, at most.
        epochs: how often each lesson is seen.
        keep_weight: the price of divergence on benign requests.
        text_weight: how many times that price divergence has on those texts, a token; more holds
            perplexity, and may cost some of what is told apart.
        decision_weight: the weight of deciding rightly at the answer's first token.
        checkpoints: how often training is written down, to go on from.
        stopping_points: of the last checkpoints, how many validation chooses from.
        objective: what training makes smaller: sft (imitate refusals), dpo (prefer them to the
            student's compliance), rloo or grpo (reinforce what the judge calls right), or logits
            (agree with a teacher at every token of the student's own answers).
        guide: with the objective logits and the student as its own teacher, what the teacher sees:
            decided (examples that all went the right way), shown (of both kinds), instructed (a
            safety instruction) or hinted (the decision in words).
        deep: teach refusing from within an answer that has begun to comply, too.
        beta: how departing from the student is held in by dpo, rloo and grpo; each has a default.
        on_policy: with logits, the share of answers that the student writes while it trains.
        divergence: with logits, 0 for KL(teacher, student), 1 for the reverse.
        samples: with rloo and grpo, answers a request, one of them demonstrated.
        sample_tokens: with rloo, grpo and logits, tokens that the student writes in training.
        reward: with rloo and grpo, what pays: the judge's verdicts, or a reward model learned
            from refusals preferred to the student's compliance, and its answers to refusals.
        over_refusal_price: with rloo and grpo on verdicts, what refusing a harmless request costs.
        strengths: factors on the delta that validation chooses from, beside 1.
    """

    verb: ClassVar[str] = "distill"
    parallel: ClassVar[bool] = True
    positive: ClassVar[tuple[str, ...]] = (
        *TreatmentConfig.positive,
        *("train_pairs", "longest", "own_tokens", "rank", "batch", "micro_batch", "epochs"),
        *("checkpoints", "stopping_points", "sample_tokens", "step_texts"),
    )
    not_negative: ClassVar[tuple[str, ...]] = (
        *TreatmentConfig.not_negative,
        *("train_ordinary", "train_texts", "keep_weight", "text_weight", "decision_weight"),
        *("informed", "over_refusal_price"),
    )

    _: KW_ONLY
    refusal: Annotated[tuple[str, ...], TRAINING, Parameter(consume_multiple=True)] = REFUSAL
    teacher: Annotated[str | None, TRAINING] = None
    pattern: Annotated[Literal["uniform", "varied"], TRAINING] = "uniform"
    train_pairs: Annotated[int, TRAINING] = 1150
    train_ordinary: Annotated[int, TRAINING] = 320
    longest: Annotated[int, TRAINING] = 18
    own_tokens: Annotated[int, TRAINING] = 8
    train_texts: Annotated[int, TRAINING] = 320
    step_texts: Annotated[int, TRAINING] = 8
    full: Annotated[bool, TRAINING] = False
    full_learning_rate: Annotated[float, TRAINING] = 3e-5
    from_patch: Annotated[str | None, TRAINING] = None
    rank: Annotated[int, TRAINING] = 8
    informed: Annotated[int, TRAINING] = 200
    first_layer: Annotated[float, TRAINING] = 0.4
    last_layer: Annotated[float, TRAINING] = 1.0
    learning_rate: Annotated[float, TRAINING] = 1.4e-3
    learning_rates: Annotated[tuple[float, ...], TRAINING, Parameter(consume_multiple=True)] = ()
    batch: Annotated[int, TRAINING] = 32
    micro_batch: Annotated[int, TRAINING] = 32
    epochs: Annotated[int, TRAINING] = 1
    keep_weight: Annotated[float, TRAINING] = 1.0
    text_weight: Annotated[float, TRAINING] = 24.0
    decision_weight: Annotated[float, TRAINING] = 1.0
    checkpoints: Annotated[int, TRAINING] = 3
    stopping_points: Annotated[int, TRAINING] = 1
    objective: Annotated[OBJECTIVE, TRAINING] = "sft"
    guide: Annotated[GUIDE, TRAINING] = "decided"
    deep: Annotated[bool, TRAINING] = False
    beta: Annotated[float | None, TRAINING] = None
    on_policy: Annotated[float, TRAINING] = 0.5
    divergence: Annotated[float, TRAINING] = 0.5
    samples: Annotated[int, TRAINING] = 4
    sample_tokens: Annotated[int, TRAINING] = 24
    reward: Annotated[REWARD, TRAINING] = "verdicts"
    over_refusal_price: Annotated[float, TRAINING] = 1.0
    strengths: Annotated[tuple[float, ...], TRAINING, Parameter(consume_multiple=True)] = STRENGTHS

    def __post_init__(self) -> None:
        # cyclopts and callers from Python both come through here
        object.__setattr__(self, "strengths", tuple(self.strengths))
        object.__setattr__(self, "learning_rates", tuple(sorted(set(self.learning_rates))))
        one = (self.refusal,) if isinstance(self.refusal, str) else self.refusal
        object.__setattr__(self, "refusal", tuple(one))
        super().__post_init__()
        self._require("pattern", "uniform or varied", self.pattern in ("uniform", "varied"))
        for name in ("learning_rate", "full_learning_rate"):
            self._require(name, "above 0, at most 1", 0 < getattr(self, name) <= 1)
        among = all(0 < rate <= 1 for rate in self.learning_rates)
        self._require("learning_rates", "above 0, at most 1, each", among)
        self._require("first_layer", "at least 0 and below 1", 0 <= self.first_layer < 1)
        self._require("last_layer", "above first_layer, at most 1", self._layers_in_order)
        self._require(
            "objective", f"one of {', '.join(get_args(OBJECTIVE))}", self._known_objective
        )
        self._require(
            "guide", f"one of {', '.join(get_args(GUIDE))}", self.guide in get_args(GUIDE)
        )
        self._require("reward", "verdicts or learned", self.reward in get_args(REWARD))
        self._require("beta", "above 0", self.beta is None or self.beta > 0)
        self._require("on_policy", "from 0 to 1", 0 <= self.on_policy <= 1)
        self._require("divergence", "from 0 to 1", 0 <= self.divergence <= 1)
        self._require("samples", "at least 3", self.samples >= 3)
        alone = not (self.from_patch and self.full)
        self._require("from_patch", "left out where all weights are trained", alone)
        self._require("strengths", "above 0, each", all(0 < s < math.inf for s in self.strengths))

    def identity(self) -> dict[str, Any]:
        """Return every choice, later additions only where they are made: earlier runs go on.

        A patch that training begins from is told by what is in it, not by where it lies.

        Raises:
            CheckpointError: there is no such patch.
        """
        from demur.checkpoint import read_patch

        default = {each.name: each.default for each in fields(self)}
        made = {
            name: value
            for name, value in self.resolved().items()
            if name not in (*ADDED, *BUDGETED) or getattr(self, name) != default[name]
        }
        if self.from_patch is not None:
            made["from_patch"] = read_patch(self.begun_at).manifest.hash
        return made

    @property
    def begun_at(self) -> Path:
        """Where the patch lies that training begins from: a run folder stands for its own."""
        path = Path(self.from_patch or "")
        return path / PATCH if path.is_dir() else path

    @property
    def _known_objective(self) -> bool:
        return self.objective in get_args(OBJECTIVE)

    @property
    def _layers_in_order(self) -> bool:
        return self.first_layer < self.last_layer <= 1
