"""The way of every treatment: look, measure, treat, patch, measure again, write.

Each stage keeps what it finds in the run's journal. A run that was killed is continued by the
same command: finished answers, verdicts, training steps and measurements are not made again.
"""

from __future__ import annotations

import gc
import io
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from demur import __version__
from demur.checkpoint import apply_patch, checkpoint_hash, make_patch, open_checkpoint
from demur.checkpoint.patch import PatchSummary, read_summary
from demur.console import Narrator
from demur.interruption import resumable
from demur.judge import OpeningJudge
from demur.models.chat_model import ChatModel
from demur.models.config import check_weights
from demur.models.device import choose_device_and_dtype
from demur.models.resolve import resolve
from demur.prompts.types import SPLITS, Splits
from demur.report.files import write_text
from demur.run.folder import PATCH, RunFolder, default_folder, require_room
from demur.run.journal import content_key
from demur.run.processes import launched, require_sharing
from demur.treating.config import TreatmentConfig
from demur.treating.stages import (
    Context,
    divergence,
    measure,
    reference,
    reported_probes,
    scorecard,
    splits_of,
)
from demur.treating.treated import Outcome, Treated, Treatment

TEMPLATE = "chat_template.jinja"


def run_treatment(
    config: TreatmentConfig,
    treatment: Treatment,
    run: Path | None = None,
    narrator: Narrator | None = None,
) -> Outcome:
    """Put a model through `treatment`.

    Args:
        treatment: changes the model in memory or on paper; everything else is done here.
        run: the run folder; by default `runs/<model>-<hash of the configuration>`.
        narrator: who tells the user; by default on stderr.

    Raises:
        DemurError: something is wrong that the user can put right; nothing is half-written.
        Interrupted: Ctrl-C; the same call continues.
        SystemExit: this process followed another one (`run.processes`), and its part is done.
    """
    with resumable():
        return _run(config, treatment, run, narrator or Narrator())


@contextmanager
def opened(
    config: TreatmentConfig, run: Path | None, narrator: Narrator, *sweep: str
) -> Iterator[tuple[Context, Splits]]:
    """Look at a model and its prompts, and open the run folder.

    Args:
        sweep: what an earlier, killed writing may have left half-written there.

    Raises:
        DemurError: the model or the prompts cannot be used, or the folder is another run's.
    """
    require_sharing(config.verb, config.parallel)
    processes = launched()
    if processes.follows:
        narrator = Narrator(Console(file=io.StringIO()))  # one of them speaks for all
    narrator.heading(f"Looking at {config.model}")
    resolved = resolve(
        config.model,
        revision=config.revision,
        base=config.adapter_base,
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
        **config.identity(),
        "verb": config.verb,
        "demur": __version__,
        "weights": base_hash,
        "prompts": content_key([[p.text for p in splits.of(part)] for part in SPLITS]),
    }
    path = run or default_folder(config.model, identity)
    require_room(path, int(resolved.parameters * 10))
    on_cpu = placement.device == "cpu"
    if processes.follows:
        processes.meet(on_cpu=on_cpu)  # where the leader has opened the folder
    with RunFolder(path, identity, follows=processes.follows) as folder:
        folder.sweep(*sweep)
        if not processes.follows:
            narrator.log_to(folder.path / "run.log")
            processes.meet(on_cpu=on_cpu)
        narrator.say(f"  run folder: {folder.path}")
        yield (
            Context(config, folder, narrator, OpeningJudge(), resolved, placement, base_hash),
            splits,
        )


def _run(
    config: TreatmentConfig, treatment: Treatment, run: Path | None, narrator: Narrator
) -> Outcome:
    from demur.treating.compose import DOCUMENTS, write_documents

    with opened(config, run, narrator, PATCH, "model", *DOCUMENTS) as (context, splits):
        probes = reported_probes(config, splits)
        chat = context.load(context.resolved.folder, context.base_hash)
        if launched().follows:
            treatment(context, chat, splits)  # as far as it is shared
            raise SystemExit(0)
        with context.phase("Measuring it as it is"):
            before = measure(context, chat, probes, "before")
            original = reference(context, chat, before)
        treated = treatment(context, chat, splits)
        summary = _patch(context, chat, treated)
        del chat
        gc.collect()
        with context.phase("Measuring it again, on prompts that played no part"):
            changed = context.load(context.folder.path / "model", summary.result_hash)
            after = measure(context, changed, probes, "after")
            diverged = divergence(context, changed, original)
            del changed
        card = scorecard(config, before, after, diverged, treated.chosen, treated.tried)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return write_documents(context, splits, card, summary, treated, peak)


def _prompts(config: TreatmentConfig, narrator: Narrator) -> Splits:
    splits = splits_of(config)
    narrator.say(
        f"  prompts: {len(splits.train)} to {config.purpose} on, "
        f"{len(splits.validation)} to choose on, {len(splits.test)} to report from; "
        f"{len(splits.removed)} near-duplicates left out"
    )
    return splits


def _patch(context: Context, chat: ChatModel, treated: Treated) -> PatchSummary:
    """Write the patch and the aligned model, unless an earlier try of this run did."""
    path = context.folder.path / PATCH
    base = context.resolved.folder
    with context.phase("Writing the patch and the model"):
        if not path.exists():
            make_patch(
                base,
                treated.changes(),
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
