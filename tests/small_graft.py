"""Relatives that refuse a few brief prompts, and the files of these: for whole runs in seconds."""

from __future__ import annotations

import json
from pathlib import Path

from demur.prompts.builtin import builtin_set
from tests.relatives import Relatives, make_refusing


def prepare(folder: Path) -> Relatives:
    """Write harmful.jsonl, ordinary.jsonl and the relatives, in `family`, into `folder`.

    The donor has seen all the prompts: so small a model tells apart only what it has seen, and how
    well a donor was taught is not what is tested. Training takes a time that grows with their
    length.
    """
    brief = {
        kind: sorted((prompt.text for prompt in builtin_set().of(kind)), key=len)
        for kind in ("harmful", "ordinary")
    }
    asked, ordinary = brief["harmful"][:200:8], brief["ordinary"][:60:5]
    for name, texts in (("harmful", asked), ("ordinary", ordinary)):
        lines = "".join(json.dumps({"prompt": one}) + "\n" for one in texts)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return make_refusing(folder / "family", steps=100, harmful=asked, benign=ordinary, rank=4)
