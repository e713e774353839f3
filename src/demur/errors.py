"""What can go wrong for a user, said in two sentences: the cause, and the remedy.

Every error that a user can meet derives from `DemurError`. The command line prints its two
sentences and ends with its exit code; nothing else is ever shown, and no traceback.
"""

from __future__ import annotations


class DemurError(Exception):
    """A problem that the user can solve.

    Args:
        cause: one sentence that says what is wrong.
        remedy: one sentence that says what to do about it.
    """

    exit_code = 2

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause} {remedy}")
        self.cause = cause
        self.remedy = remedy


class ConfigError(DemurError):
    """A choice has a value that makes no sense."""


class ModelError(DemurError):
    """The model cannot be found, read or understood."""


class CheckpointError(DemurError):
    """A checkpoint or a patch on disk is broken, or is not the one that was meant."""


class PromptError(DemurError):
    """A set of prompts cannot be found, read or understood."""


class EndpointError(DemurError):
    """A model behind an endpoint cannot be asked, or may not be asked any more."""


class JudgeError(DemurError):
    """There is no such judge, or what it is to be scored against cannot be used."""


class RunError(DemurError):
    """A run folder is in use, belongs to another configuration, or has no room on disk."""


class TrainingError(DemurError):
    """Training cannot start, or came out with numbers that are no numbers."""


class Interrupted(DemurError):
    """The user pressed Ctrl-C; everything finished so far is kept."""

    exit_code = 130
