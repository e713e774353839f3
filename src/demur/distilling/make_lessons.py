"""Which lessons a run trains on: refusals for harmful prompts, own answers for benign ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from demur.distill.lessons import (
    HELPFUL,
    Lesson,
    own_answers,
    refusing_lessons,
    sorted_by_verdict,
    text_lessons,
)
from demur.distill.teachers.choose import FoundTeacher
from demur.distill.teachers.other import Other
from demur.distilling.config import DistillConfig
from demur.distilling.teaching import Teaching
from demur.judge.names import Means
from demur.models.chat_model import ChatModel
from demur.prompts.split import limit
from demur.prompts.types import Prompt, Splits
from demur.treating.stages import Context


@dataclass(frozen=True)
class Made:
    """The lessons of a run, whole, before an objective takes what it needs of them.

    Attributes:
        harmful: the harmful requests, in the order of the first of `refusing`.
        refusing: `refuse` lessons.
        answering: `answer` and `keep` lessons: benign requests with the student's own answers.
        texts: what the student writes outside a chat.
        benign: the benign requests that the student answers itself.
        teacher: the other model that the refusals are of, where its weights are at hand.
        going_on: by the prompts of `refuse` lessons that begin within an answer, how the student
            would go on complying; token ids.
    """

    harmful: list[Prompt]
    refusing: list[Lesson]
    answering: list[Lesson]
    texts: list[Lesson]
    benign: list[Prompt]
    teacher: Other | None = None
    going_on: Mapping[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)


def _brief_enough(
    config: DistillConfig, chat: ChatModel, splits: Splits
) -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
    """Return the harmful prompts, twins and ordinary ones that lessons are made of.

    A token costs the same in each, so that more is learnt in the same time from brief ones; the
    two sides of a pair are taken or left together.
    """
    length: dict[str, int] = {}
    for prompt in splits.train:
        unit = prompt.pair or prompt.key
        length[unit] = max(length.get(unit, 0), len(chat.tokenizer(prompt.text).input_ids))

    def some(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
        by_length = sorted(length[p.pair or p.key] for p in prompts)
        most = max([config.longest, *by_length[:count][-1:]])
        fit = [p for p in prompts if length[p.pair or p.key] <= most]
        return list(limit(fit, count, config.seed))

    return (
        some(splits.harmful("train"), config.train_pairs),
        some(splits.twins("train"), config.train_pairs),
        some(splits.ordinary("train"), config.train_ordinary),
    )


def lessons_of(
    config: DistillConfig,
    context: Context,
    chat: ChatModel,
    splits: Splits,
    found: FoundTeacher | None = None,
    means: Means | None = None,
    phases: str = "",
) -> Made:
    """Make the lessons of a run: refusals for harmful prompts, own answers for benign ones.

    Args:
        found: the teacher of refusals; by default the configured sentence is learnt.
        means: how a teacher behind an endpoint is asked.
        phases: as in `Teaching`.
    """
    teacher = None
    if found is None:
        harmful, twins, ordinary = _brief_enough(config, chat, splits)
        refusing = refusing_lessons(chat, harmful, config.refusal)
    else:
        pick = partial(_brief_enough, config, chat)
        teaching = Teaching(config, context, chat, found, means or Means(), pick, phases)
        taught = teaching.taught(splits)
        refusing, (harmful, twins, ordinary) = taught.lessons, taught.picked
        teacher = taught.teacher if config.objective == "logits" else None
        del taught  # and with it a teacher that has said all that is learnt of it
    benign = [*twins, *ordinary]
    with context.narrator.progress("the model's own answers", len(benign)) as advance:
        keeping = own_answers(
            chat, benign, context.folder.journal, config.own_tokens, advance, judge=context.judge
        )
    kept, refused = sorted_by_verdict(chat, benign, keeping, context.judge)
    with context.narrator.progress("answers where it refused", len(refused)) as advance:
        helping = own_answers(
            chat, refused, context.folder.journal, config.own_tokens, advance, opening=HELPFUL
        )
    helping, _ = sorted_by_verdict(chat, refused, helping, context.judge)
    own = set(splits.harmful("train"))  # a recorded teacher has brought others
    made = {
        "harmful": sum(prompt in own for prompt in harmful),
        "twin": len(twins),
        "ordinary": len(ordinary),
        "refuse": len(refusing),
        "keep": len(kept) + len(helping),
        "left_out": len(benign) - len(kept) - len(helping),
    }
    context.folder.journal.keep_fact("lessons", made)
    context.narrator.say(
        f"  {len(refusing)} lessons in refusing, {len(kept)} in answering as before, "
        f"{len(helping)} in answering benign requests that it refused; "
        f"{made['left_out']} left out, where it said nothing fit to be kept"
    )
    texts = text_lessons(chat, config.train_texts, context.folder.journal, config.seed)
    answered = {lesson.request for lesson in kept}
    answers = [prompt for prompt in benign if prompt.text in answered]
    return Made(harmful, refusing, [*helping, *kept], texts, answers, teacher)
