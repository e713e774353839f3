"""Refusals from a teacher, in place of a configured sentence: asked, filtered, worded, narrated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from demur.distill.lessons import Lesson, refusing_lessons
from demur.distill.teachers.base import Teacher
from demur.distill.teachers.choose import FoundTeacher
from demur.distill.teachers.filtering import (
    Criterion,
    Filtered,
    UnfitTeacher,
    clean_refusals,
    require_lessons,
)
from demur.distill.teachers.instructed import PILOT, Instructed, instructions, shots, too_weak
from demur.distill.teachers.lessons import taught_lessons
from demur.distill.teachers.other import Other, compare_vocabularies
from demur.distill.teachers.pattern import (
    Pattern,
    dominant_pattern,
    general_texts,
    varied_texts,
)
from demur.distill.teachers.recorded import recorded_lessons_source
from demur.distill.teachers.remote import Remote
from demur.distilling.config import DistillConfig
from demur.distilling.seen import require_seen
from demur.errors import RunError
from demur.figures import counts, grouped, rate_text
from demur.judge.embedded import EmbeddedJudge
from demur.judge.names import Means
from demur.models.asking import Asker
from demur.models.budget import spent_from
from demur.models.chat_model import ChatModel
from demur.models.resolve import ResolvedModel
from demur.prompts.split import limit
from demur.prompts.types import Prompt, Splits
from demur.run.journal import content_key
from demur.stats import Rate
from demur.treating.stages import Context

BENIGN_ASKED = 32  # twins, and as many ordinary instructions
BY_TOKENS = "Its logits are distilled, token by token."
BY_RANKS = (
    "Its text is distilled, and its logits by rank: how sure it is at each place, not of which "
    "words (universal logit distillation)."
)

Picked = tuple[list[Prompt], list[Prompt], list[Prompt]]
Pick = Callable[[Splits], Picked]


@dataclass(frozen=True)
class Taught:
    """What was learnt from a teacher.

    Attributes:
        lessons: in refusing.
        picked: the prompts that were picked: harmful, twins and ordinary.
        teacher: another model whose weights are in memory, for objectives that ask its logits.
    """

    lessons: list[Lesson]
    picked: Picked
    teacher: Other | None = None


@dataclass(frozen=True)
class Teaching:
    """One run's learning from a teacher.

    Attributes:
        pick: takes the harmful prompts, twins and ordinary ones that lessons are made of.
        means: how endpoints are asked, and what may be spent.
        phases: what the phases' names end in, where a run learns from teachers more than once.
    """

    config: DistillConfig
    context: Context
    chat: ChatModel
    found: FoundTeacher
    means: Means
    pick: Pick
    phases: str = ""

    def taught(self, splits: Splits) -> Taught:
        """Return the lessons in refusing.

        Raises:
            TrainingError: the teacher cannot be learnt from; the figures are told.
            DemurError: as the kind of teacher has it.
        """
        if self.found.path is not None:
            return self._recorded(splits, self.found.path)
        picked = self.pick(splits)
        harmful, twins, ordinary = picked
        seed = self.config.seed
        benign = [*limit(twins, BENIGN_ASKED, seed), *limit(ordinary, BENIGN_ASKED, seed)]
        if self.found.kind == "self":
            teacher: Teacher = self._student(harmful, ordinary)
            pilot = limit(harmful, PILOT, seed)
            clean = self._filtered(teacher, pilot).clean
            if too_weak(clean):
                return self._seeded(clean, picked)
        else:
            teacher = self._teacher()
        asked = [*harmful, *benign]
        texts = self._asked(teacher, asked)
        filtered = clean_refusals(asked, texts, self._criterion)
        pattern = self._kept(teacher.name, asked, filtered)
        answered = [prompt for prompt in harmful if prompt.key in texts]
        return Taught(
            self._lessons(teacher.name, answered, answered, filtered, pattern),
            (answered, twins, ordinary),
            teacher if isinstance(teacher, Other) else None,
        )

    def _recorded(self, splits: Splits, path: Path) -> Taught:
        """Learn from a file, which brings harmful prompts of its own, and no benign ones.

        Half of the lessons are of the run's own harmful prompts, worded as the teacher does. With
        the file's alone, all that is refused would be of one source and all that is answered of
        another, and what was learnt would be to tell the sources apart.
        """
        source = recorded_lessons_source(path, splits)
        self._say(f"{grouped(len(source.prompts))} recorded answers in {source.name}")
        for why, count in source.removed.items():
            self._say(f"  left out: {grouped(count)} {why}")
        texts = source.answers(source.prompts, lambda count: None)
        filtered = clean_refusals(source.prompts, texts, self._criterion)
        pattern = self._kept(source.name, source.prompts, filtered)
        kept = [prompt for prompt in source.prompts if prompt.key in filtered.kept]
        benign = [prompt for prompt in splits.train if prompt.kind != "harmful"]
        theirs = self.pick(replace(splits, train=(*kept, *benign)))[0]
        own, twins, ordinary = self.pick(splits)
        count, seed = self.config.train_pairs, self.config.seed
        brought = limit(theirs, count // 2, seed)
        harmful = [*brought, *limit(own, count - len(brought), seed)]
        self._say(
            f"{grouped(len(brought))} harmful requests of the file, and "
            f"{grouped(len(harmful) - len(brought))} of the run's own, which have twins"
        )
        lessons = self._lessons(source.name, harmful, kept, filtered, pattern)
        return Taught(lessons, (harmful, twins, ordinary))

    def _student(self, harmful: Sequence[Prompt], ordinary: Sequence[Prompt]) -> Instructed:
        context = self.context
        shown = shots(
            self.chat,
            harmful,
            ordinary,
            self.config.refusal,
            context.judge,
            context.folder.journal,
        )
        contexts = (*instructions(), *shown)
        return Instructed(self.chat, context.folder.journal, self._criterion, contexts)

    def _teacher(self) -> Teacher:
        journal = self.context.folder.journal
        if self.found.endpoint is not None:
            means = self.means
            means.budget.spent = spent_from(journal.fact("spent"))
            return Remote(
                Asker(
                    self.found.endpoint,
                    budget=means.budget,
                    patience=means.patience,
                    at_once=means.at_once,
                ),
                journal,
            )
        assert self.found.resolved is not None
        other = self._load(self.found.resolved)
        match = compare_vocabularies(self.chat, other)
        done = "Its text is distilled."
        if self.config.objective == "logits":
            done = BY_TOKENS if match.same else BY_RANKS
        self._say(f"{match.sentence} {done}")
        return Other(other, journal, _short_name(self.found.resolved))

    def _load(self, resolved: ResolvedModel) -> ChatModel:
        from demur.checkpoint import checkpoint_hash, open_checkpoint
        from demur.models.chat_model import load_chat_model
        from demur.models.config import check_weights

        check_weights(resolved.folder)
        return load_chat_model(
            resolved.folder,
            self.context.placement,
            weights=checkpoint_hash(open_checkpoint(resolved.folder)),
            name=_short_name(resolved),
            trust_remote_code=self.config.trust_remote_code,
        )

    @property
    def _criterion(self) -> Criterion:
        judges = (self.context.judge, EmbeddedJudge())
        return Criterion(judges, self.context.folder.journal, self._length)

    def _length(self, text: str) -> int:
        return len(self.chat.tokenizer(text, add_special_tokens=False).input_ids)

    def _asked(self, teacher: Teacher, prompts: Sequence[Prompt]) -> Mapping[str, str]:
        title = f"answers of {teacher.name}"
        journal = self.context.folder.journal
        try:
            with self.context.narrator.progress(title, len(prompts)) as advance:
                if not isinstance(teacher, Instructed):
                    return teacher.answers(prompts, advance)
                sampled = teacher.sampled(prompts, advance)
            for name, count in sampled.contexts.items():
                self._say(f"  clean refusals in the context '{name}': {grouped(count)}")
            return sampled.texts
        finally:
            if self.found.endpoint is not None:
                journal.keep_fact("spent", asdict(self.means.budget.spent))
                self._say(f"endpoint so far: {self.means.budget.sentence()}")

    def _filtered(self, teacher: Teacher, prompts: Sequence[Prompt]) -> Filtered:
        return clean_refusals(prompts, self._asked(teacher, prompts), self._criterion)

    def _seeded(self, clean: Rate, picked: Picked) -> Taught:
        """A student too weak to teach itself learns the configured sentences."""
        self._say(
            f"too weak to teach itself: clean refusals to {counts(clean)} harmful requests, "
            f"{rate_text(clean)}, over all contexts; it learns the sentence of --refusal instead"
        )
        self._settle({"teacher": "", "weak": [clean.count, clean.n]}, self.config.refusal)
        return Taught(refusing_lessons(self.chat, picked[0], self.config.refusal), picked)

    def _kept(self, name: str, prompts: Sequence[Prompt], filtered: Filtered) -> Pattern:
        """Say what was kept and what was not, and return the dominant pattern of what was.

        Raises:
            TrainingError: the teacher cannot be learnt from.
        """
        clean, benign = filtered.clean, filtered.benign
        self._say(f"clean refusals to {counts(clean)} harmful requests, {rate_text(clean)}")
        why = [f"{grouped(count)} {flaw}" for flaw, count in filtered.left_out.items()]
        if filtered.unanswered:
            reason = "content filter" if self.found.endpoint else "too long for its context"
            why.append(f"{grouped(filtered.unanswered)} without an answer ({reason})")
        if why:
            self._say(f"  left out: {', '.join(why)}")
        if benign.n:
            self._say(
                f"  false refusals dropped: {counts(benign)} benign requests, {rate_text(benign)}"
            )
        require_lessons(name, filtered)
        pattern = dominant_pattern(prompts, filtered.kept, self.context.judge)
        said = f'"{pattern.sentence}"' if pattern.sentence else "(with its requests' own words)"
        parts = f" ({', '.join(pattern.parts)})" if pattern.parts else ""
        self._say(
            f"dominant pattern: {said}{parts}, {rate_text(pattern.share)} of "
            f"{grouped(pattern.share.n)} refusals, in {grouped(pattern.clusters)} clusters"
        )
        return pattern

    def _lessons(
        self,
        name: str,
        prompts: Sequence[Prompt],
        kept_of: Sequence[Prompt],
        filtered: Filtered,
        pattern: Pattern,
    ) -> list[Lesson]:
        """Return one lesson a prompt, in one sentence for all or in the teacher's own.

        A harmful request that the teacher did not cleanly refuse is refused all the same: of one
        of its refusals that would answer any request, by the prompt's hash, or uniformly.

        Args:
            kept_of: the prompts whose refusals may be used.
        """
        if self.config.pattern == "uniform":
            if not pattern.sentence:
                raise UnfitTeacher(
                    f"No refusal of the dominant pattern of {name} can stand without its "
                    "request's words.",
                    "Give --pattern varied, or leave --teacher out and give --refusal.",
                )
            measured = self.config.answer_tokens
            require_seen(name, pattern.sentence, self.chat, self.context.judge, measured)
            texts = {prompt.key: pattern.sentence for prompt in prompts}
        else:
            own = varied_texts(kept_of, filtered.kept)
            general = general_texts(kept_of, own) or list(self.config.refusal)
            texts = {
                prompt.key: own.get(prompt.key) or general[int(prompt.key, 16) % len(general)]
                for prompt in prompts
            }
        said = {
            "teacher": name,
            "clean": [filtered.clean.count, filtered.clean.n],
            "pattern": self.config.pattern,
            "sentence": pattern.sentence,
            "share": [pattern.share.count, pattern.share.n],
        }
        self._settle(said, [texts[prompt.key] for prompt in prompts])
        return taught_lessons(self.chat, prompts, texts)

    def _settle(self, said: Mapping[str, object], texts: Sequence[str]) -> None:
        """Keep what was learnt from; a run that goes on must go on with the same.

        Raises:
            RunError: an earlier try of this run learnt other refusals.
        """
        journal = self.context.folder.journal
        fact = {**said, "texts": content_key(list(texts))}
        known = journal.fact(f"teaching{self.phases}")
        if known is not None and known["texts"] != fact["texts"]:
            raise RunError(
                "The teacher's refusals are not those that this run began with.",
                "Give another run folder with --run, or the teacher as it was.",
            )
        journal.keep_fact(f"teaching{self.phases}", fact)

    def _say(self, text: str) -> None:
        self.context.narrator.say(f"  {text}")


def _short_name(resolved: ResolvedModel) -> str:
    """Return a model's name without a folder of this machine."""
    if resolved.kind in ("alias", "hub"):
        return resolved.name
    place = Path(resolved.name)
    return place.parent.name if place.name == "model" else place.name
