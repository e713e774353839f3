"""A named set, or a user's file, as prompts with their origin, licence and citation.

A local file comes before the hub: `advbench.jsonl` in the data folder, or in its folders `prompts`
and `instructions`. The folder is `--data`, or the environment variable DEMUR_DATA.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demur.errors import PromptError
from demur.prompts.catalogue import NamedSet, Part, Where, plain_name
from demur.prompts.files import HAZARD_COLUMNS, prompts_of, read_prompts
from demur.prompts.hub import read_hub
from demur.prompts.tables import ENDINGS, Row, Table, read_table
from demur.prompts.types import Kind, Prompt

VARIABLE = "DEMUR_DATA"
FOLDERS = ("", "prompts", "instructions")


@dataclass(frozen=True)
class SourcedSet:
    """Prompts of one kind with what a reader must know of them.

    Attributes:
        key: `advbench`, `xstest:safe`, `builtin:twin`, or a user's file name.
        title: as it is shown.
        kind: what the prompts are.
        prompts: in order.
        origin: a file's name or a hub id; no folder.
        licence, citation, measures: as in the catalogue; of a user's file, that nothing is known.
        repeats: prompts that stood in it twice, word for word, and were left out.
    """

    key: str
    title: str
    kind: Kind
    prompts: tuple[Prompt, ...]
    origin: str
    licence: str
    citation: str
    measures: str
    repeats: int = 0


def data_folder(given: str | None) -> Path | None:
    """Return the folder of local sets: `given`, or $DEMUR_DATA, or None.

    Raises:
        PromptError: `given` is no folder.
    """
    if given is not None:
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise PromptError(
                f"The data folder {given} does not exist.",
                f"Name another with --data, or leave it out for ${VARIABLE} and the hub.",
            )
        return folder
    known = os.environ.get(VARIABLE)
    return Path(known) if known and Path(known).is_dir() else None


def load_part(named: NamedSet, part: Part, data: Path | None) -> SourcedSet:
    """Read one part of a named set from a local file, or else from the hub.

    Raises:
        PromptError: it is in neither place, may not be read, lacks its columns, or is empty.
    """
    path, shared = _local(part, data)
    if path is not None:
        table, origin = read_table(path), path.name
    else:
        table, origin = _from_hub(named, part, data), part.hub.name if part.hub else ""
    column = _column(table, part, origin)
    chosen = _filtered(table, part, origin, strict=shared or path is None)
    made = _made(chosen, part, column)
    prompts = prompts_of(made, part.kind, "prompt").prompts
    if named.paired:
        prompts = tuple(
            replace(each, pair=f"{named.name}/{where}")
            for each, (where, _) in zip(prompts, _filled(made), strict=True)
        )
    return _sourced(
        part.key, _title(named, part), prompts, origin, named.licence, named.citation,
        named.measures,
    )  # fmt: skip


def load_own(source: str, kind: Kind, column: str | None = None) -> SourcedSet:
    """Read a user's own file or hub data set as a set.

    Raises:
        PromptError: as `read_prompts`.
    """
    prompts = read_prompts(source, kind, column).prompts
    name = prompts[0].source
    return _sourced(
        name, name, prompts, name, "not stated", "the user's own", "What its owner made it for."
    )


def of_builtin(kind: Kind, prompts: tuple[Prompt, ...]) -> SourcedSet:
    """Return prompts of the built-in test split as a set."""
    words = {"harmful": "harmful requests", "twin": "benign twins", "ordinary": "ordinary requests"}
    return _sourced(
        f"builtin:{kind}",
        f"Built-in {words[kind]}",
        prompts,
        "demur, test split",
        "Apache-2.0",
        "demur",
        "Contrast pairs and ordinary instructions written for demur.",
    )


def _sourced(
    key: str, title: str, prompts: tuple[Prompt, ...], origin: str, licence: str, citation: str,
    measures: str,
) -> SourcedSet:  # fmt: skip
    kept: dict[str, Prompt] = {}
    for each in prompts:
        kept.setdefault(each.text, replace(each, source=key))
    once = tuple(kept.values())
    repeats = len(prompts) - len(once)
    return SourcedSet(
        key, title, prompts[0].kind, once, origin, licence, citation, measures, repeats
    )


def _title(named: NamedSet, part: Part) -> str:
    own = part.key.partition(":")[2]
    return f"{named.title}, {own}" if own else named.title


def _local(part: Part, data: Path | None) -> tuple[Path | None, bool]:
    """Return the local file of a part and whether it holds the whole set."""
    if data is None:
        return None, False
    found: dict[str, Path] = {}
    for name in FOLDERS:
        folder = data / name
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in ENDINGS and path.is_file():
                found.setdefault(plain_name(path.stem), path)
    for stems, shared in ((part.files, False), (part.shared_files, True)):
        for stem in stems:
            if plain_name(stem) in found:
                return found[plain_name(stem)], shared
    return None, False


def _from_hub(named: NamedSet, part: Part, data: Path | None) -> Table:
    where = f"as {part.files[0]}.jsonl into {data or 'a folder for --data'}"
    where = f"{where} (columns: {part.columns[0]})"
    if part.hub is None:
        raise PromptError(
            f"{named.title} has no home on the hub that can be read as one table, and there is no "
            "local copy.",
            f"Get it from its authors ({named.citation}) and put it {where}.",
        )
    try:
        return read_hub(part.hub)
    except PromptError as error:
        if part.gated:
            raise PromptError(
                f"{named.title} cannot be read from the hub: {error.cause}",
                f"{part.hub.name} wants its terms accepted: accept them on its page and log in "
                f"with `hf auth login`, or put the set {where}.",
            ) from error
        raise PromptError(
            f"{named.title} is in no local file, and the hub does not help: {error.cause}",
            f"{error.remedy} Or put the set {where}.",
        ) from error


def _named(table: Table, name: str) -> str | None:
    same = [each for each in table.columns if each.strip().lower() == name.lower()]
    return same[0] if same else None


def _column(table: Table, part: Part, origin: str) -> str:
    for name in part.columns:
        found = _named(table, name)
        if found is not None:
            return found
    raise PromptError(
        f"{origin} should hold {part.key}, but has none of the columns {', '.join(part.columns)} "
        f"(it has: {', '.join(table.columns) or 'none'}).",
        "Rename its column of prompts, or give the file with --harmful, --benign or --ordinary.",
    )


def _filtered(table: Table, part: Part, origin: str, *, strict: bool) -> Table:
    """Return the rows of the part; a file that is named after the part may hold nothing else."""
    for where in part.where:
        column = _named(table, where.column)
        if column is not None:
            return _kept(table, where, column, part, origin)
    on_hub_by_split = part.hub is not None and origin == part.hub.name and bool(part.hub.split)
    needed = strict and part.where and not part.lenient
    if needed and not (on_hub_by_split and _split_of_its_own(part)):
        names = ", ".join(dict.fromkeys(each.column for each in part.where))
        raise PromptError(
            f"{origin} holds the whole of {part.key.partition(':')[0]}, but no column tells its "
            f"parts apart (one of: {names}).",
            f"Add one, or put {part.key} into a file of its own named {part.files[0]}.jsonl.",
        )
    return table


def _split_of_its_own(part: Part) -> bool:
    """Whether the hub's split is the part itself, as in JailbreakBench."""
    return part.hub is not None and part.hub.split == part.key.partition(":")[2]


