"""One thread a process: on tiny models a second one only waits, and tests may share the cores."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in children

# Where processes share the tests, each takes a file at a time: the longest come first.
LONGEST = ("test_killed", "test_graft", "test_bench", "test_several_processes", "test_graft_killed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the longest files to the front; within them, and else, order stays."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="module")
def lenient() -> Iterator[None]:
    """Have whole runs count nonsense as an answer: `pytestmark = usefixtures("lenient")`."""
    from demur.treating import pipeline
    from tests.distill.students import Lenient

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "OpeningJudge", Lenient)
        yield
