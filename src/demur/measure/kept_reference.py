"""The reference's distributions as bytes, so that a run that was killed need not load it again."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from demur.measure.utility import Reference


def pack(reference: Reference) -> bytes:
    """Return a `Reference` as bytes."""
    import numpy as np

    lengths = [length for _, length in reference.rows]
    ids = [token for row, _ in reference.rows for token in row]
    stream = io.BytesIO()
    np.savez(
        stream,
        lengths=np.array(lengths, dtype=np.int64),
        widths=np.array([len(row) for row, _ in reference.rows], dtype=np.int64),
        ids=np.array(ids, dtype=np.int64),
        values=_joined(reference.log_probabilities, np.float32),
        candidates=_joined(reference.candidates, np.int32),
    )
    return stream.getvalue()


def unpack(kept: bytes) -> Reference:
    """Return the `Reference` that `pack` turned into bytes."""
    import numpy as np
    import torch

    with np.load(io.BytesIO(kept), allow_pickle=False) as found:
        lengths, widths = found["lengths"].tolist(), found["widths"].tolist()
        ids = found["ids"].tolist()
        values = torch.from_numpy(found["values"])
        candidates = torch.from_numpy(found["candidates"]).long()
    rows, start = [], 0
    for width, length in zip(widths, lengths, strict=True):
        rows.append((tuple(ids[start : start + width]), int(length)))
        start += width
    if not rows:
        return Reference((), (), ())
    return Reference(tuple(rows), torch.split(values, lengths), torch.split(candidates, lengths))


def _joined(parts: Sequence[Any], kind: Any) -> Any:
    import numpy as np
    import torch

    if not parts:
        return np.zeros((0, 0))
    return torch.cat(list(parts)).numpy().astype(kind)
