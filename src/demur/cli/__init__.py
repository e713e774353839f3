"""The command line: `demur align MODEL`, and what is done with the result.

    demur align smollm2-135m

Each command parses, calls a room, and prints: results on standard output, narration on standard
error. Exit codes: 0 done, 2 an error that the user can solve, 130 interrupted (the same command
continues).
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError, UnusedCliTokensError

from demur import interruption
from demur.cli import align, bench, distill, graft, judge, measure, study, trace
from demur.cli.app import app, print_json
from demur.errors import DemurError, Interrupted, RunError
from demur.quiet import hush

__all__ = [
    "align",
    "app",
    "bench",
    "distill",
    "entry",
    "graft",
    "judge",
    "main",
    "measure",
    "study",
    "trace",
]

INTERRUPTED = Interrupted.exit_code
MEMORY_IS_FULL = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; nothing here ends in a traceback.

    Args:
        arguments: what follows the program's name; by default those of this process.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    hush()
    interruption.listen()
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return 0
    except DemurError as error:
        return _fail(error, "--json" in tokens)
    except CycloptsError as error:
        return _fail(_usage_error(error), "--json" in tokens)
    except KeyboardInterrupt:
        return _fail(
            Interrupted("Interrupted.", "Give the same command again."), "--json" in tokens
        )
    except BrokenPipeError:
        # the reader has gone; what Python flushes at its end must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = RunError(
            f"There is no room left on the disk ({error}).",
            "Make room and run the same command again: it continues.",
        )
        return _fail(full, "--json" in tokens)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        return _fail(_out_of_memory(error), "--json" in tokens)


def entry() -> None:
    """Run the command line and end the process with its exit code."""
    code = main()
    if code == INTERRUPTED:
        # Python would end itself by SIGINT where the interrupt passed through some C frames
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _fail(error: DemurError, json: bool) -> int:
    begin = "" if isinstance(error, Interrupted) else "error: "
    print(f"{begin}{error.cause}\n{error.remedy}", file=sys.stderr)
    if json:
        print_json({"error": error.cause, "remedy": error.remedy})
    return error.exit_code


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether there was no memory; CUDA's libraries have words of their own for it."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in MEMORY_IS_FULL)


def _out_of_memory(error: Exception) -> RunError:
    reason = (str(error).strip() or "of Python").splitlines()[0].rstrip(".")
    return RunError(
        f"The memory is full ({reason}).",
        "Give the same command again with less beside it, or with --device cpu: it continues. "
        "Training takes less with a smaller --micro-batch.",
    )


def _usage_error(error: CycloptsError) -> DemurError:
    """Return what cyclopts found wrong with the arguments, in our two sentences."""
    error.verbose = False
    command = " ".join(("demur", *(error.command_chain or ())))
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        cause = f"There is no use for {' '.join(map(repr, error.unused_tokens))}."
    else:
        cause = " ".join(str(error).split())
    return DemurError(cause, f"See `{command} --help`.")
