"""What each module's change does to refusal, to first order: one backward pass for all modules.

    effects = first_order(oracle, oracle.deltas.changed)

The effect of a module is the slope of the refusal margin along the donor's change of it (gradient
times difference; Syed et al. 2023, arXiv 2310.10348, there of activations). It is taken halfway
between recipient and graft, where the slopes of all modules together come closest to what the whole
change does (the midpoint rule of integrated gradients, Sundararajan et al. 2017): at the recipient
itself refusals may be so unlikely that nothing moves them. The margin is that of the first token,
as in `first_tokens`, with sums of probabilities in place of the likeliest; the effect counts what
it does on harmful requests less what it does on their twins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from demur.graft.candidate import Candidate
from demur.models.batch import Batch
from demur.models.forward import accepted, last_positions

if TYPE_CHECKING:
    from demur.graft.deltas import Piece
    from demur.graft.oracle import Oracle

HALFWAY = 0.5
ROWS = 16


def first_order(
    oracle: Oracle, modules: Sequence[str], count: int = ROWS
) -> tuple[tuple[str, float], ...]:
    """Return the modules with their effects, in logits, the largest first.

    Args:
        modules: names of modules that the donor changed.
        count: how many prompts of each kind are read.

    Raises:
        ModelError: a module cannot be tried in memory.
    """
    import torch

    whole = Candidate(frozenset(modules))
    prompts = {kind: oracle.places[kind][:count] for kind in ("harmful", "twins")}
    refusing = sorted(oracle.first_tokens.refusing)
    model = oracle.chat.model
    oracle.bench.move(Candidate(frozenset(modules), HALFWAY))
    pieces = {name: [one for one in oracle.deltas[name].pieces if one.changed] for name in modules}
    tensors = {
        piece.memory.tensor: model.get_parameter(piece.memory.tensor)
        for found in pieces.values()
        for piece in found
        if piece.memory is not None
    }
    before = {name: tensor.requires_grad for name, tensor in tensors.items()}
    try:
        for tensor in tensors.values():
            tensor.requires_grad_(True)
        with torch.enable_grad():
            for kind, sign in (("harmful", 1.0), ("twins", -1.0)):
                places = prompts[kind]
                for start in range(0, len(places), ROWS):
                    rows = [
                        oracle.chat.encode(oracle.texts[place])
                        for place in places[start : start + ROWS]
                    ]
                    margins = _margins(model, rows, refusing)
                    (sign * margins.sum() / len(places)).backward()
        effects = {
            name: sum(_along(oracle, whole, piece, tensors) for piece in found)
            for name, found in pieces.items()
        }
    finally:
        for name, tensor in tensors.items():
            tensor.requires_grad_(before[name])
            tensor.grad = None
        oracle.bench.move(None)
    return tuple(sorted(effects.items(), key=lambda one: -one[1]))


def _margins(model: Any, rows: Sequence[Sequence[int]], refusing: Sequence[int]) -> Any:
    """Return (rows,) log-odds of beginning with a refusing token, with their graph."""
    batch = Batch(model, rows, 0, None)
    told = accepted(model, position_ids=batch.positions, use_cache=False)
    logits = model(
        batch.ids,
        attention_mask=batch.mask,
        **told,
        **last_positions(model, batch.ids.shape[1]),
    ).logits[:, -1]
    chosen = logits.float().log_softmax(-1)[:, refusing].logsumexp(-1)
    return chosen - (-chosen.exp()).log1p()


def _along(oracle: Oracle, whole: Candidate, piece: Piece, tensors: dict[str, Any]) -> float:
    """Return the slope along one part's change."""
    import torch

    from demur.models.anatomy import select

    if piece.memory is None or tensors[piece.memory.tensor].grad is None:
        return 0.0
    gradient = select(tensors[piece.memory.tensor].grad, piece.memory).float().cpu()
    factors = whole.factors(piece)
    if factors is None:
        change = torch.from_numpy(oracle.deltas.whole(piece.disk)).float()
        return float((gradient * change).sum())
    up, down = (torch.from_numpy(factor) for factor in factors)
    return float(((up.T @ gradient) * down).sum())
