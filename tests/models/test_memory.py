"""The allocator's setting: made where it can be, harmless elsewhere."""

import platform

from demur.models import memory


def test_it_is_made_on_glibc_alone(monkeypatch):
    assert memory.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert not memory.keep_freed_memory()
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not memory.keep_freed_memory()
