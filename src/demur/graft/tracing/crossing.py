"""A donor's modules in the recipient: what each does to refusal, alone, and to harmless requests.

    donated = Donated(recipient, donor, anatomy)
    for block in blocks_of(anatomy, ["mlp", "attention"]):
        with donated(block):
            margins = harmful.from_layer(block.first)

The effect of a block on a set of prompts is the change of their mean margin when the donor's
values take the place of the recipient's; its *selectivity* is the effect on harmful requests less
that on their benign twins. A block that is selective carries refusal; one that is not carries
saying no. The other way round, the recipient's modules in the donor, shows what refusal cannot do
without. `attributed` gives all effects to first order (Syed et al. 2023, arXiv 2310.10348, there
of activations): the gradient of the margin with respect to a weight, times what the donor would
change it by, summed over a module; one backward pass a set of prompts serves all modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demur.errors import ModelError
from demur.graft.margin import RefusalMargin
from demur.graft.tracing.effects import mean_of
from demur.models.anatomy import ATTENTION, MLP, Anatomy, Module, assign, select
from demur.stats import Mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GROUPED: dict[str, tuple[str, ...]] = {"mlp": MLP, "attention": ATTENTION}


@dataclass(frozen=True)
class Block:
    """Modules that are put over together: one, or all of a kind in a window of layers.

    Attributes:
        kind: of the modules, or `mlp` or `attention` for all of those.
        layer: the middle of the window.
        first: its lowest layer.
        modules: what is put over.
    """

    kind: str
    layer: int
    first: int
    modules: tuple[Module, ...]

    @property
    def name(self) -> str:
        """How users and reports call it, such as `layers.7.mlp`."""
        return f"layers.{self.layer}.{self.kind}"


def blocks_of(anatomy: Anatomy, kinds: Sequence[str], window: int = 1) -> tuple[Block, ...]:
    """Return a block for every kind and layer that has modules of it, layer by layer.

    Args:
        kinds: modules' kinds, `mlp` or `attention`.
        window: layers around one whose modules go together.
    """
    count = len(anatomy.layers)
    found = []
    for layer in range(count):
        first, stop = max(0, layer - window // 2), min(count, layer + (window + 1) // 2)
        for kind in kinds:
            wanted = GROUPED.get(kind, (kind,))
            modules = tuple(
                module
                for module in anatomy.modules
                if first <= module.layer < stop and module.kind in wanted
            )
            if modules:
                found.append(Block(kind, layer, first, modules))
    return tuple(found)


class Donated:
    """Puts modules of a donor into a recipient for as long as a context is open.

    Args:
        recipient, donor: transformers models of the same shapes.
        anatomy: of both.

    Raises:
        ModelError: a tensor of the recipient's modules is missing in the donor, or has another
            shape there.
    """

    def __init__(self, recipient: Any, donor: Any, anatomy: Anatomy) -> None:
        self.recipient = dict(recipient.named_parameters(remove_duplicate=False))
        self.donor = dict(donor.named_parameters(remove_duplicate=False))
        for module in anatomy.modules:
            for part in module.memory:
                theirs = self.donor.get(part.tensor)
                if theirs is None or theirs.shape != self.recipient[part.tensor].shape:
                    raise ModelError(
                        f"{module.name} of the donor does not fit the recipient's.",
                        "Trace across two models of the same family and size.",
                    )

    @contextmanager
    def __call__(self, block: Block) -> Iterator[None]:
        """Hold the donor's values in a block's modules, then put the old bits back."""
        import torch

        parts = [part for module in block.modules for part in module.memory]
        names = dict.fromkeys(part.tensor for part in parts)
        with torch.no_grad():
            kept = {name: self.recipient[name].detach().clone() for name in names}
            for part in parts:
                theirs = self.donor[part.tensor].detach().to(self.recipient[part.tensor].dtype)
                assign(self.recipient[part.tensor], part, select(theirs, part))
        try:
            yield
        finally:
            with torch.no_grad():
                for name, before in kept.items():
                    self.recipient[name].copy_(before)


def crossed(donated: Donated, blocks: Sequence[Block], margin: RefusalMargin) -> Iterator[Any]:
    """Yield (requests,) margins for each block, as it alone is the donor's.

    Args:
        margin: which remembers the recipient as it is (`RefusalMargin.remember`).
    """
    for block in blocks:
        with donated(block):
            yield margin.from_layer(block.first)


def attributed(
    donated: Donated, modules: Sequence[Module], margin: RefusalMargin
) -> NDArray[np.float64]:
    """Return (requests, modules) first-order effects on the margins, in nats.

    Only one tensor's gradient is held at a time, beside the graph. Gradients of weights are sums
    over the rows of a batch, so that requests of one batch all get their mean: let the margin have
    one row a batch where they are to be told apart, and as many as fit where only the mean counts.
    """
    import numpy as np
    import torch

    parts: dict[str, list[tuple[int, Any]]] = {}
    for number, module in enumerate(modules):
        for part in module.memory:
            parts.setdefault(part.tensor, []).append((number, part))
    effects = np.zeros((len(margin.requests), len(modules)))
    row = np.zeros(len(modules))

    def take(name: str) -> Any:
        def reduce(parameter: Any) -> None:
            away = donated.donor[name].detach().to(parameter.device).float() - parameter.detach()
            for number, part in parts[name]:
                gradient = select(parameter.grad, part).float()
                row[number] += float((gradient * select(away, part)).sum())
            parameter.grad = None

        return reduce

    tensors: Mapping[str, Any] = {name: donated.recipient[name] for name in parts}
    before = {name: tensor.requires_grad for name, tensor in tensors.items()}
    hooks = []
    try:
        for name, tensor in tensors.items():
            tensor.requires_grad_(True)
            hooks.append(tensor.register_post_accumulate_grad_hook(take(name)))
        with torch.enable_grad():
            for indices, margins in margin.differentiable():
                row[:] = 0
                margins.sum().backward()
                effects[indices] = row / len(indices)
    finally:
        for hook in hooks:
            hook.remove()
        for name, tensor in tensors.items():
            tensor.requires_grad_(before[name])
            tensor.grad = None
    return effects


@dataclass(frozen=True)
class Crossing:
    """What one block of the one model does in the other.

    Attributes:
        kind, layer: of the block.
        parameters: how many numbers it holds.
        harmful, benign: change of the margin on harmful requests and on their twins, in nats.
        selectivity: the one less the other, pair by pair.
    """

    kind: str
    layer: int
    parameters: int
    harmful: Mean
    benign: Mean
    selectivity: Mean


def crossing_of(block: Block, harmful: Any, benign: Any, seed: int = 0) -> Crossing:
    """Return a block's effects, given the changes of the margins of pairs, in the same order."""
    return Crossing(
        block.kind,
        block.layer,
        sum(module.parameters for module in block.modules),
        mean_of(harmful, seed),
        mean_of(benign, seed),
        mean_of(harmful - benign, seed),
    )
