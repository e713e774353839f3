"""Narration: what demur tells a person while it works, on stderr and in the run's log.

Standard output stays free for results, so that `--json` prints one object and nothing else.
On a terminal progress is a bar with time left; elsewhere it is a line now and then.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from demur.interruption import stop_if_wanted

Advance = Callable[[int], None]
SECONDS_BETWEEN_LINES = 20.0


class Narrator:
    """Speaks to the user; keeps every line in a log once `log_to` has been called."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.started = time.monotonic()
        self._log: Path | None = None
        self._early: list[str] = []

    def log_to(self, path: Path) -> None:
        """Keep all lines, those already said too, in the file at `path`."""
        self._log = path
        for line in self._early:
            self._keep(line)
        self._early.clear()

    def _keep(self, line: str) -> None:
        if self._log is None:
            self._early.append(line)
            return
        with self._log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def say(self, text: str) -> None:
        """Say one line."""
        self.console.print(text, markup=False)
        self._keep(text)

    def log_only(self, text: str) -> None:
        """Keep a line in the log without showing it."""
        self._keep(text)

    def heading(self, text: str) -> None:
        """Say what begins now."""
        self.console.print(f"\n{text}", style="bold", markup=False)
        self._keep(f"== {text}")

    def table(self, table: Table) -> None:
        """Show a table; the log keeps its plain text."""
        self.console.print(table)
        plain = Console(width=110, file=io.StringIO(), color_system=None)
        with plain.capture() as captured:
            plain.print(table)
        self._keep(captured.get().rstrip("\n"))

    @contextmanager
    def progress(self, description: str, total: int | None) -> Iterator[Advance]:
        """Show how far `total` units of work are; yields the function that counts them.

        Args:
            total: None where nobody can know it; then no time left is foretold.
        """
        begun, done = time.monotonic(), 0
        if total == 0:
            yield lambda count: None
            return

        def count_with(show: Advance) -> Advance:
            def advance(count: int) -> None:
                nonlocal done
                stop_if_wanted()
                done += count
                show(done)

            return advance

        if self.console.is_terminal:
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                *(() if total is None else (TextColumn("left"), TimeRemainingColumn())),
            )
            with Progress(*columns, console=self.console, transient=True) as bar:
                task = bar.add_task(description, total=total)

                def show(now: int) -> None:
                    bar.update(task, completed=now)

                yield count_with(show)
        else:
            yield count_with(self._lines(description, total))
        seconds = time.monotonic() - begun
        self.say(f"  {description}: {done if total is None else total} in {seconds:.0f} s")

    def _lines(self, description: str, total: int | None) -> Advance:
        """Return what says, now and then, how many units are done."""
        begun = last = time.monotonic()

        def show(done: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last <= SECONDS_BETWEEN_LINES or done == 0:
                return
            if total is None:
                last = now
                self.say(f"  {description}: {done} so far")
            elif done < total:
                last = now
                left = (now - begun) / done * (total - done)
                self.say(f"  {description}: {done} of {total}, about {left:.0f} s left")

        return show


def is_interactive() -> bool:
    """Whether a person sits at both ends: questions may be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()
