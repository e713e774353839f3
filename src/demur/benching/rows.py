"""The rows of the table: methods, baselines and controls, each a way to a model to be measured.

    with ROWS["sft"].treat(bench, seed=0) as treated:
        ...  # treated.chat is asked

Every row starts from the untouched student, loaded afresh. What a row chooses (a stopping point, a
strength, a layer, a scale), it chooses on validation prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from demur.benching.config import BenchConfig
from demur.checkpoint import LowRank
from demur.distill.baselines import choose_scale as scales
from demur.distill.choose import as_adapted
from demur.distill.lessons import Lesson
from demur.distill.objectives import Objective, Supervised
from demur.distill.recipe import Recipe
from demur.distill.teachers.choose import FoundTeacher, find_teacher
from demur.distilling.config import DistillConfig
from demur.distilling.make_lessons import Made
from demur.distilling.objective import prepare
from demur.distilling.treatment import TRAINING, Prepare, teach
from demur.errors import ConfigError
from demur.models.chat_model import ChatModel
from demur.prompts.split import limit
from demur.prompts.types import Splits
from demur.run.journal import content_key
from demur.treating.stages import Context, choosing_probes

EXAMPLES = 32  # of which the first that will do are shown
DIRECTION_PROMPTS = 128  # a side
DIRECTION_DEPTHS = (0.4, 0.55, 0.7)
DIRECTION_SCALES = (1.0, 3.0, 8.0)
DONOR_SCALES = (0.25, 0.5, 0.75, 1.0)
ONE_SHOT_STEPS = 10
AFTER_RATE = 5e-4  # of what goes on from a trained change: its first steps are not to undo it
SENTENCES = (
    "Sorry, but I can't help with that.",
    "I'm not able to assist with this request, as it could lead to serious harm.",
    "No, I won't take part in something that would hurt people.",
    "I understand that you may have your reasons, but I cannot provide that.",
    "As an assistant, I am unable to answer that.",
)


@dataclass(frozen=True)
class Bench:
    """What all rows share: the run's context and prompts."""

    config: BenchConfig
    context: Context
    splits: Splits

    def fresh(self) -> ChatModel:
        """Return the untouched student, loaded anew."""
        return self.context.load(self.context.resolved.folder, self.context.base_hash)


@dataclass(frozen=True)
class TreatedChat:
    """A row's model, as long as its context is open.

    Attributes:
        chat: what is to be measured.
        note: what validation chose.
        training: seconds that training took, without lessons (rows share them) or choosing; None
            where nothing was trained.
        strength: the factor on the trained change that validation chose.
    """

    chat: ChatModel
    note: str = ""
    training: float | None = None
    strength: float = 1.0


Treat = Callable[[Bench, int], AbstractContextManager[TreatedChat]]


@dataclass(frozen=True)
class Row:
    """One way to a model.

    Attributes:
        title: for the table.
        treat: given the bench and a seed, a context in which the treated model can be measured.
        seeded: whether another seed makes another model.
        kind: `method`, `baseline` or `control`.
    """

    title: str
    treat: Treat
    seeded: bool
    kind: str


@contextmanager
def _untouched(bench: Bench, seed: int) -> Iterator[TreatedChat]:
    yield TreatedChat(bench.fresh())


@contextmanager
def _instructed(bench: Bench, seed: int) -> Iterator[TreatedChat]:
    from demur.distill.baselines.context import INSTRUCTIONS, ContextBaseline

    name, instruction = next(iter(INSTRUCTIONS.items()))
    chat = ContextBaseline(name, instruction).applied(bench.fresh())
    yield TreatedChat(chat, f"instruction: {name}")


@contextmanager
def _shown(bench: Bench, seed: int) -> Iterator[TreatedChat]:
    """The student in the context in which it is its own teacher: what that could teach at best."""
    from demur.distill.teachers.instructed import shots

    config, context, chat = bench.config, bench.context, bench.fresh()
    found = shots(
        chat,
        limit(bench.splits.harmful("train"), EXAMPLES, config.seed),
        limit(bench.splits.ordinary("train"), EXAMPLES, config.seed),
        config.refusal,
        context.judge,
        context.folder.journal,
    )
    if not found:
        raise ConfigError(
            f"The chat template of {config.model} takes one turn only, so that no examples can be "
            "shown to it.",
            "Leave the row 'shown' out.",
        )
    yield TreatedChat(found[0].applied(chat), found[0].name)


