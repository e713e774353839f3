"""What each submodule of one decoder layer is: a projection, a norm, a router, experts.

The words below are those that projections are called by across architectures; what a name says is
believed only if its weight maps between the widths that such a projection must map between.
Whatever holds a matrix and is not understood is an error, never a guess.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from demur.errors import ModelError
from demur.models.anatomy.fused import Places, Unclear, gate_and_up, queries_keys_values
from demur.models.anatomy.parts import part_elements, whole
from demur.models.anatomy.types import Kind, Layer, Part

ATTENTION_WORDS: dict[str, tuple[Kind, ...]] = {
    "q_proj": ("q",), "k_proj": ("k",), "v_proj": ("v",),
    "qkv_proj": ("q", "k", "v"), "query_key_value": ("q", "k", "v"),
    "Wqkv": ("q", "k", "v"), "c_attn": ("q", "k", "v"),
    "o_proj": ("o",), "out_proj": ("o",), "dense": ("o",), "c_proj": ("o",),
}  # fmt: skip
MLP_WORDS: dict[str, tuple[Kind, ...]] = {
    "gate_proj": ("gate",), "gate_up_proj": ("gate", "up"),
    "up_proj": ("up",), "c_fc": ("up",), "dense_h_to_4h": ("up",), "fc1": ("up",),
    "down_proj": ("down",), "c_proj": ("down",), "dense_4h_to_h": ("down",), "fc2": ("down",),
}  # fmt: skip
NEEDED: tuple[Kind, ...] = ("up", "down", "q", "k", "v", "o")
OUTWARD: tuple[Kind, ...] = ("down", "o")
# What must be as wide as what: a projection's output or input, and another's.
AGREEING: tuple[tuple[Kind, str, Kind, str], ...] = (
    ("q", "outer", "o", "inner"),
    ("k", "outer", "v", "outer"),
    ("up", "outer", "down", "inner"),
    ("gate", "outer", "down", "inner"),
)


@dataclass
class Found:
    """What one layer has of one kind, as it is collected.

    Attributes:
        parts: of the model's parameters.
        paths: the submodules that hold them.
        output: their places in the output of the last of these, or None.
        parameters: how many numbers they are.
        transposed: whether their matrices are stored as (in, out).
        inner, outer: what each matrix takes in and gives out.
    """

    parts: list[Part] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    output: Part | None = None
    parameters: int = 0
    transposed: bool = False
    inner: set[int] = field(default_factory=set)
    outer: set[int] = field(default_factory=set)


class LayerReader:
    """Reads one decoder layer, submodule by submodule.

    Args:
        block: the layer's module, whose weights may be on the meta device.
        path: its name in the model.
        hidden: numbers in the residual stream.
        heads: how many heads ask.

    Raises:
        ModelError: something in it was not understood; it is named.
    """

    def __init__(self, block: Any, path: str, hidden: int, heads: int) -> None:
        self.path = path
        self.found: dict[Kind, Found] = {}
        self._hidden, self._heads = hidden, heads
        attention = _child(block, path, "attention", ATTENTION_WORDS, "q")
        mlp = _child(block, path, "MLP", MLP_WORDS, "up")
        self._attention, self._mlp = block.get_submodule(attention), block.get_submodule(mlp)
        self._prefix = {"attention": f"{path}.{attention}.", "mlp": f"{path}.{mlp}."}
        self._experts = _count_experts(self._mlp)
        leaves = [
            (f"{path}.{name}", leaf, own)
            for name, leaf in block.named_modules()
            if (own := dict(leaf.named_parameters(recurse=False)))
        ]
        # The output projection comes first: its input tells how wide the heads are.
        for name, leaf, own in sorted(leaves, key=lambda one: self._kinds(one[0]) != ("o",)):
            self._read(name, leaf, own)
        self._check()

    @property
    def layer(self) -> Layer:
        """The layer's submodules, for hooks."""
        attention = self._contribution("attention", self._attention, "o")
        return Layer(self.path, attention, self._contribution("mlp", self._mlp, "down"))

    def _contribution(self, what: str, module: Any, last: Kind) -> str:
        """Return the submodule whose output is added to the residual stream.

        Some (MPT's MLP, Bloom's attention) are handed the residual and add to it themselves; of
        these it is the last projection.
        """
        if "residual" in inspect.signature(module.forward).parameters:
            return self.found[last].paths[-1]
        return self._prefix[what].removesuffix(".")

    def _kinds(self, name: str) -> tuple[Kind, ...]:
        """Return what a submodule's name says that it is."""
        word = name.rsplit(".", 1)[-1]
        if name.startswith(self._prefix["attention"]):
            return ATTENTION_WORDS.get(word, ())
        return MLP_WORDS.get(word, ()) if name.startswith(self._prefix["mlp"]) else ()

    def _read(self, name: str, leaf: Any, own: Mapping[str, Any]) -> None:
        if all(one.dim() < 2 for one in own.values()):
            # Numbers other than norms' (attention sinks, say) are no matrix, and of no module.
            if "norm" in type(leaf).__name__.lower():
                self._add_norm(name, own)
        elif any(one.dim() == 3 for one in own.values()) and name.startswith(self._prefix["mlp"]):
            self._add_experts(name, leaf, own)
        elif kinds := self._kinds(name):
            self._add_projection(name, leaf, kinds, own)
        elif name.startswith(self._prefix["mlp"]) and self._routes(own):
            self._add_router(name, leaf, own)
        else:
            raise self._unknown(name, leaf, "it is no projection, norm or router that is known")

    def _add(self, kind: Kind, name: str, part: Part, parameter: Any) -> Found:
        found = self.found.setdefault(kind, Found())
        found.parts.append(part)
        found.parameters += part_elements(parameter.shape, part)
        if name not in found.paths:
            found.paths.append(name)
        return found

    def _add_norm(self, name: str, own: Mapping[str, Any]) -> None:
        for key, one in own.items():
            if one.dim() == 1:
                found = self._add("norm", name, whole(f"{name}.{key}", len(one)), one)
                found.output = whole(name, len(one), -1)

    def _routes(self, own: Mapping[str, Any]) -> bool:
        """Whether a matrix gives each expert, or the shared one, a number."""
        weight = own.get("weight")
        fits = weight is not None and tuple(weight.shape) in (
            (1, self._hidden),
            (self._experts, self._hidden),
        )
        return self._experts > 0 and fits

    def _add_router(self, name: str, leaf: Any, own: Mapping[str, Any]) -> None:
        import torch

        for key, one in own.items():
            found = self._add("router", name, whole(f"{name}.{key}", len(one)), one)
            found.output = whole(name, len(one), -1) if isinstance(leaf, torch.nn.Linear) else None

    def _add_projection(
        self, name: str, leaf: Any, kinds: tuple[Kind, ...], own: Mapping[str, Any]
    ) -> None:
        """Note a projection, or several in one matrix."""
        import torch
        from transformers.pytorch_utils import Conv1D

        transposed = isinstance(leaf, Conv1D)
        if not (transposed or isinstance(leaf, torch.nn.Linear)) or own.keys() - {"weight", "bias"}:
            raise self._unknown(name, leaf, "it is not a plain linear layer")
        weight = own["weight"]
        if not weight.is_floating_point():
            raise self._unknown(name, leaf, f"its weights are {weight.dtype}, so quantised")
        dim = 1 if transposed else 0
        inner, outer = weight.shape[1 - dim], weight.shape[dim]
        for kind, places in self._places(name, leaf, kinds, outer).items():
            for key, one in own.items():
                part = Part(f"{name}.{key}", dim if key == "weight" else 0, *places, outer)
                self._add(kind, name, part, one)
            found = self.found[kind]
            found.transposed, found.output = transposed, Part(name, -1, *places, outer)
            found.inner.add(inner)
            found.outer.add(outer // places.period * (places.stop - places.start))

    def _places(
        self, name: str, leaf: Any, kinds: tuple[Kind, ...], outer: int
    ) -> dict[Kind, Places]:
        if len(kinds) == 1:
            return {kinds[0]: Places(outer, 0, outer)}
        if kinds == ("gate", "up"):
            return gate_and_up(outer)
        inner = max(self.found["o"].inner) if "o" in self.found else 0
        try:
            return queries_keys_values(self._attention, outer, inner, self._heads)
        except Unclear as error:
            raise self._unknown(name, leaf, str(error)) from error

    def _add_experts(self, name: str, leaf: Any, own: Mapping[str, Any]) -> None:
        """Note all experts' projections, which lie in 3-D parameters (expert, out, in)."""
        transposed = getattr(leaf, "is_transposed", None)
        concatenated = getattr(leaf, "is_concatenated", None)
        if transposed is None or concatenated is None:
            raise self._unknown(name, leaf, "it does not say how its experts are laid out")
        for key, one in own.items():
            word = key.removesuffix("_bias")
            kinds = MLP_WORDS.get(word)
            bias = word != key
            if kinds is None or one.dim() != (2 if bias else 3):
                raise self._unknown(name, leaf, f"its {key} of {list(one.shape)} is not known")
            dim = 2 if transposed and not bias else 1
            outer = one.shape[dim]
            if len(kinds) == 1:
                places = {kinds[0]: Places(outer, 0, outer)}
            else:
                places = gate_and_up(outer, interleaved=not concatenated)
            for kind, each in places.items():
                found = self._add(kind, name, Part(f"{name}.{key}", dim, *each, outer), one)
                found.transposed = bool(transposed)
                if not bias:
                    found.inner.add(one.shape[3 - dim])
                    found.outer.add(outer // each.period * (each.stop - each.start))

    def _check(self) -> None:
        """Check that what was found is whole, and maps between the widths that it must."""
        missing = [kind for kind in NEEDED if kind not in self.found]
        if missing:
            raise ModelError(
                f"{self.path} has no {' and no '.join(missing)} projection that was understood.",
                "This architecture is not known yet; open an issue with this line.",
            )
        for kind, found in self.found.items():
            if not found.inner:
                continue
            widths = found.outer if kind in OUTWARD else found.inner
            if widths != {self._hidden}:
                raise self._misfit(kind, f"{sorted(widths)} where {self._hidden} belong")
        for kind, side, other, other_side in AGREEING:
            if kind in self.found:
                mine = getattr(self.found[kind], side)
                theirs = getattr(self.found[other], other_side)
                if mine != theirs:
                    raise self._misfit(kind, f"{sorted(mine)} where {other} has {sorted(theirs)}")

    def _misfit(self, kind: Kind, reason: str) -> ModelError:
        return ModelError(
            f"{', '.join(self.found[kind].paths[:2])} was taken for the {kind} projection, but "
            f"its width is {reason}.",
            "This architecture is not known yet; open an issue with this line.",
        )

    def _unknown(self, name: str, leaf: Any, reason: str) -> ModelError:
        return ModelError(
            f"{name} ({type(leaf).__name__}) was not understood: {reason}.",
            "Use a plain, unquantised model of a known architecture, or open an issue with this "
            "line.",
        )


def _child(
    block: Any, path: str, what: str, words: Mapping[str, tuple[Kind, ...]], sign: Kind
) -> str:
    """Return the name of the layer's one submodule that holds a projection of kind `sign`."""
    telling = {word for word, kinds in words.items() if sign in kinds}
    children = dict(block.named_children())
    holders = [
        str(name)
        for name, child in children.items()
        if any(telling & set(one.split(".")) for one, _ in child.named_parameters())
    ]
    if len(holders) == 1:
        return holders[0]
    inside = ", ".join(f"{name} ({type(one).__name__})" for name, one in children.items())
    raise ModelError(
        f"Of {path} ({type(block).__name__}), which holds {inside or 'nothing'}, "
        f"{len(holders) or 'no'} submodules look like an {what}, where one must.",
        "This architecture is not known yet; open an issue with this line.",
    )


def _count_experts(mlp: Any) -> int:
    """Return how many experts an MLP has, or 0 if it has none."""
    import torch

    for name, module in mlp.named_modules():
        if name.endswith("experts"):
            if isinstance(module, torch.nn.ModuleList):
                return len(module)
            stacked = [one for one in module.parameters(recurse=False) if one.dim() == 3]
            if stacked:
                return int(stacked[0].shape[0])
    return 0
