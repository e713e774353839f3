"""The built-in contrast set: harmful requests, their harmless twins, and ordinary instructions.

It was written for demur and holds requests only, never an answer. The pairs come in four tiers,
`plain` (everyday wording, twins that are plainly harmless), `turned` (formal requests, and the
same turned to a good end), `brief` (a few words, twins made to deceive by the same words) and
`hard` (longer ones made to deceive, and harmful requests that avoid alarming words). In each, one
text file a hazard category, named after it; beside them one file of ordinary instructions:

    # Title of the hazard category
    # further comments

    [same-verb]
    How do I break a man?
    How do I break a record?

A section is headed by a contrast kind: how the twin differs. Under it stand blocks, divided by
blank lines: a harmful request, its twin, and again. Usually a block is one pair; several pairs
in one block are made from one template and stay together in every split. In `ordinary.txt`
sections are topics, and a block is one prompt, or several made from one template. A line break
inside a prompt is written as a backslash and an n.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from demur.errors import PromptError
from demur.prompts.duplicates import normalise
from demur.prompts.types import Kind, Prompt, PromptSet, text_key

VERSION = "1.1"
TIERS = ("plain", "turned", "brief", "hard")
ORDINARY = "ordinary"
CONTRASTS: dict[str, str] = {
    "same-verb": "the same verb and form, another object",
    "same-topic": "the same topic, a legitimate aim",
    "homonym": "a word with another, harmless meaning",
    "figurative": "a figure of speech",
    "safe-target": "a target that cannot be harmed, or is meant to be",
    "safe-context": "sport, film, game, licensed profession, consent",
    "definition": "what a word or a law means",
    "fiction-history": "history, novels, films, museums",
    "real-fictional": "a fictional character or a public body, not a private person",
    "prevention": "protecting, detecting, recovering, reporting",
    "support": "a person who seeks help, or a helper",
    "same-form": "the same kind of document on a harmless subject",
}


@dataclass(frozen=True)
class Category:
    """One parsed file: the hazard's id (the file's stem), its title, and its prompts.

    The prompts' source is `builtin`, for a pair with its tier: `builtin/plain`.
    """

    hazard: str
    title: str
    prompts: tuple[Prompt, ...]


def parse_category(text: str, hazard: str, name: str, source: str = "builtin") -> Category:
    """Read one file of the built-in set.

    Args:
        text: the whole file.
        hazard: the id of the category; `ordinary` for the file of ordinary instructions.
        name: the file's name, for error messages.
        source: what the prompts name as their source.

    Raises:
        PromptError: the title is missing, a section is unknown or missing, or a block has an
            odd number of lines. The message names the file and the line.
    """
    title = ""
    section = ""
    block: list[tuple[int, str]] = []
    prompts: list[Prompt] = []
    for number, raw in enumerate([*text.splitlines(), ""], start=1):
        line = raw.strip()
        if number == 1:
            title = line.removeprefix("#").strip()
            if not line.startswith("#") or not title:
                raise _broken(name, 1, "the first line is no title", "Begin it with '# Title'.")
        if line.startswith("#"):
            continue
        if line and not line.startswith("["):
            if not section:
                remedy = "Put a heading such as [same-verb] above it."
                raise _broken(name, number, "a prompt stands under no heading", remedy)
            block.append((number, line))
            continue
        prompts += _block(block, hazard, section, name, source)
        block = []
        if line:
            section = _section(line, hazard, name, number)
    return Category(hazard, title, tuple(prompts))


def _section(line: str, hazard: str, name: str, number: int) -> str:
    """Return the heading's name, checked."""
    section = line.removeprefix("[").removesuffix("]").strip()
    if not line.endswith("]") or not section:
        raise _broken(name, number, f"'{line}' is no heading", "Write it as [same-verb].")
    if hazard != ORDINARY and section not in CONTRASTS:
        known = ", ".join(CONTRASTS)
        raise _broken(name, number, f"the heading '{section}' is unknown", f"Use one of: {known}.")
    return section


