"""Memory that was freed is kept for the next tensor, on Linux with glibc.

Tensors of a forward pass are larger than what glibc keeps by default: each is mapped anew, its
pages are cleared by the kernel one by one, and given back a moment later. Keeping them costs
nothing but the peak, which the next forward pass reaches anyway (benchmarks/memory.py). Between
work of different shapes it is given back, or each kind would leave its own peak behind.
"""

from __future__ import annotations

import ctypes
import gc
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
LARGEST = 1 << 30


def keep_freed_memory() -> bool:
    """Have the allocator keep what is freed; return whether this system's allocator can."""
    if not _has_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGEST) and mallopt(TRIM_THRESHOLD, LARGEST))


def give_back_freed_memory() -> bool:
    """Have the allocator give back what is free now; return whether it had anything to give."""
    gc.collect()
    return _has_glibc() and bool(ctypes.CDLL(None).malloc_trim(0))


def _has_glibc() -> bool:
    return platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