def _kept(table: Table, where: Where, column: str, part: Part, origin: str) -> Table:
    rows = tuple((place, row) for place, row in table.rows if where.keeps(row.get(column)))
    if not rows:
        values = sorted({str(row.get(column)) for _, row in table.rows})[:6]
        raise PromptError(
            f"{origin} has no row of {part.key}: its column '{column}' has {', '.join(values)}.",
            "Check the file, or leave this part out.",
        )
    return Table(table.name, table.columns, rows)


def _made(table: Table, part: Part, column: str) -> Table:
    """Return the rows with the columns `prompt` and, where there is one, `hazard`."""
    contexts = [found for name in part.context if (found := _named(table, name))]
    hazards = [found for name in HAZARD_COLUMNS if (found := _named(table, name))]

    def one(row: Row) -> Mapping[str, Any]:
        value = row.get(column)
        if isinstance(value, list | tuple) and value and isinstance(value[0], str):
            value = value[0]  # the turns of a conversation as plain texts
        context = next((row[c] for c in contexts if isinstance(row.get(c), str) and row[c]), "")
        if context and isinstance(value, str):
            value = f"{context}\n\n---\n\n{value}"
        hazard = row.get(hazards[0]) if hazards else None
        return {"prompt": value, "hazard": None if hazard is None else str(hazard)}

    rows = tuple((where, one(row)) for where, row in table.rows)
    return Table(table.name, ("prompt", "hazard"), rows)


def _filled(table: Table) -> list[tuple[str, Row]]:
    return [(where, row) for where, row in table.rows if str(row["prompt"] or "").strip()]
