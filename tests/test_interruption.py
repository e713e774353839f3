"""A signal that arrives where Python forgets exceptions still stops the program."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from demur import interruption
from tests.small_run import ENVIRONMENT, heed_interrupts

LOST_IN_A_FINALISER = """
import os, signal, sys
from demur import cli
from demur.console import Narrator
from demur.cli.app import app

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000): pass

@app.command
def work():
    with Narrator().progress("work", 3) as advance:
        Deaf()
        print("the exception is lost", flush=True)
        advance(1)
        print("this is never reached", flush=True)

sys.argv = ["demur", "work"]
cli.entry()
"""

DURING_A_COMMAND = """
import os, signal, sys
from demur import cli
from demur.cli.app import app

@app.command
def work():
    os.kill(os.getpid(), signal.SIGINT)
    print("this is never reached")

sys.argv = ["demur", "work"]
cli.entry()
"""


def ended(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=heed_interrupts,
    )


def test_a_signal_lost_in_a_finaliser_stops_the_next_step() -> None:
    done = ended(LOST_IN_A_FINALISER)
    assert done.returncode == 130, done.stderr
    assert "the exception is lost" in done.stdout
    assert "never reached" not in done.stdout
    assert "Interrupted." in done.stderr


def test_an_interrupt_ends_with_130() -> None:
    done = ended(DURING_A_COMMAND)
    assert done.returncode == 130, done.stderr
    assert done.stdout == ""


def test_a_wish_is_forgotten_once_answered() -> None:
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        interruption.listen()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            interruption.stop_if_wanted()
        interruption.heard()
        interruption.stop_if_wanted()
    finally:
        interruption.heard()
        for number, handler in former.items():
            signal.signal(number, handler)


def test_an_ignored_signal_stays_ignored() -> None:
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    term = signal.getsignal(signal.SIGTERM)
    try:
        interruption.listen()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)
        signal.signal(signal.SIGTERM, term)
