"""From what the user names to sources: what each name is, what is asked, and one name for each.

A file is recorded answers; a folder with a journal is a run of demur; `openai:MODEL`,
`anthropic:MODEL` and `http://HOST:PORT/v1#MODEL` are endpoints; anything else is a model. The same
model measured in several runs (the same base, before aligning) is one source, not several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from demur.errors import PromptError
from demur.judge.names import Means
from demur.measure.protocol import PREFILL
from demur.models.endpoint import is_endpoint, parse_endpoint
from demur.prompts.attacks import with_template
from demur.prompts.choose import gather
from demur.prompts.split import evenly
from demur.prompts.tables import ENDINGS, read_table
from demur.study.asked import EndpointRespondent, ModelRespondent, Questions, Respondent
from demur.study.config import StudyConfig
from demur.study.recorded import Columns, read_kinds, read_recorded
from demur.study.runs import is_run, read_run
from demur.study.source import EntryKind, Source


@dataclass(frozen=True)
class Named:
    """One thing that the user named.

    Attributes:
        name: the name given with it, or empty.
        what: a path or a model.
        kind: how it is to be read.
    """

    name: str
    what: str
    kind: str


def parse(given: str) -> Named:
    """Return what one argument means; `NAME=SOURCE` where what stands before `=` is no path."""
    name, sign, rest = given.partition("=")
    if sign and rest and name and not Path(given).exists() and not set(name) & set("/\\:"):
        return Named(name.strip(), rest, _kind(rest))
    return Named("", given, _kind(given))


def _kind(what: str) -> str:
    if is_endpoint(what):
        return "endpoint"
    path = Path(what).expanduser()
    if path.is_dir():
        return "run" if is_run(path) else "model"
    return "recorded" if path.suffix.lower() in ENDINGS else "model"


def read_sources(config: StudyConfig, named: Sequence[Named]) -> dict[int, tuple[Source, ...]]:
    """Return the sources of all files and runs, by the place of their argument.

    Raises:
        PromptError, RunError: one of them cannot be read.
    """
    columns = Columns(
        config.prompt_column,
        config.response_column,
        config.model_column,
        config.kind_column,
        config.label_column,
    )
    kinds = read_kinds(Path(config.kinds).expanduser()) if config.kinds else {}
    _require_known(config, named)
    found: dict[int, tuple[Source, ...]] = {}
    for place, each in enumerate(named):
        path = Path(each.what).expanduser()
        if each.kind == "recorded":
            kind = _said(config, each)
            found[place] = read_recorded(path, columns, kind=kind, kinds=kinds)
        elif each.kind == "run":
            found[place] = read_run(path)
    return found


def _said(config: StudyConfig, each: Named) -> EntryKind:
    if {each.name, each.what} & set(config.all_harmful):
        return "harmful"
    return "benign" if {each.name, each.what} & set(config.all_benign) else "unknown"


def _require_known(config: StudyConfig, named: Sequence[Named]) -> None:
    files = {word for each in named if each.kind == "recorded" for word in (each.name, each.what)}
    for flag, values in (("harmful", config.all_harmful), ("benign", config.all_benign)):
        for value in values:
            if value not in files:
                raise PromptError(
                    f"--all-{flag} names '{value}', which is no file among the sources.",
                    "Write it as it stands among them, or its NAME.",
                )


def name_sources(
    named: Sequence[Named], found: Sequence[tuple[Source, ...]]
) -> tuple[tuple[Source, ...], tuple[str, ...]]:
    """Return all sources with names of their own, and what is to be said of merged ones.

    A name given by the user stands in place of the file's or the run's; two sources of one name are
    told apart by the file or folder that they are from, and then by numbers.
    """
    kept: list[tuple[Source, str]] = []
    said: list[str] = []
    for each, sources in zip(named, found, strict=True):
        for source in sources:
            same = [known for known, _ in kept if _same(known, source)]
            if same:
                said.append(
                    f"{source.name} is the same model with the same answers as {same[0].name}: "
                    "counted once."
                )
                continue
            kept.append((replace(source, name=_renamed(each, source, len(sources))), each.what))
    counts = Counter(source.name for source, _ in kept)
    longer = [
        replace(s, name=f"{s.name} ({Path(what).stem})") if counts[s.name] > 1 else s
        for s, what in kept
    ]
    counts, seen, final = Counter(s.name for s in longer), Counter[str](), []
    for source in longer:
        seen[source.name] += 1
        number = f" {seen[source.name]}" if counts[source.name] > 1 else ""
        final.append(replace(source, name=source.name + number))
    return tuple(final), tuple(said)


def _renamed(each: Named, source: Source, among: int) -> str:
    if not each.name:
        return source.name
    if source.how == "run":
        return f"{each.name}, {source.name.rsplit(', ', 1)[-1]}"
    return each.name if among == 1 else f"{each.name}: {source.name}"


def _same(first: Source, second: Source) -> bool:
    if not first.identity or first.identity != second.identity:
        return False

    def answers(source: Source) -> set[tuple[str, str, str]]:
        return {(entry.prompt, entry.attack, entry.answer) for entry in source.entries}

    return answers(first) == answers(second)


def questions(config: StudyConfig) -> Questions:
    """Return what models are asked: the test split of the built-in set, or of the user's own.

    Raises:
        PromptError: a file cannot be read, or a template has no place for the request.
    """
    splits = gather(
        pairs=config.pairs,
        harmful=config.harmful,
        benign=config.benign,
        ordinary=config.ordinary,
        seed=config.seed,
    )
    harmful = evenly(splits.harmful("test"), config.prompts, config.seed)
    twins = evenly(splits.twins("test"), config.prompts, config.seed)
    ordinary = evenly(splits.ordinary("test"), config.ordinary_prompts, config.seed)
    templates = _templates(config.templates)
    return Questions(
        harmful,
        (*twins, *ordinary),
        evenly(harmful, config.prefill, config.seed),
        PREFILL,
        evenly(harmful, config.template_prompts, config.seed) if templates else (),
        templates,
        config.tokens,
    )


def _templates(source: str | None) -> tuple[str, ...]:
    """Return the user's templates: the column `template` or `prompt`, or a text file's lines."""
    if source is None:
        return ()
    table = read_table(Path(source).expanduser())
    column = next((name for name in ("template", "prompt") if name in table.columns), None)
    if column is None:
        raise PromptError(
            f"'{table.name}' has no column 'template' (it has: {', '.join(table.columns)}).",
            "Name the column of templates so.",
        )
    texts = [str(row.get(column) or "").strip() for _, row in table.rows]
    found = tuple(text for text in texts if text)
    for text in found:
        with_template("", text)
    if not found:
        raise PromptError(f"'{table.name}' holds no template.", "Put one into each row.")
    return found


def respond(
    config: StudyConfig, what: str, means: Means, say: Callable[[str], None]
) -> tuple[str, Respondent]:
    """Return the short name of whoever is asked, and whoever it is, ready to answer.

    Raises:
        ModelError, CheckpointError: it cannot be found, read or used.
        EndpointError: it is not written as an endpoint, or its key is missing.
    """
    if is_endpoint(what):
        return _endpoint(config, what, means)
    from demur.checkpoint import checkpoint_hash, open_checkpoint
    from demur.models.chat_model import load_chat_model
    from demur.models.config import check_weights
    from demur.models.device import choose_device_and_dtype
    from demur.models.resolve import resolve

    resolved = resolve(what, trust_remote_code=config.trust_remote_code, say=say)
    check_weights(resolved.folder)
    chat = load_chat_model(
        resolved.folder,
        choose_device_and_dtype(config.device, config.dtype),
        weights=checkpoint_hash(open_checkpoint(resolved.folder)),
        name=what,
        system=config.system,
        thinking=config.thinking,
        chat_template=config.chat_template,
        trust_remote_code=config.trust_remote_code,
    )
    short = what.rstrip("/").split("/")[-1].removesuffix(".gguf")
    millions = f"{resolved.parameters / 1e6:,.0f} M parameters"
    return short, ModelRespondent(chat, f"{resolved.architecture} of {millions}, asked here.")


def _endpoint(config: StudyConfig, what: str, means: Means) -> tuple[str, Respondent]:
    from demur.models.asking import Asker

    endpoint = parse_endpoint(what, means.key_variable)
    endpoint.key()  # a missing key is told before any work
    asker = Asker(endpoint, budget=means.budget, patience=means.patience, at_once=means.at_once)
    return endpoint.model.split("/")[-1], EndpointRespondent(asker, config.system or "")
