"""`demur trace MODEL [--donor DONOR]`: choose refusals, restore them piece by piece, write.

    demur trace runs/demo/model
    demur trace smollm2-135m --donor runs/demo/model
    demur.trace("smollm2-135m", donor="runs/demo/model")      # in Python

Without a donor the model itself is traced, and must refuse. With one the donor is traced, and then
each of its modules is tried in the model, and the model's in it. Batches of pairs and single
modules are kept in the run's journal, so that a trace that was killed goes on when the same command
is given again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demur import __version__
from demur.checkpoint import open_checkpoint
from demur.console import Narrator
from demur.errors import ModelError
from demur.graft.openings import openings_for
from demur.graft.tracing.choose import Chosen, choose, commonest, openings_of, pairs_of
from demur.graft.tracing.effects import mean_of
from demur.interruption import resumable
from demur.models.anatomy import Anatomy, anatomy_of
from demur.models.chat_model import ChatModel, load_chat_model
from demur.models.device import Placement, choose_device_and_dtype
from demur.models.generation import Decoding, answer
from demur.prompts.choose import gather
from demur.prompts.split import evenly
from demur.prompts.types import Split, Splits
from demur.run.folder import RunFolder, default_folder
from demur.run.journal import Answer, Journal, content_key
from demur.run.versions import versions
from demur.tracing.command import command_line, trace_name
from demur.tracing.config import TraceConfig
from demur.tracing.crossings import Asked, Crossings
from demur.tracing.findings import CrossFindings, Findings
from demur.tracing.mapping import Maps
from demur.tracing.outcome import Trace
from demur.tracing.relatives import DONOR, Relative, find_relatives

TOKENS = 24  # of the answers that say what is refused
SPLIT: Split = "validation"
POOL = 8  # harmful prompts at hand for each that is traced


def trace(
    model: str | TraceConfig,
    *,
    run: Path | None = None,
    narrator: Narrator | None = None,
    **choices: Any,
) -> Trace:
    """Find where in a model refusal is decided, and which modules of a donor carry it over.

    Args:
        model: what `demur trace` takes, or a whole configuration.
        run: the trace's folder; by default `runs/trace-<model>-<hash of all choices>`.
        narrator: who tells the user; by default on stderr.
        choices: any field of `TraceConfig`.

    Raises:
        DemurError: something is wrong that the user can put right; nothing is half-written.
        Interrupted: Ctrl-C; the same call continues.
    """
    config = TraceConfig.of(model, **choices)
    with resumable():
        return _trace(config, run, narrator or Narrator())


def _trace(config: TraceConfig, run: Path | None, narrator: Narrator) -> Trace:
    from demur.tracing.write import DOCUMENTS, write_documents

    found = find_relatives(config, narrator)
    placement = choose_device_and_dtype(config.device, config.dtype)
    narrator.say(f"  {placement.sentence}")
    splits = gather(
        pairs=config.pairs,
        harmful=config.harmful,
        harmful_column=config.harmful_column,
        benign=config.benign,
        benign_column=config.benign_column,
        seed=config.seed,
    )
    identity = {
        **config.resolved(),
        "verb": "trace",
        "demur": __version__,
        "weights": {role: each.weights for role, each in found.items()},
        "asked": content_key([prompt.text for prompt in splits.of(SPLIT)]),
    }
    path = run or default_folder(trace_name(config), identity)
    with RunFolder(path, identity) as folder:
        folder.sweep(*DOCUMENTS, DONOR)
        narrator.log_to(folder.path / "run.log")
        narrator.say(f"  run folder: {folder.path}")
        findings = _findings(config, found, placement, splits, folder, narrator)
        return write_documents(findings, folder.path, narrator)


def _findings(
    config: TraceConfig,
    found: dict[str, Relative],
    placement: Placement,
    splits: Splits,
    folder: RunFolder,
    narrator: Narrator,
) -> Findings:
    def load(role: str) -> ChatModel:
        return load_chat_model(
            found[role].written(folder.path, narrator),
            placement,
            weights=found[role].weights,
            name=found[role].name,
            system=config.system,
            thinking=config.thinking,
            chat_template=config.chat_template,
            trust_remote_code=config.trust_remote_code,
        )

    traced = "donor" if config.donor else "model"
    chat = load(traced)
    anatomy = anatomy_of(chat.model, open_checkpoint(chat.folder))
    chosen = _choose(config, chat, found[traced].name, splits, folder.journal, narrator)
    pairs = pairs_of(chat, chosen, config.corruption, draws=config.draws, seed=config.seed)
    maps = Maps(chat, anatomy, pairs, config)
    narrator.heading(f"Tracing {found[traced].name}")
    maps.trace(folder.journal, narrator)
    crossings: tuple[CrossFindings, ...] = ()
    if traced == "donor":
        narrator.heading("Putting modules over")
        crossings = _cross(config, load("model"), chat, anatomy, chosen, folder.journal, narrator)
    created = folder.journal.fact("created") or time.strftime("%Y-%m-%d")
    folder.journal.keep_fact("created", created)
    openings = openings_of(chat, chosen)
    common = set.intersection(*(set(each.complying) for each in openings))
    return Findings(
        created=created,
        command=command_line(config, folder.path, folder.configuration),
        model=config.model,
        donor=config.donor,
        traced=found[traced].name,
        architecture=anatomy.architecture,
        layers=len(anatomy.layers),
        corruption=config.corruption,
        positions=config.positions,
        deviation=maps.scale,
        draws=config.draws if config.corruption == "noise" else 0,
        prompts=len(pairs),
        same_length=chosen.same_length,
        asked=chosen.asked,
        refusing=_words(chat, openings[0].refusing),
        complying=_words(chat, [each for each in openings[0].complying if each in common]),
        clean=mean_of(maps.clean, config.seed),
        corrupted=mean_of(maps.corrupted, config.seed),
        places=tuple(place.name for place in maps.places),
        maps=maps.findings(config.seed),
        crossings=crossings,
        versions=versions(),
    )


def _choose(
    config: TraceConfig,
    chat: ChatModel,
    name: str,
    splits: Splits,
    journal: Journal,
    narrator: Narrator,
) -> Chosen:
    narrator.heading(f"Asking {name} what it refuses")
    chosen = choose(
        chat,
        evenly(splits.harmful(SPLIT), POOL * config.prompts, config.seed),
        splits.twins(SPLIT),
        config.prompts,
        lambda prompts: _answers(chat, prompts, journal, narrator),
        name=name,
    )
    narrator.say(
        f"  {len(chosen.harmful)} pairs are traced, of {chosen.asked} that were asked: refused, "
        f"and the twin answered; {chosen.same_length} are of the same length"
    )
    return chosen


def _answers(
    chat: ChatModel, prompts: Sequence[str], journal: Journal, narrator: Narrator
) -> list[Answer]:
    with narrator.progress("answers", len(prompts)) as advance:
        return answer(chat, prompts, journal, Decoding(tokens=TOKENS), advance=advance)


def _cross(
    config: TraceConfig,
    recipient: ChatModel,
    donor: ChatModel,
    anatomy: Anatomy,
    chosen: Chosen,
    journal: Journal,
    narrator: Narrator,
) -> tuple[CrossFindings, ...]:
    """Put modules over both ways; to comply is to begin as the recipient, or as with the twin."""
    if [recipient.encode(text) for text in chosen.harmful] != [
        donor.encode(text) for text in chosen.harmful
    ]:
        raise ModelError(
            "The two models put another chat template around requests, so that their margins "
            "cannot be compared.",
            "Choose one for both with --chat-template.",
        )
    own = _answers(recipient, chosen.harmful, journal, narrator)
    sides = [
        openings_for(recipient, [each.tokens for each in said], donor=commonest(chosen.answers))
        for said in (own, chosen.benign_answers)
    ]
    asked = Asked(chosen.harmful, chosen.benign, tuple(sides[0]), tuple(sides[1]))
    return tuple(
        Crossings(into, out_of, anatomy, asked, config).trace(direction, journal, narrator)
        for direction, into, out_of in (
            ("into", recipient, donor),
            ("back", donor, recipient),
        )
    )


def _words(chat: ChatModel, openings: Sequence[Sequence[int]]) -> tuple[str, ...]:
    return tuple(chat.tokenizer.decode(list(opening)).strip() for opening in openings)
