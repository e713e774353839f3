"""`demur align`: look at a model, measure it, make lessons, train, choose, measure again, write.

    demur align smollm2-135m          # or demur.align("smollm2-135m") in Python

Each stage keeps what it finds in the run's journal. A run that was killed is continued by the
same command: finished answers, verdicts, training steps and measurements are not made again.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from demur.checkpoint import apply_patch, checkpoint_hash, make_patch, open_checkpoint
from demur.checkpoint.patch import PatchSummary, read_summary
from demur.config import AlignConfig
from demur.console import Narrator
from demur.distill.choose import Candidate
from demur.errors import Interrupted
from demur.judge import Judge, OpeningJudge
from demur.measure.protocol import (
    Judged,
    Probe,
    by_hazard,
    compare,
    examples,
    measure_probe,
    standard_probes,
)
from demur.measure.scorecard import CurvePoint, Scorecard, Utility
from demur.models.chat_model import ChatModel, load_chat_model
from demur.models.config import check_weights
from demur.models.device import Placement, choose_device_and_dtype
from demur.models.generation import Decoding
from demur.models.resolve import ResolvedModel, resolve
from demur.prompts.choose import gather
from demur.prompts.split import limit
from demur.prompts.types import Prompt, Splits
from demur.run.folder import RunFolder, default_folder, require_room
from demur.run.journal import content_key

PATCH = "patch.safetensors"
DIVERGENCE_PROMPTS = 60


@dataclass(frozen=True)
class Aligned:
    """What a run came to.

    Attributes:
        run: the run folder.
        model: folder of the aligned model, loadable with transformers alone.
        patch: the patch file.
        report: the HTML report.
        headline: one sentence that says what changed.
        scorecard: all figures.
    """

    run: Path
    model: Path
    patch: Path
    report: Path
    headline: str
    scorecard: Scorecard


@dataclass
class Context:
    """What the stages of one run share."""

    config: AlignConfig
    folder: RunFolder
    narrator: Narrator
    judge: Judge
    resolved: ResolvedModel
    placement: Placement
    base_hash: str
    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Say what begins, and keep how long it took; time before a kill is added."""
        self.narrator.heading(title)
        begun = time.monotonic()
        earlier = float(self.folder.journal.fact(f"seconds/{title}") or 0.0)
        try:
            yield
        finally:
            self.phases[title] = earlier + time.monotonic() - begun
            self.folder.journal.keep_fact(f"seconds/{title}", self.phases[title])

    def load(self, folder: Path, weights: str) -> ChatModel:
        """Load the model in `folder` as this run's configuration has it."""
        return load_chat_model(
            folder,
            self.placement,
            weights=weights,
            name=self.config.model,
            system=self.config.system,
            thinking=self.config.thinking,
            chat_template=self.config.chat_template,
            trust_remote_code=self.config.trust_remote_code,
        )


@dataclass(frozen=True)
class Side:
    """One model's answers to the test probes, and its utility figures."""

    judged: tuple[Judged, ...]
    losses: list[float]


def align(
    model: str | AlignConfig,
    *,
    run: Path | None = None,
    narrator: Narrator | None = None,
    **choices: Any,
) -> Aligned:
    """Give a model its refusals back.

    Args:
        model: the model's name, or a whole configuration.
        run: the run folder; by default `runs/<model>-<hash of the configuration>`.
        narrator: who tells the user; by default on stderr.
        choices: any field of `AlignConfig`.

    Raises:
        DemurError: something is wrong that the user can put right; nothing is half-written.
        Interrupted: Ctrl-C; the same call continues.
    """
    config = replace(model, **choices) if isinstance(model, AlignConfig) else None
    config = config or AlignConfig(model, **choices)  # type: ignore[arg-type]
    narrator = narrator or Narrator()
    try:
        return _align(config, run, narrator)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            "Interrupted; everything finished so far is kept.",
            "Run the same command again to continue.",
        ) from interrupt


def _align(config: AlignConfig, run: Path | None, narrator: Narrator) -> Aligned:
    from demur.compose import write_documents

    narrator.heading(f"Looking at {config.model}")
    resolved = resolve(
        config.model,
        revision=config.revision,
        base=config.base,
        trust_remote_code=config.trust_remote_code,
        say=lambda text: narrator.say(f"  {text}"),
    )
    placement = choose_device_and_dtype(config.device, config.dtype)
    narrator.say(f"  {resolved.origin}")
    narrator.say(f"  {resolved.architecture}, {resolved.parameters / 1e6:.1f} M parameters")
    narrator.say(f"  {placement.sentence}")
    splits = _prompts(config, narrator)
    path = run or default_folder(config.model, config.resolved())
    require_room(path, int(resolved.parameters * 10))
    with RunFolder(path, config.resolved()) as folder:
        narrator.log_to(folder.path / "run.log")
        narrator.say(f"  run folder: {folder.path}")
        base_hash = _base_hash(folder, resolved)
        context = Context(config, folder, narrator, OpeningJudge(), resolved, placement, base_hash)
        probes = _test_probes(config, splits)
        chat = context.load(resolved.folder, base_hash)
        with context.phase("Measuring it as it is"):
            before = _measure(context, chat, probes, "before")
            reference = _reference(context, chat, before)
        chosen, tried = _treat(context, chat, splits)
        summary = _patch(context, chat, chosen)
        del chat
        gc.collect()
        with context.phase("Measuring it again, on prompts that played no part"):
            treated = context.load(folder.path / "model", summary.result_hash)
            after = _measure(context, treated, probes, "after")
            divergence = _divergence(context, treated, reference)
            del treated
        scorecard = _scorecard(config, before, after, divergence, chosen, tried)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return write_documents(context, splits, scorecard, summary, chosen, tried, peak)