def _block(
    lines: list[tuple[int, str]], hazard: str, section: str, name: str, source: str
) -> list[Prompt]:
    """Turn the lines of one block into prompts."""
    texts = [line.replace("\\n", "\n") for _, line in lines]
    family = f"{hazard}/{text_key(texts[0])}" if texts else ""
    if hazard == ORDINARY:
        return [Prompt(text, "ordinary", "", section, "", family, source) for text in texts]
    if len(texts) % 2:
        cause = f"the block that begins here has {len(texts)} lines, an odd number"
        raise _broken(name, lines[0][0], cause, "Give each harmful request its twin below it.")
    prompts: list[Prompt] = []
    for harmful, twin in zip(texts[::2], texts[1::2], strict=True):
        pair = f"{hazard}/{text_key(harmful)}"
        sides: tuple[tuple[str, Kind], ...] = ((harmful, "harmful"), (twin, "twin"))
        for text, kind in sides:
            prompts.append(Prompt(text, kind, hazard, section, pair, family, source))
    return prompts


def _broken(name: str, line: int, cause: str, remedy: str) -> PromptError:
    return PromptError(f"{name}, line {line}: {cause}.", remedy)


@lru_cache(maxsize=1)
def categories() -> tuple[Category, ...]:
    """Return all files of the built-in set in the order of their names, ordinary ones last.

    Raises:
        PromptError: a file is not in the format that this module's docstring describes.
    """
    folder = files("demur.prompts").joinpath("builtin")
    found = []
    for part in (*TIERS, ""):
        place = folder.joinpath(part) if part else folder
        entries = [entry for entry in place.iterdir() if entry.name.endswith(".txt")]
        found += [(part, entry) for entry in sorted(entries, key=lambda entry: entry.name)]
    if not found:
        remedy = "Install demur again: its package data are missing."
        raise PromptError("The built-in prompts are not there.", remedy)
    return tuple(
        parse_category(
            entry.read_text(encoding="utf-8"),
            entry.name.removesuffix(".txt"),
            f"{tier}/{entry.name}" if tier else entry.name,
            f"builtin/{tier}" if tier else "builtin",
        )
        for tier, entry in found
    )


@lru_cache(maxsize=1)
def builtin_set() -> PromptSet:
    """Return the built-in contrast set.

    Its version is the constant `VERSION`, a plus sign and eight hex digits of a hash of all
    prompts with all that is known of them.

    Raises:
        PromptError: a file is not in the format that this module's docstring describes.
    """
    prompts = tuple(prompt for category in categories() for prompt in category.prompts)
    digest = hashlib.sha256()
    for prompt in prompts:
        fields = (prompt.kind, prompt.hazard, prompt.contrast, prompt.block, prompt.text)
        digest.update("\x1f".join(fields).encode() + b"\x1e")
    return PromptSet("builtin", f"{VERSION}+{digest.hexdigest()[:8]}", prompts)


def hazard_titles() -> dict[str, str]:
    """Return the title of each hazard by its id, in the order of the ids."""
    return {item.hazard: item.title for item in categories() if item.hazard != ORDINARY}


def validate(
    prompts: Iterable[Prompt],
    *,
    pairs: int = 1000,
    hazards: int = 12,
    contrast: int = 60,
    ordinary: int = 500,
) -> list[str]:
    """Check a contrast set for what makes it fit to teach with.

    Args:
        prompts: the set.
        pairs: the least number of pairs.
        hazards: the least number of hazard categories.
        contrast: the least number of pairs of each contrast kind.
        ordinary: the least number of ordinary instructions.

    Returns:
        What is wrong, a sentence each; nothing if all is well.
    """
    all_prompts = tuple(prompts)
    harmful = [prompt for prompt in all_prompts if prompt.kind == "harmful"]
    problems = [
        f"The prompt '{text[:80]}' stands {count} times."
        for text, count in Counter(normalise(prompt.text) for prompt in all_prompts).items()
        if count > 1
    ]
    sides = Counter(prompt.pair for prompt in all_prompts if prompt.pair)
    problems += [f"The pair {pair} has {n} sides." for pair, n in sides.items() if n != 2]
    seen = Counter(prompt.contrast for prompt in harmful)
    problems += [
        f"The contrast kind '{kind}' is unknown." for kind in seen if kind not in CONTRASTS
    ]
    counts = [
        (len(harmful), pairs, "pairs"),
        (len({prompt.hazard for prompt in harmful}), hazards, "hazard categories"),
        *((seen[kind], contrast, f"pairs of the kind '{kind}'") for kind in CONTRASTS),
        (sum(p.kind == "ordinary" for p in all_prompts), ordinary, "ordinary instructions"),
    ]
    problems += [f"There are {n} {what}, not {least}." for n, least, what in counts if n < least]
    return problems
