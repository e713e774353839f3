"""The most memory that a process held since it was last asked, where the system can say."""

from __future__ import annotations

import resource
from pathlib import Path

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
RESET_PEAK = "5"


def reset_peak_memory() -> None:
    """Forget the peak so far: of resident memory on Linux, and of a GPU's."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if CLEAR.exists():
        CLEAR.write_text(RESET_PEAK, encoding="ascii")


def peak_memory() -> int:
    """Return the peak in bytes, a GPU's and the process's together.

    Where the system does not count anew, it is the peak of the whole process.
    """
    import torch

    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    if STATUS.exists():
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return on_gpu + int(line.split()[1]) * 1024
    return on_gpu + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
