"""A wish to stop: Ctrl-C, or `kill`. It raises KeyboardInterrupt, and is not lost where that is.

Python raises it wherever the program happens to be. Inside a finaliser, or a callback that a
library calls from C, such an exception is printed and forgotten; then the next step of progress
raises it again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from demur.errors import Interrupted

_wanted = False


def listen() -> None:
    """Take SIGINT and SIGTERM as a wish to stop, from now on.

    kill's default signal is a wish to stop, as Ctrl-C is: the journal and locks are left in order.
    A signal that the parent had ignored (a job in the background, nohup) stays ignored.
    """
    heard()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    global _wanted
    _wanted = True
    raise KeyboardInterrupt


def heard() -> None:
    """Forget the wish: it has been answered."""
    global _wanted
    _wanted = False


def stop_if_wanted() -> None:
    """Raise what may have been lost.

    Raises:
        KeyboardInterrupt: a signal came, and nobody has answered it.
    """
    if _wanted:
        raise KeyboardInterrupt


@contextmanager
def resumable() -> Iterator[None]:
    """Hold the work of a verb whose run folder goes on with what it has.

    Raises:
        Interrupted: the user wished to stop.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            "Interrupted; everything finished so far is kept.",
            "Run the same command again to continue.",
        ) from interrupt