def _prompts(config: AlignConfig, narrator: Narrator) -> Splits:
    splits = gather(
        pairs=config.pairs,
        harmful=config.harmful,
        harmful_column=config.harmful_column,
        benign=config.benign,
        benign_column=config.benign_column,
        ordinary=config.ordinary,
        ordinary_column=config.ordinary_column,
        seed=config.seed,
    )
    narrator.say(
        f"  prompts: {len(splits.train)} to train on, {len(splits.validation)} to choose on, "
        f"{len(splits.test)} to report from; {len(splits.removed)} near-duplicates left out"
    )
    return splits


def _base_hash(folder: RunFolder, resolved: ResolvedModel) -> str:
    """Return the checkpoint's content hash, checking the weights the first time."""
    known = folder.journal.fact("base")
    checkpoint = open_checkpoint(resolved.folder)
    if known is None:
        check_weights(resolved.folder)
        known = checkpoint_hash(checkpoint)
        folder.journal.keep_fact("base", known)
    return str(known)


def _test_probes(config: AlignConfig, splits: Splits) -> tuple[Probe, ...]:
    return standard_probes(
        limit(splits.harmful("test"), config.test_pairs, config.seed),
        limit(splits.twins("test"), config.test_pairs, config.seed),
        limit(splits.ordinary("test"), config.test_ordinary, config.seed),
        split="test",
        tokens=config.answer_tokens,
        prefilled=config.prefill,
    )