def _trained(
    name: str,
    prepare: Prepare = prepare,
    cross: bool = False,
    after: str | None = None,
    **choices: Any,
) -> Treat:
    """Return the row that trains, with other choices than the bench's where they are given.

    Args:
        cross: whether refusals are learnt from the teacher of cross-model distilling.
        after: the row whose change training begins from.
    """

    @contextmanager
    def treat(bench: Bench, seed: int) -> Iterator[TreatedChat]:
        config = replace(bench.config, seed=seed, **choices)
        folder = bench.context.folder.path / "rows" / f"{name}-{seed}"
        chat = bench.fresh()
        phases = f": {name}, seed {seed}"
        found = _cross_teacher(bench.config) if cross else None
        taught = teach(
            config,
            bench.context,
            chat,
            bench.splits,
            folder,
            found,
            prepare=prepare,
            phases=phases,
            start=_learnt(bench, after, seed) if after else None,
        )
        chosen = taught.chosen
        yield TreatedChat(
            as_adapted(chat, chosen.checkpoint, chosen.strength),
            chosen.label,
            bench.context.phases[f"{TRAINING}{phases}"],
            chosen.strength,
        )

    return treat


def _learnt(bench: Bench, row: str, seed: int) -> dict[str, LowRank]:
    """Return the change that another row trains, at the strength that validation chose."""
    from demur.distill.choose import low_rank_changes

    with ROWS[row].treat(bench, seed) as trained:
        return low_rank_changes(trained.chat.model, bench.context.resolved.folder, trained.strength)


def _cross_teacher(config: BenchConfig) -> FoundTeacher:
    """Return the teacher of cross-model distilling."""
    assert config.cross_teacher is not None  # asked for before any row is made
    return find_teacher(config.cross_teacher, trust_remote_code=config.trust_remote_code)


Prepared = tuple[list[Lesson], Objective]
PLAIN = Supervised((), keep_weight=0.0, decision_weight=0.0)


def refusals_only(
    config: DistillConfig, context: Context, chat: ChatModel, made: Made, recipe: Recipe
) -> Prepared:
    """One sentence for every harmful request, and nothing on the benign side."""
    return made.refusing, PLAIN


def as_words(
    config: DistillConfig, context: Context, chat: ChatModel, made: Made, recipe: Recipe
) -> Prepared:
    """Refusals and own answers, both imitated word by word: plain refusal fine-tuning."""
    answering = [
        replace(lesson, kind="answer", log_probabilities=None, candidates=None)
        for lesson in made.answering
    ]
    return [*made.refusing, *answering], PLAIN


def one_example(
    config: DistillConfig, context: Context, chat: ChatModel, made: Made, recipe: Recipe
) -> Prepared:
    """A single refusal, seen again and again."""
    return made.refusing[:1] * recipe.batch * ONE_SHOT_STEPS, PLAIN


def _direction(form: Any) -> Treat:
    @contextmanager
    def treat(bench: Bench, seed: int) -> Iterator[TreatedChat]:
        from demur.distill.baselines.direction import find_directions

        chat = bench.fresh()
        depth = int(chat.model.config.get_text_config().num_hidden_layers)
        layers = sorted(
            {max(1, min(depth - 1, round(share * depth))) for share in DIRECTION_DEPTHS}
        )
        found = find_directions(
            chat,
            limit(bench.splits.harmful("train"), DIRECTION_PROMPTS, seed),
            limit(bench.splits.twins("train"), DIRECTION_PROMPTS, seed),
            layers=layers,
            form=form,
        )
        with _scaled(
            bench, chat, {one.label: one.changes for one in found}, DIRECTION_SCALES
        ) as made:
            yield made

    return treat


@contextmanager
def _scaled(
    bench: Bench, chat: ChatModel, treatments: Mapping[str, Any], factors: tuple[float, ...]
) -> Iterator[TreatedChat]:
    """Yield the chat changed by the treatment and scale that validation likes best."""
    from demur.models.edits import changes_hash, edited

    context = bench.context
    chosen, _ = scales.choose_scale(
        chat,
        treatments,
        factors,
        choosing_probes(bench.config, bench.splits),
        context.folder.journal,
        context.judge,
        context.narrator,
    )
    changes = treatments.get(chosen.name, {})
    name = content_key(chat.weights, changes_hash(changes), chosen.scale)
    with edited(chat.model, changes, chosen.scale):
        yield TreatedChat(replace(chat, weights=name), chosen.label)


