"""One thread a process: on tiny models a second one only waits, and tests may share the cores."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in children