def _measure(context: Context, chat: ChatModel, probes: tuple[Probe, ...], label: str) -> Side:
    from demur.measure.utility import load_text, negative_log_likelihoods

    journal = context.folder.journal
    judged = tuple(
        measure_probe(chat, probe, journal, context.judge, context.narrator, label)
        for probe in probes
    )
    text = load_text(context.config.text)
    key = content_key("losses", chat.identity, text.content, context.config.text_tokens)
    losses = journal.fact(key)
    if losses is None:
        windows = -(-context.config.text_tokens // 512)
        with context.narrator.progress(f"{label}, perplexity", windows) as advance:
            losses = negative_log_likelihoods(
                chat, text, tokens=context.config.text_tokens, advance=advance
            )
        journal.keep_fact(key, losses)
    for one in judged:
        context.narrator.say(
            f"  {one.probe.title}: {sum(one.refused)} of {len(one.refused)}"
            + (f", {one.undecided} undecided" if one.undecided else "")
        )
    return Side(judged, losses)


def _reference(context: Context, chat: ChatModel, before: Side) -> Any:
    """Return the original's distribution on ordinary answers, for the divergence later."""
    from demur.measure.utility import make_reference

    ordinary = [one for one in before.judged if one.probe.key == "ordinary"]
    answers = ordinary[0].answers[:DIVERGENCE_PROMPTS] if ordinary else ()
    return make_reference(chat, answers)


def _divergence(context: Context, chat: ChatModel, reference: Any) -> list[float]:
    from demur.measure.utility import divergence

    key = content_key("divergence", context.base_hash, chat.identity, DIVERGENCE_PROMPTS)
    known = context.folder.journal.fact(key)
    if known is None:
        known = divergence(chat, reference)
        context.folder.journal.keep_fact(key, known)
    return [float(value) for value in known]


def lessons_of(context: Context, chat: ChatModel, splits: Splits) -> list[Any]:
    """Make the lessons of a run: refusals for harmful prompts, own answers for benign ones."""
    from demur.distill.lessons import own_answers, refusing_lessons, without_refusals

    config = context.config

    def short(prompts: tuple[Prompt, ...], count: int) -> list[Prompt]:
        fitting = tuple(p for p in prompts if len(chat.encode(p.text)) <= config.longest)
        return list(limit(fitting, count, config.seed))

    harmful = short(splits.harmful("train"), config.train_pairs)
    twins = short(splits.twins("train"), config.train_pairs)
    ordinary = short(splits.ordinary("train"), config.train_ordinary)
    benign = [*twins, *ordinary]
    refusing = refusing_lessons(chat, harmful, config.refusal)
    with context.narrator.progress("the model's own answers", len(benign)) as advance:
        keeping = own_answers(chat, benign, context.folder.journal, config.own_tokens, advance)
    kept = without_refusals(chat, benign, keeping, context.judge)
    made = {
        "harmful": len(harmful),
        "twin": len(twins),
        "ordinary": len(ordinary),
        "refuse": len(refusing),
        "keep": len(kept),
        "left_out": len(keeping) - len(kept),
    }
    context.folder.journal.keep_fact("lessons", made)
    context.narrator.say(
        f"  {len(refusing)} lessons in refusing, {len(kept)} in answering as before; "
        f"{len(keeping) - len(kept)} left out, where the model itself refused or said nothing"
    )
    return [*refusing, *kept]


def _treat(context: Context, chat: ChatModel, splits: Splits) -> tuple[Candidate, list[Candidate]]:
    """Make lessons, train, choose; leaves the chosen delta in `chat.model`."""
    from demur.distill.choose import choose, load_adapter, set_strength
    from demur.distill.train import Recipe, train

    config, journal = context.config, context.folder.journal
    recipe = Recipe(
        config.rank,
        config.first_layer,
        config.last_layer,
        config.learning_rate,
        config.batch,
        config.micro_batch,
        config.epochs,
        config.keep_weight,
        config.checkpoints,
        config.seed,
    )
    with context.phase("Making lessons"):
        lessons = lessons_of(context, chat, splits)
    with context.phase("Training"):
        wrapped, checkpoints = train(
            chat, lessons, recipe, context.folder.path / "training", context.narrator
        )
    chat.model = wrapped
    with context.phase("Choosing the stopping point and the strength on validation prompts"):
        probes = standard_probes(
            limit(splits.harmful("validation"), config.validation_pairs, config.seed),
            limit(splits.twins("validation"), config.validation_pairs, config.seed),
            limit(splits.ordinary("validation"), config.validation_pairs, config.seed),
            split="validation",
            tokens=8,
            prefilled=0,
        )
        named = {probe.key: replace(probe, decoding=Decoding(8)) for probe in probes}
        chosen, tried = choose(
            chat,
            checkpoints[-2:],
            config.strengths,
            named,
            journal,
            context.judge,
            context.narrator,
        )
        for candidate in tried:
            context.narrator.say(
                f"  {candidate.label}: harmful {candidate.harmful.value:.0%}, twins "
                f"{candidate.twins.value:.0%}, ordinary {candidate.ordinary.value:.0%}"
                + ("  <- chosen" if candidate is chosen else "")
            )
    load_adapter(wrapped, chosen.checkpoint)
    set_strength(wrapped, chosen.strength)
    return chosen, tried


def _patch(context: Context, chat: ChatModel, chosen: Candidate) -> PatchSummary:
    """Write the patch and the aligned model, unless an earlier try of this run did."""
    from demur.distill.choose import low_rank_changes

    path = context.folder.path / PATCH
    base = context.resolved.folder
    with context.phase("Writing the patch and the model"):
        if not path.exists():
            make_patch(
                base,
                low_rank_changes(chat.model, base, chosen.strength),
                path,
                base_name=context.config.model,
                recipe=context.config.resolved(),
                results={},
            )
        summary = read_summary(path)
        if not (context.folder.path / "model").exists():
            applied = apply_patch(base, path, context.folder.path / "model")
            context.narrator.say(f"  {applied.sentence}")
        context.narrator.say(
            f"  {PATCH}: {summary.bytes / 1e6:.1f} MB, {summary.tensors} tensors changed"
        )
    return summary


def _scorecard(
    config: AlignConfig,
    before: Side,
    after: Side,
    divergence: list[float],
    chosen: Candidate,
    tried: list[Candidate],
) -> Scorecard:
    from demur.measure.utility import load_text, perplexity, perplexity_ratio
    from demur.stats import mean

    pairs = {
        first.probe.key: (first, second)
        for first, second in zip(before.judged, after.judged, strict=True)
    }
    utility = Utility(
        load_text(config.text).name,
        perplexity(before.losses),
        perplexity(after.losses),
        perplexity_ratio(before.losses, after.losses),
        mean(divergence),
    )
    return Scorecard(
        tuple(compare(*sides) for sides in pairs.values()),
        utility,
        by_hazard(pairs["harmful"], pairs["twins"]) if "twins" in pairs else (),
        tuple(CurvePoint(c.label, c.harmful, c.benign, float("nan"), c is chosen) for c in tried),
        tuple(
            example
            for key, count in (("ordinary", 4), ("twins", 6), ("harmful", 6))
            if key in pairs
            for example in examples(*pairs[key], count)
        ),
    )


def platform_line() -> str:
    """Return the machine in one line, without its name."""
    import platform

    return f"{platform.system()} {platform.machine()}, Python {sys.version.split()[0]}"
