"""The menu after `demur align`: talk to the model before and after, read the report, save, quit.

It is shown on a terminal only. Ctrl-C, or the end of the input, leaves it quietly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from demur.errors import DemurError
from demur.interruption import heard

if TYPE_CHECKING:
    from rich.console import Console

    from demur.aligning.config import AlignConfig
    from demur.treating.treated import Outcome

CHAT, REPORT, SAVE, QUIT = "chat", "report", "save", "quit"
CHOICES = (
    (CHAT, "Chat, before and after side by side"),
    (REPORT, "Open the report"),
    (SAVE, "Save the model elsewhere"),
    (QUIT, "Quit"),
)


class Asker(Protocol):
    """Whoever is asked; Ctrl-C comes as KeyboardInterrupt, the end of the input as EOFError."""

    def choose(self, question: str, choices: Sequence[tuple[str, str]]) -> str:
        """Return the key of one of the (key, title) choices."""

    def folder(self, question: str) -> str:
        """Return the path of a folder; an empty text takes it back."""


@dataclass(frozen=True)
class Actions:
    """What the menu does; each may raise a DemurError, which is shown, and the menu goes on."""

    chat: Callable[[], None]
    report: Callable[[], None]
    save: Callable[[Path], None]


class QuestionaryAsker:
    """Asks at the terminal."""

    def choose(self, question: str, choices: Sequence[tuple[str, str]]) -> str:
        """Return the key of the choice that the user moves to and confirms."""
        import questionary

        options = [questionary.Choice(title, value=key) for key, title in choices]
        return str(questionary.select(question, options, instruction=" ").unsafe_ask())

    def folder(self, question: str) -> str:
        """Return the path that the user types, with completion."""
        import questionary

        return str(questionary.path(question, only_directories=True).unsafe_ask())


def run_menu(actions: Actions, asker: Asker, say: Callable[[str], None]) -> None:
    """Ask what to do next and do it, until the user quits.

    Args:
        say: shows a line to the user.
    """
    while True:
        try:
            choice = asker.choose("What next?", CHOICES)
            if choice == QUIT:
                return
            if choice == CHAT:
                actions.chat()
            elif choice == REPORT:
                actions.report()
            elif choice == SAVE:
                path = asker.folder("Folder to save the model in:").strip()
                if path:
                    actions.save(Path(path).expanduser())
        except (KeyboardInterrupt, EOFError):
            heard()
            return
        except DemurError as error:
            say(f"{error.cause} {error.remedy}")


def actions_of(aligned: Outcome, config: AlignConfig, console: Console) -> Actions:
    """Return what the menu can do with a finished run."""

    def chat() -> None:
        from demur.cli.conversation import Manner, converse, speaker
        from demur.models.resolve import resolve

        console.print("Loading both models ...", style="dim")
        base = resolve(
            config.model,
            revision=config.revision,
            base=config.adapter_base,
            trust_remote_code=config.trust_remote_code,
        )
        manner = Manner(
            config.device,
            config.dtype,
            config.system,
            config.thinking,
            config.chat_template,
            config.trust_remote_code,
        )
        both = [
            speaker(folder, title, manner)
            for title, folder in (("before", base.folder), ("after", aligned.model))
        ]
        converse(both, console)

    def report() -> None:
        import webbrowser

        if not webbrowser.open(aligned.report.absolute().as_uri()):
            console.print(f"No browser was found; the report is {aligned.report}.", markup=False)

    def save(target: Path) -> None:
        save_model_elsewhere(aligned.model, target)
        console.print(f"Saved in {target}.", markup=False)

    return Actions(chat, report, save)


def save_model_elsewhere(model: Path, target: Path) -> None:
    """Copy a model's folder to `target`, which is new or empty and appears whole or not at all.

    Raises:
        CheckpointError: `target` is taken, lies inside the model's folder, or cannot be written.
    """
    from demur.checkpoint.storage import copy_file, require_room, whole_folder, writing
    from demur.errors import CheckpointError

    if model.resolve() in target.resolve().parents:
        raise CheckpointError(
            f"{target} lies inside the model's own folder.", "Choose a folder outside it."
        )
    paths = sorted(path for path in model.rglob("*") if path.is_file())
    with writing(target):
        require_room(target, sum(path.stat().st_size for path in paths))
        with whole_folder(target) as temporary:
            for path in paths:
                copy = temporary / path.relative_to(model)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy_file(path, copy)
