"""A wish to stop: Ctrl-C, or `kill`. It raises KeyboardInterrupt, and is not lost where that is.

Python raises it wherever the program happens to be. Inside a finaliser, or a callback that a
library calls from C, such an exception is printed and forgotten; then the next step of progress
raises it again.
"""

from __future__ import annotations

import signal
from types import FrameType

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
