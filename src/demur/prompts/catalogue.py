"""The public prompt sets that demur knows by name: where each is, what it measures, whose it is.

demur measure MODEL --sets advbench,xstest,dolly

The catalogue is `sets.toml`; it holds no prompt. `choose_parts` turns the names that a user gives
into parts: `xstest` is both halves of XSTest, `xstest:safe` one, `multijail:all` every language.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from demur.errors import PromptError
from demur.prompts.hub import HubAddress
from demur.prompts.types import Kind

if TYPE_CHECKING:
    from rich.table import Table

BUILTIN = "builtin"
KIND_WORDS: dict[Kind, str] = {
    "harmful": "harmful",
    "twin": "benign, sounds harmful",
    "ordinary": "ordinary",
}


@dataclass(frozen=True)
class Where:
    """A filter on rows: a column equal to one of `equals`, or by the beginning of its value."""

    column: str
    equals: tuple[str, ...] = ()
    begins: str = ""
    without: str = ""

    def keeps(self, value: object) -> bool:
        """Return whether a row with this value in the column belongs to the part."""
        text = "" if value is None else str(value).strip().lower()
        if self.begins:
            return text.startswith(self.begins)
        if self.without:
            return not text.startswith(self.without)
        return text in {each.lower() for each in self.equals}


@dataclass(frozen=True)
class Part:
    """One part of a set: the prompts of one kind.

    Attributes:
        key: `xstest:safe`, or the set's name where it has one part.
        kind: what its prompts are.
        columns: the first of these that is there holds the prompts.
        hub: its home on the hub; None where it has none that can be read as one table.
        gated: whether the hub wants its terms accepted first.
        files: stems of names that a local file may have.
        shared_files: stems of local files that hold the whole set, to be filtered.
        where: filters; the first whose column is there is applied.
        lenient: whether a table without any of those columns is taken whole.
        context: columns of a text that stands before the prompt.
        default: whether it is taken when the set is named alone.
    """

    key: str
    kind: Kind
    columns: tuple[str, ...]
    hub: HubAddress | None = None
    gated: bool = False
    files: tuple[str, ...] = ()
    shared_files: tuple[str, ...] = ()
    where: tuple[Where, ...] = ()
    lenient: bool = False
    context: tuple[str, ...] = ()
    default: bool = True


@dataclass(frozen=True)
class NamedSet:
    """A public prompt set; `paired` where row i of one part is the partner of row i of the other.

    `measures` says in a sentence what it is for, `citation` has authors, year and arXiv number.
    """

    name: str
    title: str
    measures: str
    citation: str
    licence: str
    parts: tuple[Part, ...]
    paired: bool = False


@cache
def catalogue() -> Mapping[str, NamedSet]:
    """Return all sets by name, in the order of `sets.toml`."""
    text = (files("demur.prompts") / "sets.toml").read_text(encoding="utf-8")
    return {name: _set(name, entry) for name, entry in tomllib.loads(text).items()}


def _set(name: str, entry: Mapping[str, Any]) -> NamedSet:
    shared = (name, *entry.get("files", ()))
    parts = tuple(_part(name, shared, each) for each in entry["parts"])
    return NamedSet(
        name,
        entry["title"],
        entry["measures"],
        entry["citation"],
        entry["licence"],
        parts,
        bool(entry.get("paired", False)),
    )


def _part(name: str, shared: tuple[str, ...], entry: Mapping[str, Any]) -> Part:
    own = entry.get("name", "")
    stems = tuple(f"{stem}_{own}" for stem in shared) if own else shared
    hub = entry.get("hub")
    return Part(
        key=f"{name}:{own}" if own else name,
        kind=entry["kind"],
        columns=tuple(entry["columns"]),
        hub=HubAddress(hub, entry.get("config"), entry.get("split")) if hub else None,
        gated=bool(entry.get("gated", False)),
        files=(*stems, *entry.get("files", ())),
        shared_files=shared if own else (),
        where=tuple(
            Where(
                each["column"],
                tuple(each.get("equals", ())),
                each.get("begins", ""),
                each.get("without", ""),
            )
            for each in entry.get("where", ())
        ),
        lenient=bool(entry.get("lenient", False)),
        context=tuple(entry.get("context", ())),
        default=bool(entry.get("default", True)),
    )


def choose_parts(names: Iterable[str]) -> list[tuple[NamedSet, Part]]:
    """Return the parts that names such as `xstest` or `or-bench:hard` mean, each once, in order.

    Hyphens, underscores and capital letters in names do not matter.

    Raises:
        PromptError: no set, or no part of a set, has that name; lists those there are.
    """
    known = {plain_name(name): each for name, each in catalogue().items()}
    chosen: dict[str, tuple[NamedSet, Part]] = {}
    for written in names:
        wanted, _, part = written.partition(":")
        found = known.get(plain_name(wanted))
        if found is None:
            near = difflib.get_close_matches(plain_name(wanted), known, n=1, cutoff=0.6)
            hint = f"Did you mean {known[near[0]].name}? " if near else ""
            raise PromptError(
                f"There is no prompt set named '{written}'.",
                f"{hint}The sets are: {BUILTIN}, {', '.join(catalogue())}; any file of your own "
                "goes in with --harmful, --benign or --ordinary.",
            )
        for each in _parts_named(found, part):
            chosen.setdefault(each.key, (found, each))
    return list(chosen.values())


def _parts_named(found: NamedSet, part: str) -> list[Part]:
    if not part:
        return [each for each in found.parts if each.default]
    if part == "all":
        return list(found.parts)
    same = [
        each for each in found.parts if plain_name(each.key.partition(":")[2]) == plain_name(part)
    ]
    if not same:
        names = [each.key for each in found.parts if ":" in each.key]
        raise PromptError(
            f"The set {found.name} has no part '{part}'.",
            f"Its parts are: {', '.join(names)}." if names else f"Write {found.name} alone.",
        )
    return same


def plain_name(name: str) -> str:
    """Return a name in lower case without hyphens, underscores, dots and blanks."""
    return "".join(letter for letter in name.lower() if letter not in "-_. ")


def listing() -> dict[str, Any]:
    """Return the catalogue as JSON can hold it."""
    return {
        each.name: {
            "title": each.title,
            "measures": each.measures,
            "citation": each.citation,
            "licence": each.licence,
            "parts": [
                {
                    "name": part.key,
                    "kind": part.kind,
                    "hub": part.hub.name if part.hub else None,
                    "gated": part.gated,
                    "files": list(dict.fromkeys((*part.files, *part.shared_files))),
                }
                for part in each.parts
            ],
        }
        for each in catalogue().values()
    }


def listing_table() -> Table:
    """Return the catalogue as a table for the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title="Prompt sets by name, for demur measure --sets",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for heading in ("name", "kind", "home on the hub", "what it measures, licence, citation"):
        table.add_column(heading, overflow="fold")
    table.add_row(
        BUILTIN, ", ".join(KIND_WORDS.values()), "comes with demur", "Contrast pairs; Apache-2.0"
    )
    for each in catalogue().values():
        shown = [part for part in each.parts if part.default or len(each.parts) < 4]
        more = len(each.parts) - len(shown)
        for number, part in enumerate(shown):
            home = part.hub.name + (" (gated)" if part.gated else "") if part.hub else "local only"
            name = part.key + (f" and {more} more parts" if more and not number else "")
            about = f"{each.measures} {each.licence}; {each.citation}" if not number else ""
            table.add_row(Text(name), KIND_WORDS[part.kind], Text(home), Text(about))
    return table