@contextmanager
def _noise(bench: Bench, seed: int) -> Iterator[TreatedChat]:
    """The change of the row `sft`, each matrix in another direction of the same size."""
    from demur.models.changes.noise import noise
    from demur.models.edits import changes_hash, edited

    changes = noise(bench.context.resolved.folder, _learnt(bench, "sft", seed), seed)
    chat = bench.fresh()
    name = content_key(chat.weights, changes_hash(changes), "noise")
    with edited(chat.model, changes):
        yield TreatedChat(replace(chat, weights=name), "the size of sft's change")


@contextmanager
def _arithmetic(bench: Bench, seed: int) -> Iterator[TreatedChat]:
    from demur.models.changes.arithmetic import task_arithmetic
    from demur.models.resolve import resolve

    assert bench.config.donor is not None  # asked for before any row is made
    donor = resolve(bench.config.donor).folder
    changes = task_arithmetic(bench.context.resolved.folder, donor)
    with _scaled(bench, bench.fresh(), {"donor": changes}, DONOR_SCALES) as made:
        yield made


RANDOM_START: dict[str, Any] = {
    "informed": 0,
    "first_layer": 0.0,
    "strengths": (),
    "stopping_points": 1,
}
ROWS: dict[str, Row] = {
    "untouched": Row("untouched", _untouched, False, "baseline"),
    "prompt": Row("safety system prompt", _instructed, False, "baseline"),
    "shown": Row("examples in its context, the self-teacher", _shown, False, "baseline"),
    "one-shot": Row(
        "one safety example, SFT",
        _trained("one-shot", one_example, **RANDOM_START),
        True,
        "baseline",
    ),
    "template": Row(
        "refusals only, SFT", _trained("template", refusals_only, **RANDOM_START), True, "baseline"
    ),
    "words": Row(
        "refusals and own answers, plain SFT",
        _trained("words", as_words, **RANDOM_START),
        True,
        "baseline",
    ),
    "direction": Row("refusal direction in weights", _direction("constant"), True, "baseline"),
    "discriminant": Row(
        "discriminant direction in weights", _direction("discriminant"), True, "baseline"
    ),
    "arithmetic": Row("task arithmetic from a donor", _arithmetic, False, "baseline"),
    "sft": Row("SFT, anchored", _trained("sft", objective="sft"), True, "method"),
    "full": Row(
        "SFT, anchored, all weights", _trained("full", objective="sft", full=True), True, "method"
    ),
    "noise": Row("noise of equal size", _noise, True, "control"),
    "deep": Row(
        "SFT, anchored, deep", _trained("deep", objective="sft", deep=True), True, "method"
    ),
    "varied": Row(
        "SFT, anchored, five sentences",
        _trained("varied", objective="sft", refusal=SENTENCES, pattern="varied"),
        True,
        "method",
    ),
    "cross": Row(
        "cross-model, uniform",
        _trained("cross", cross=True, objective="sft", pattern="uniform"),
        True,
        "method",
    ),
    "cross-varied": Row(
        "cross-model, varied",
        _trained("cross-varied", cross=True, objective="sft", pattern="varied"),
        True,
        "method",
    ),
    "dpo": Row("DPO", _trained("dpo", objective="dpo"), True, "method"),
    "rloo": Row("RLOO on verdicts", _trained("rloo", objective="rloo"), True, "method"),
    "sft-rloo": Row(
        "SFT, anchored, then RLOO on verdicts",
        _trained("sft-rloo", after="sft", objective="rloo", learning_rate=AFTER_RATE),
        True,
        "method",
    ),
    "reward": Row(
        "RLOO on a learned reward",
        _trained("reward", objective="rloo", reward="learned"),
        True,
        "method",
    ),
    "grpo": Row("GRPO on verdicts", _trained("grpo", objective="grpo"), True, "method"),
    "logits": Row(
        "self, logits on own samples", _trained("logits", objective="logits"), True, "method"
    ),
}
NEEDS = {"arithmetic": "donor", "cross": "cross_teacher", "cross-varied": "cross_teacher"}
ASIDE = (*NEEDS, "shown", "grpo", "reward", "sft-rloo")  # need more, or say little beside another
DEFAULT_ROWS = tuple(name for name in ROWS if name not in ASIDE)
