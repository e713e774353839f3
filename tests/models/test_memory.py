"""The allocator's setting: made where it can be, harmless elsewhere."""

import os
import platform
from pathlib import Path

import pytest
import torch

from demur.models import memory


def test_it_is_made_on_glibc_alone(monkeypatch):
    assert memory.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert not memory.keep_freed_memory()
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not memory.keep_freed_memory()
    assert not memory.give_back_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_kept_until_it_is_given_back():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    memory.keep_freed_memory()
    memory.give_back_freed_memory()
    before = resident()
    large = [torch.ones(1 << 22) for _ in range(12)]  # 16 MiB each
    full = resident()
    del large
    kept = resident()
    assert memory.give_back_freed_memory()
    assert full - before > 150e6
    assert full - kept < 60e6
    assert resident() - before < 60e6
