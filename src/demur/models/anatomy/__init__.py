"""What a model is made of: layers and modules, in memory and on disk.

`anatomy_of(model, checkpoint)` gives it; `select` and `assign` read and write a module's parts.
"""

from demur.models.anatomy.build import anatomy_of, decoder_layers
from demur.models.anatomy.names import DiskNames, saved_shapes
from demur.models.anatomy.parts import assign, part_elements, part_shape, select, whole
from demur.models.anatomy.types import ATTENTION, KINDS, MLP, Anatomy, Kind, Layer, Module, Part

__all__ = [
    "ATTENTION",
    "KINDS",
    "MLP",
    "Anatomy",
    "DiskNames",
    "Kind",
    "Layer",
    "Module",
    "Part",
    "anatomy_of",
    "assign",
    "decoder_layers",
    "part_elements",
    "part_shape",
    "saved_shapes",
    "select",
    "whole",
]
