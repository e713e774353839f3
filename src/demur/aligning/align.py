"""`demur align`: look at a model, measure it, make lessons, train, choose, measure again, write.

    demur align smollm2-135m          # or demur.align("smollm2-135m") in Python

Each stage keeps what it finds in the run's journal. A run that was killed is continued by the
same command: finished answers, verdicts, training steps and measurements are not made again.
"""

from __future__ import annotations

import gc
import resource
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demur import __version__
from demur.aligning.config import AlignConfig
from demur.aligning.stages import (
    Context,
    divergence,
    measure,
    reference,
    reported_probes,
    scorecard,
)
from demur.checkpoint import apply_patch, checkpoint_hash, make_patch, open_checkpoint
from demur.checkpoint.patch import PatchSummary, read_summary
from demur.console import Narrator
from demur.distill.choose import Candidate
from demur.errors import Interrupted
from demur.judge import OpeningJudge
from demur.measure.protocol import standard_probes
from demur.measure.scorecard import Scorecard
from demur.models.chat_model import ChatModel
from demur.models.config import check_weights
from demur.models.device import choose_device_and_dtype
from demur.models.resolve import resolve
from demur.prompts.choose import gather
from demur.prompts.split import evenly, limit
from demur.prompts.types import SPLITS, Prompt, Splits
from demur.report.files import write_text
from demur.run.folder import RunFolder, default_folder, require_room
from demur.run.journal import content_key

PATCH = "patch.safetensors"
TEMPLATE = "chat_template.jinja"
# Candidates differ in whether an answer begins with the refusal, which is seen in so many tokens.
CHOOSING_TOKENS = 8


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
    from demur.aligning.compose import DOCUMENTS, write_documents

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
    check_weights(resolved.folder)
    base_hash = checkpoint_hash(open_checkpoint(resolved.folder))
    identity = {
        **config.resolved(),
        "demur": __version__,
        "weights": base_hash,
        "prompts": content_key([[p.text for p in splits.of(part)] for part in SPLITS]),
    }
    path = run or default_folder(config.model, identity)
    require_room(path, int(resolved.parameters * 10))
    with RunFolder(path, identity) as folder:
        folder.sweep(PATCH, "model", *DOCUMENTS)
        narrator.log_to(folder.path / "run.log")
        narrator.say(f"  run folder: {folder.path}")
        context = Context(config, folder, narrator, OpeningJudge(), resolved, placement, base_hash)
        probes = reported_probes(config, splits)
        chat = context.load(resolved.folder, base_hash)
        with context.phase("Measuring it as it is"):
            before = measure(context, chat, probes, "before")
            original = reference(context, chat, before)
        chosen, tried = _treat(context, chat, splits)
        summary = _patch(context, chat, chosen)
        del chat
        gc.collect()
        with context.phase("Measuring it again, on prompts that played no part"):
            treated = context.load(folder.path / "model", summary.result_hash)
            after = measure(context, treated, probes, "after")
            diverged = divergence(context, treated, original)
            del treated
        card = scorecard(config, before, after, diverged, chosen, tried)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return write_documents(context, splits, card, summary, chosen, tried, peak)


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


def _brief_enough(
    config: AlignConfig, chat: ChatModel, splits: Splits
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


def lessons_of(context: Context, chat: ChatModel, splits: Splits) -> list[Any]:
    """Make the lessons of a run: refusals for harmful prompts, own answers for benign ones."""
    from demur.distill.lessons import (
        HELPFUL,
        mostly_openings,
        own_answers,
        refusing_lessons,
        sorted_by_verdict,
        text_lessons,
    )

    config = context.config

    harmful, twins, ordinary = _brief_enough(config, chat, splits)
    benign = [*twins, *ordinary]
    refusing = refusing_lessons(chat, harmful, config.refusal)
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
    made = {
        "harmful": len(harmful),
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
    return [*mostly_openings([*refusing, *helping, *kept]), *texts]


def _treat(context: Context, chat: ChatModel, splits: Splits) -> tuple[Candidate, list[Candidate]]:
    """Make lessons, train, choose; leaves the chosen delta in `chat.model`."""
    from demur.distill.choose import choose, load_adapter, require_on_disk, set_strength
    from demur.distill.train import Recipe, target_modules, train

    config, journal = context.config, context.folder.journal
    recipe = Recipe(
        rank=config.rank,
        informed=config.informed,
        first_layer=config.first_layer,
        last_layer=config.last_layer,
        learning_rate=config.learning_rate,
        batch=config.batch,
        micro_batch=config.micro_batch,
        epochs=config.epochs,
        keep_weight=config.keep_weight,
        decision_weight=config.decision_weight,
        checkpoints=config.checkpoints,
        seed=config.seed,
    )
    require_on_disk(chat.model, context.resolved.folder, target_modules(chat.model))
    with context.phase("Making lessons"):
        lessons = lessons_of(context, chat, splits)
    with context.phase("Training"):
        wrapped, checkpoints = train(
            chat, lessons, recipe, context.folder.path / "training", context.narrator
        )
    chat.model = wrapped
    with context.phase("Choosing the stopping point and the strength on validation prompts"):
        probes = standard_probes(
            evenly(splits.harmful("validation"), config.validation_pairs, config.seed),
            evenly(splits.twins("validation"), config.validation_pairs, config.seed),
            evenly(splits.ordinary("validation"), config.validation_pairs, config.seed),
            split="validation",
            tokens=min(config.answer_tokens, CHOOSING_TOKENS),
            prefilled=0,
        )
        named = {probe.key: probe for probe in probes}
        chosen, tried = choose(
            chat,
            checkpoints[-config.stopping_points :],
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
        if context.config.chat_template:
            write_text(context.folder.path / "model" / TEMPLATE, chat.tokenizer.chat_template)
        context.narrator.say(
            f"  {PATCH}: {summary.bytes / 1e6:.1f} MB, {summary.tensors} tensors changed"
        )
    return summary
