"""Talking to a model, or to two side by side: each line is asked on its own, with no history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demur.errors import DemurError

if TYPE_CHECKING:
    from rich.console import Console

LEAVING = ("", "/quit", "/exit")


@dataclass(frozen=True)
class Manner:
    """How models are loaded and asked; the fields are those of `AlignConfig`, but for `tokens`.

    Attributes:
        tokens: at most so many tokens an answer.
    """

    device: str = "auto"
    dtype: str = "auto"
    system: str | None = None
    thinking: bool = False
    chat_template: str | None = None
    trust_remote_code: bool = False
    tokens: int = 200


@dataclass(frozen=True)
class Speaker:
    """Somebody to talk to: a title, and a function from a request to an answer."""

    title: str
    answer: Callable[[str], str]


def speaker(folder: Path, title: str, manner: Manner) -> Speaker:
    """Load the model in a plain Hugging Face folder.

    Raises:
        ModelError: it cannot be loaded, or not as `manner` has it.
    """
    from demur.models.chat_model import load_chat_model
    from demur.models.device import choose_device_and_dtype
    from demur.models.generation import decode_all

    chat = load_chat_model(
        folder,
        choose_device_and_dtype(manner.device, manner.dtype),
        weights=title,
        name=title,
        system=manner.system,
        thinking=manner.thinking,
        chat_template=manner.chat_template,
        trust_remote_code=manner.trust_remote_code,
    )

    def answer(request: str) -> str:
        batches = list(decode_all(chat, [chat.encode(request)], manner.tokens))
        return chat.decode(batches[0][0][1].tokens)

    return Speaker(title, answer)


def read_line() -> str:
    """Ask the user for a line; the end of the input reads as an empty one."""
    with suppress(ImportError):  # gives the line editing and a history, where it exists
        import readline  # noqa: F401
    try:
        return input("> ")
    except EOFError:
        return ""


def converse(
    speakers: Sequence[Speaker], console: Console, read: Callable[[], str] = read_line
) -> None:
    """Put each line to all speakers until an empty line, `/quit`, or the end of the input.

    Args:
        console: where the answers go; two or more speakers stand side by side.
        read: gives the user's next line.
    """
    from rich.table import Table
    from rich.text import Text

    from demur.figures import plain

    console.print("Each line is asked on its own; an empty line ends it.", style="dim")
    while (line := read().strip()) not in LEAVING:
        try:
            answers = [each.answer(line) for each in speakers]
        except DemurError as error:
            console.print(Text(f"{error.cause} {error.remedy}"), style="red")
            continue
        table = Table(box=None, pad_edge=False, show_header=len(speakers) > 1, expand=True)
        for each in speakers:
            table.add_column(Text(each.title), ratio=1, overflow="fold")
        table.add_row(*(Text(plain(text) or "(an empty answer)") for text in answers))
        console.print(table)
        console.print()
