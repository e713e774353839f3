"""Prompts that each go on in several ways at once: a tree of tokens behind every prompt, one pass.

A prompt's keys and values serve all of its continuations, and continuations that begin alike share
their beginning: each node of the tree is one more token of the row, which sees the prompt and its
own ancestors and stands at the position that it would have in a row of its own. What comes out is
what rows of their own give, to rounding (Cai et al. 2024, Medusa, section 2.1.2, call it tree
attention).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from demur.models.forward import can_share_prefix

KeysValues = tuple[Any, Any]


@dataclass(frozen=True)
class Tree:
    """Continuations of one prompt. Node 0 is the prompt's last token, at which all begin.

    Attributes:
        tokens: token id of the nodes 1, 2, ...
        parents: the node each of them follows, which is an earlier one.
        paths: for each continuation the nodes that foretell its tokens, one a token.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]


def grow(continuations: Sequence[Sequence[int]]) -> Tree:
    """Return the tree of some continuations; the last token of each is foretold, not read."""
    nodes: dict[tuple[int, ...], int] = {(): 0}
    parents: list[int] = []
    paths = []
    for continuation in continuations:
        path = [0]
        for length in range(1, len(continuation)):
            begun = tuple(continuation[:length])
            if begun not in nodes:
                nodes[begun] = len(nodes)
                parents.append(path[-1])
            path.append(nodes[begun])
        paths.append(tuple(path))
    tokens = tuple(begun[-1] for begun in nodes if begun)
    return Tree(tokens, tuple(parents), tuple(paths))


def can_branch(model: Any, longest: int) -> bool:
    """Return whether trees can stand behind prompts: where a mask says who sees whom, and alone.

    Args:
        longest: tokens of the longest row, its tree included.
    """
    config = model.config.get_text_config()
    by_place = getattr(config, "alibi", False)  # distances are counted in places of the row
    attention = getattr(config, "_attn_implementation", None)
    return can_share_prefix(model, longest) and not by_place and attention in ("eager", "sdpa")


class Branched:
    """Rows behind a shared prefix: left-padded prompts, then their trees, right-padded.

    Attributes:
        ids: (rows, width) token ids of what follows the prefix.
        mask: (rows, 1, width, shared + width) what is added to attention scores.
        positions: (rows, width).
        end: the column of the prompts' last tokens, node 0 of every tree.
        starts: the column of each prompt's first token.
        shared: tokens of the prefix.

    Args:
        longest: tokens of a longest prompt to pad to, where others are to stand beside these.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        trees: Sequence[Tree],
        shared: int,
        longest: int = 0,
    ) -> None:
        import torch

        own = [prompt[shared:] for prompt in prompts]
        longest = max([longest - shared, *map(len, own)])
        nodes = max(len(tree.tokens) for tree in trees)
        width = longest + nodes
        self.shared, self.end = shared, longest - 1
        self.starts = [longest - len(row) for row in own]
        self.ids = torch.zeros((len(own), width), dtype=torch.long)
        self.positions = torch.zeros_like(self.ids)
        seen = torch.eye(width, dtype=torch.bool).repeat(len(own), 1, 1)  # padding sees itself
        for index, (row, tree) in enumerate(zip(own, trees, strict=True)):
            start = self.starts[index]
            self.ids[index, start:longest] = torch.tensor(row)
            self.positions[index, start:longest] = torch.arange(shared, shared + len(row))
            size = longest - start
            seen[index, start:longest, start:longest] = torch.ones(size, size).tril().bool()
            for node, (token, parent) in enumerate(
                zip(tree.tokens, tree.parents, strict=True), self.end + 1
            ):
                above = self.end + parent
                self.ids[index, node] = token
                self.positions[index, node] = self.positions[index, above] + 1
                seen[index, node] |= seen[index, above]
        before = torch.ones((len(own), width, shared), dtype=torch.bool)
        lowest = torch.finfo(model.dtype).min
        blocked = ~torch.cat([before, seen], 2)[:, None]
        self.mask = torch.zeros(blocked.shape, dtype=model.dtype).masked_fill_(blocked, lowest)
        self.ids, self.positions = self.ids.to(model.device), self.positions.to(model.device)
        self.mask = self.mask.to(model.device)


def standing_cache(model: Any, cache: Any, keep: dict[int, KeysValues] | None = None) -> Any:
    """Return a cache that stands before any number of rows and keeps nothing of theirs.

    Args:
        cache: of one row, or of some that come again and again in the same order; None for an
            empty one. It is not changed, however often it is used.
        keep: filled, if given, with all keys and values of each layer that is run.
    """
    from transformers import DynamicCache

    standing = DynamicCache(config=model.config)
    if cache is not None:
        standing.layers = cache.layers
    standing.update = partial(_seen, standing.layers, keep)
    return standing


def cut_cache(model: Any, kept: Mapping[int, KeysValues], columns: int) -> Any:
    """Return a standing cache of the first `columns` that `standing_cache` kept of some rows."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    for index, (keys, values) in kept.items():
        layer = cache.layers[index]
        layer.keys, layer.values = keys[:, :, :columns], values[:, :, :columns]
        layer.is_initialized = True
    return standing_cache(model, cache)


def _seen(
    layers: Sequence[Any],
    keep: dict[int, KeysValues] | None,
    keys: Any,
    values: Any,
    layer_idx: int,
    *_: Any,
    **__: Any,
) -> Any:
    import torch

    layer, rows = layers[layer_idx], len(keys)
    if layer.is_initialized and layer.keys.shape[2]:
        standing = (layer.keys, layer.values)
        if len(layer.keys) == 1:
            before = [each.expand(rows, -1, -1, -1) for each in standing]
        else:
            before = [each.repeat(rows // len(each), 1, 1, 1) for each in standing]
        keys, values = torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)
    if keep is not None:
        keep[layer_idx] = (keys, values)
    return keys, values
