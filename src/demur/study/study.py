"""`demur study SOURCE...`: gather answers, judge them, find patterns, test the premise, write.

    demur study answers.jsonl runs/first runs/second smollm2-135m
    demur.study_refusals(["answers.jsonl", "runs/first"])      # in Python

The study has a run folder: answers of models that were asked and verdicts are kept in its journal,
so that a study that was killed goes on when the same command is given again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from demur import __version__
from demur.console import Narrator
from demur.interruption import resumable
from demur.judge import Judge
from demur.judge.kept import answer_keys, judge_kept
from demur.judge.names import Means
from demur.models.budget import Budget, Caps, spent_from
from demur.prompts.attacks import with_template
from demur.run.folder import RunFolder, default_folder
from demur.run.journal import content_key
from demur.run.versions import versions
from demur.study.asked import Questions, ask
from demur.study.command import command_line
from demur.study.config import StudyConfig
from demur.study.findings import Findings
from demur.study.gather import Named, name_sources, parse, questions, read_sources, respond
from demur.study.outcome import Study
from demur.study.patterns import Refusals, describe, rarefied_to, refusals_of
from demur.study.people import choose_judge
from demur.study.premise import conclusion, premise_tests
from demur.study.source import Source
from demur.wording.embeddings import Embedder, choose_embedder


def study_refusals(
    sources: Sequence[str] | StudyConfig,
    *,
    run: Path | None = None,
    judge: Judge | str | None = None,
    narrator: Narrator | None = None,
    means: Means | None = None,
    caps: Caps | None = None,
    **choices: Any,
) -> Study:
    """Study how models refuse.

    Args:
        sources: files of recorded answers, run folders, models; or a whole configuration.
        run: the study's folder; by default `runs/study-<hash of the configuration>`.
        judge: who judges: a name as the configuration has it, or any judge in its place.
        narrator: who tells the user; by default on stderr.
        means: how endpoints are asked, of sources and of judges.
        caps: what may be spent on them, earlier tries of the same study included.
        choices: any field of `StudyConfig`.

    Raises:
        DemurError: something is wrong that the user can put right; nothing is half-written.
        Interrupted: Ctrl-C; the same call continues.
    """
    if isinstance(judge, str):
        choices["judge"], judge = judge, None
    config = (
        replace(sources, **choices)
        if isinstance(sources, StudyConfig)
        else StudyConfig(tuple(sources), **choices)
    )
    with resumable():
        means = means or Means(device=config.device, dtype=config.dtype)
        means = replace(means, budget=Budget(caps))
        return _study(config, run, judge, narrator or Narrator(), means)


def _study(
    config: StudyConfig, run: Path | None, judge: Judge | None, narrator: Narrator, means: Means
) -> Study:
    from demur.study.write import DOCUMENTS, write_documents

    narrator.heading("Looking at the sources")
    named = [parse(given) for given in config.sources]
    read = read_sources(config, named)
    asked = questions(config) if any(place not in read for place in range(len(named))) else None
    embedder = choose_embedder(config.embedder)
    known = [source for place in sorted(read) for source in read[place]]
    judge = judge or choose_judge(config.judge, known, means)  # before any model is asked
    identity = {
        **config.resolved(),
        "demur": __version__,
        "read": content_key([_fingerprint(source) for source in known]),
        "asked": content_key(_asked(asked)),
        "judge_used": judge.name,
        "embedder_used": embedder.name,
    }
    with RunFolder(run or default_folder("study", identity), identity) as folder:
        folder.sweep(*DOCUMENTS)
        narrator.log_to(folder.path / "run.log")
        narrator.say(f"  run folder: {folder.path}")
        means.budget.spent = spent_from(folder.journal.fact("spent"))
        try:
            found = [
                read[place] if place in read else _ask(config, each, asked, folder, narrator, means)
                for place, each in enumerate(named)
            ]
            sources, said = name_sources(named, found)
            for line in said:
                narrator.say(f"  {line}")
            gathered = _judged(config, sources, judge, folder, narrator)
        finally:
            folder.journal.keep_fact("spent", asdict(means.budget.spent))
            if means.budget.spent.requests:
                narrator.say(f"  endpoints so far: {means.budget.sentence()}")
        findings = _findings(config, gathered, judge, embedder, folder, narrator)
        return write_documents(findings, gathered, folder.path, narrator)


def _ask(
    config: StudyConfig,
    each: Named,
    asked: Questions | None,
    folder: RunFolder,
    narrator: Narrator,
    means: Means,
) -> tuple[Source, ...]:
    narrator.heading(f"Asking {each.what}")
    short, respondent = respond(config, each.what, means, lambda text: narrator.say(f"  {text}"))
    assert asked is not None
    return (ask(each.name or short, respondent, asked, folder.journal, narrator),)


def _judged(
    config: StudyConfig,
    sources: Sequence[Source],
    judge: Judge,
    folder: RunFolder,
    narrator: Narrator,
) -> list[Refusals]:
    narrator.heading(f"Judging {len(sources)} sources")
    gathered = []
    for source in sources:
        prompts = [entry.prompt for entry in source.entries]
        answers = [entry.answer for entry in source.entries]
        fresh = answer_keys(prompts, answers)
        keys = [e.key or key for e, key in zip(source.entries, fresh, strict=True)]
        verdicts = judge_kept(judge, prompts, answers, keys, folder.journal)
        gathered.append(refusals_of(source, [v.outcome for v in verdicts], config.words))
        direct = len(source.of("direct"))
        narrator.say(f"  {source.name}: refuses {len(gathered[-1].entries):,} of {direct:,}")
    return gathered


def _findings(
    config: StudyConfig,
    gathered: Sequence[Refusals],
    judge: Judge,
    embedder: Embedder,
    folder: RunFolder,
    narrator: Narrator,
) -> Findings:
    narrator.heading("Finding patterns")
    found, clusterings = describe(gathered, embedder, config.words, config.seed)
    tests = premise_tests([each.source for each in gathered], found, config.seed)
    created = folder.journal.fact("created") or time.strftime("%Y-%m-%d")
    folder.journal.keep_fact("created", created)
    return Findings(
        created,
        command_line(config, folder.path, folder.configuration),
        judge.description,
        judge.name,
        embedder.description,
        embedder.name,
        config.words,
        rarefied_to(gathered),
        found,
        clusterings,
        tests,
        conclusion(tests),
        versions(),
    )


def _fingerprint(source: Source) -> str:
    """Return a hash of a source's answers: a file that was changed is another study."""
    digest = hashlib.sha256(source.name.encode())
    for e in source.entries:
        digest.update(content_key(e.prompt, e.answer, e.kind, e.attack, e.label).encode())
    return digest.hexdigest()


def _asked(asked: Questions | None) -> list[Any]:
    if asked is None:
        return []
    inside = [with_template(p.text, t) for t in asked.templates for p in asked.templated]
    prompts = (asked.harmful, asked.benign, asked.prefilled)
    return [[p.text for p in each] for each in prompts] + [inside, asked.opening]
