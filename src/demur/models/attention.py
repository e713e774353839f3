"""How attention is computed while training: on CPUs in bfloat16, brief rows are written out.

PyTorch's fused attention saves memory that brief rows do not need, and with it a training step in
that format takes a seventh to a quarter longer than with plain products
(`benchmarks/attention.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BRIEF = 128  # tokens of a row, up to which plain products are quicker


@contextmanager
def quick_attention(model: Any, longest: int) -> Iterator[None]:
    """Compute attention as is quickest forward and back, for as long as the context is open.

    A model that does not compute attention by PyTorch's own function is left as it is.

    Args:
        model: of transformers, or wrapped by PEFT.
        longest: tokens of the longest row.
    """
    import torch

    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    fused = getattr(plain.config, "_attn_implementation", None) == "sdpa"
    slow = plain.device.type == "cpu" and plain.dtype == torch.bfloat16
    if not (fused and slow and longest <= BRIEF):
        yield
        return
    plain.set_attn_implementation("eager")
    try:
        yield
    finally:
        plain.set_attn_implementation("sdpa")
