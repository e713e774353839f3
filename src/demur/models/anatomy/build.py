"""The anatomy of a transformers model: every layer's modules, in memory and on disk.

    anatomy = anatomy_of(chat.model, open_checkpoint(chat.folder))

Only shapes, classes and names are read, so that a model on the meta device will do.
"""

from __future__ import annotations

import math
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from demur.errors import ModelError
from demur.models.anatomy.names import DiskNames, saved_shapes
from demur.models.anatomy.roles import Found, LayerReader
from demur.models.anatomy.types import KINDS, Anatomy, Kind, Module

if TYPE_CHECKING:
    from demur.checkpoint.index import Checkpoint


def anatomy_of(model: Any, checkpoint: Checkpoint | None = None) -> Anatomy:
    """Return what a causal language model is made of.

    Args:
        model: a transformers model, not wrapped; its weights may be on the meta device.
        checkpoint: what it was loaded from, for the names on disk; None for those that
            `save_pretrained` would write.

    Raises:
        ModelError: something in the model was not understood, or the checkpoint is not of this
            model; it is named.
    """
    if checkpoint is None:
        shapes = saved_shapes(model)
    else:
        shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    names = DiskNames(model, shapes)
    config = model.config.get_text_config()
    readers = [
        LayerReader(block, path, config.hidden_size, config.num_attention_heads)
        for path, block in _named_layers(model)
    ]
    modules = tuple(
        _module(index, kind, reader.found[kind], names)
        for index, reader in enumerate(readers)
        for kind in KINDS
        if kind in reader.found
    )
    known = {part.tensor for module in modules for part in module.disk}
    present = {module.kind for module in modules}
    return Anatomy(
        architecture=type(model).__name__,
        layers=tuple(reader.layer for reader in readers),
        modules=modules,
        embedding=_name_of(model, model.get_input_embeddings()),
        untouched=tuple(name for name in shapes if name not in known),
        missing=tuple(kind for kind in KINDS if kind not in present),
        parameters=sum(math.prod(shape) for shape in shapes.values()),
    )


def decoder_layers(model: Any) -> list[Any]:
    """Return the modules of a causal language model's layers, in order.

    Raises:
        ModelError: they are not found.
    """
    return [layer for _, layer in _named_layers(model)]


def _named_layers(model: Any) -> list[tuple[str, Any]]:
    """Return the layers by name: the decoder's own list of as many modules."""
    import torch

    decoder, count = model.get_decoder(), model.config.get_text_config().num_hidden_layers
    lists = [
        (name, child)
        for name, child in decoder.named_children()
        if isinstance(child, torch.nn.ModuleList) and len(child) == count
    ]
    if len(lists) != 1:
        raise ModelError(
            f"{type(model).__name__} has {len(lists)} lists of {count} layers in its "
            f"{type(decoder).__name__}, where one must be its decoder layers.",
            "This architecture is not known yet; open an issue with this line.",
        )
    name, blocks = lists[0]
    outer = _name_of(model, decoder)
    path = f"{outer}.{name}" if outer else name
    return [(f"{path}.{index}", block) for index, block in enumerate(blocks)]


def _name_of(model: Any, wanted: Any) -> str:
    names = {id(module): str(name) for name, module in model.named_modules()}
    return names[id(wanted)]


def _module(index: int, kind: Kind, found: Found, names: DiskNames) -> Module:
    several = len(found.paths) > 1
    return Module(
        name=f"layers.{index}.{kind}",
        layer=index,
        kind=kind,
        memory=tuple(found.parts),
        disk=tuple(part for one in found.parts for part in names.parts(one)),
        path=_common(found.paths),
        output=None if several else found.output,
        parameters=found.parameters,
        transposed=found.transposed,
    )


def _common(paths: list[str]) -> str:
    """Return the innermost submodule that holds all of them."""
    words = zip(*(path.split(".") for path in paths), strict=False)
    return ".".join(same[0] for same in takewhile(lambda one: len(set(one)) == 1, words))
