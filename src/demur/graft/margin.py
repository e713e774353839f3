"""The refusal margin: how much likelier a model is to open with a refusal than to comply.

    margin = RefusalMargin(chat.model, [chat.encode(prompt) for prompt in prompts], openings)
    before = margin()                              # (prompts,) float32, in nats
    with edited(chat.model, changes):
        after = margin()

For one request, with R the openings that refuse and C those that comply (`graft/openings.py`):

    margin = log sum_{r in R} P(r | request) - log sum_{c in C} P(c | request)

P(r | request) is the product of the probabilities of r's tokens, so that each sum is the chance
that a sampled answer begins with one of them, and the margin their log-odds. DAPA (arXiv
2406.01514) and ROME (arXiv 2202.05262) look at the probability of one token; the definition here
is ours, since refusals of one model begin in several ways, and "I" alone does not tell.

What makes it quick: nothing is decoded. Each request is read once and its openings beside it as a
tree (`models/branches.py`), behind the common beginning of all requests, which is read once. And
where only layers from l on change, the layers below need not be computed again:

    margin.remember([layer.block for layer in anatomy.layers])
    with edited(chat.model, changes):              # of layers 12 and above
        after = margin.from_layer(12)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from demur.graft.openings import Openings
from demur.models.batch import Batch, plan
from demur.models.branches import Branched, Tree, can_branch, grow, standing_cache
from demur.models.forward import accepted, common_prefix, last_positions, shared_cache
from demur.models.later import Streams, kept_streams, starting_at

ROWS_CPU, ROWS_GPU = 16, 256


@dataclass(frozen=True)
class Asked:
    """Where in the logits the openings' tokens stand.

    Attributes:
        nodes, tokens: (rows, openings, longest opening) the node that foretells each token.
        counted: same shape, whether there is such a token.
        refusing, complying: (rows, openings) which are of which kind.
    """

    nodes: Any
    tokens: Any
    counted: Any
    refusing: Any
    complying: Any


def ask(openings: Sequence[Openings], trees: Sequence[Tree], device: Any) -> Asked:
    """Return where the tokens of some rows' openings stand; `trees` are of all of a row's."""
    import torch

    both = [[*each.refusing, *each.complying] for each in openings]
    shape = (len(both), max(map(len, both)), max(len(one) for row in both for one in row))
    nodes, tokens = torch.zeros((2, *shape), dtype=torch.long)
    counted = torch.zeros(shape, dtype=torch.bool)
    refusing, complying = torch.zeros((2, *shape[:2]), dtype=torch.bool)
    for row, (each, tree) in enumerate(zip(openings, trees, strict=True)):
        for place, (opening, path) in enumerate(zip(both[row], tree.paths, strict=True)):
            nodes[row, place, : len(path)] = torch.tensor(path)
            tokens[row, place, : len(path)] = torch.tensor(opening)
            counted[row, place, : len(path)] = True
        refusing[row, : len(each.refusing)] = True
        complying[row, len(each.refusing) : len(both[row])] = True
    return Asked(*(part.to(device) for part in (nodes, tokens, counted, refusing, complying)))


def tree_of(openings: Openings) -> Tree:
    """Return the tree of all openings, those that refuse first."""
    return grow([*openings.refusing, *openings.complying])


def margins_of(logits: Any, asked: Asked) -> Any:
    """Return (rows,) float32 margins in nats, differentiable.

    Args:
        logits: (rows, nodes, vocabulary), node 0 first.
        asked: of one row, or of as many as the logits have.
    """
    import torch

    logits = logits.float()
    rows = torch.arange(len(logits), device=logits.device)[:, None, None]
    scores = logits[rows, asked.nodes, asked.tokens]
    totals = logits.logsumexp(-1)[rows, asked.nodes]
    return odds((scores - totals).where(asked.counted, 0.0).sum(-1), asked)


def odds(chances: Any, asked: Asked) -> Any:
    """Return the margins of (rows, openings) log-probabilities."""
    lowest = float("-inf")
    refuse = chances.where(asked.refusing, lowest).logsumexp(-1)
    return refuse - chances.where(asked.complying, lowest).logsumexp(-1)


def node_logits(model: Any, batch: Branched, cache: Any, *, first: int = 0, times: int = 1) -> Any:
    """Return (rows, nodes, vocabulary) logits that foretell the tokens of the rows' trees.

    Args:
        cache: a standing cache, with all columns before `first`.
        first: the first of the batch's columns that is read.
        times: how often the batch's rows come one after the other.
    """
    width = batch.ids.shape[1] - first
    nodes = batch.ids.shape[1] - batch.end
    positions = batch.positions[:, first:].repeat(times, 1)
    logits = model(
        batch.ids[:, first:].repeat(times, 1),
        attention_mask=batch.mask[:, :, first:].repeat(times, 1, 1, 1),
        past_key_values=cache,
        use_cache=True,
        **accepted(model, position_ids=positions),
        **last_positions(model, width, nodes),
    ).logits
    return logits[:, -nodes:]


def _from(model: Any, streams: Streams, first: int) -> AbstractContextManager[None]:
    """Have passes begin at the highest layer up to `first` that something is kept for."""
    start = max(layer for layer in streams.entering if layer <= first)
    return starting_at(model, streams, start, counted=False)


@dataclass(frozen=True)
class _Memory:
    """What one batch leaves behind: what entered the layers that are kept."""

    places: list[int]
    batch: Branched
    asked: Asked
    prefix: Streams
    rows: Streams


class RefusalMargin:
    """Margins of one set of requests, computed anew at each call with the weights of the moment.

    Args:
        model: the transformers model.
        requests: token ids of each, the answer opened, as `ChatModel.encode` gives them.
        openings: of each request.
        rows: requests read at once; by the device where 0.

    Models whose attention cannot be told who sees whom (MPT, BLOOM, a window shorter than the
    rows, recurrent state) are asked with one row an opening instead: the same numbers, slower.
    """

    def __init__(
        self,
        model: Any,
        requests: Sequence[Sequence[int]],
        openings: Sequence[Openings],
        *,
        rows: int = 0,
    ) -> None:
        if len(requests) != len(openings) or not requests:
            raise ValueError("RefusalMargin needs openings for each request, and a request")
        self.model = model
        self.requests = [tuple(request) for request in requests]
        self.openings = tuple(openings)
        self.rows = rows or (ROWS_GPU if model.device.type == "cuda" else ROWS_CPU)
        self.trees = [tree_of(each) for each in self.openings]
        self.shared = common_prefix(self.requests)
        longest = max(map(len, self.requests)) + max(len(tree.tokens) for tree in self.trees)
        self.branches = can_branch(model, longest)
        self.longest = longest
        self._memories: list[_Memory] = []

    def __call__(self, indices: Sequence[int] | None = None) -> Any:
        """Return (requests,) float32 margins on the CPU.

        Args:
            indices: the requests to ask, all if None; the result is in their order.
        """
        import torch

        asked = list(range(len(self.requests))) if indices is None else list(indices)
        found = torch.empty(len(asked))
        with torch.inference_mode():
            for places, values in self._batches(asked):
                found[places] = values.cpu()
        return found

    def differentiable(
        self, indices: Sequence[int] | None = None
    ) -> Iterator[tuple[list[int], Any]]:
        """Yield batches of (indices, (rows,) margins) with their graphs, for gradients.

        The graph reaches weights that require gradients, those of the shared beginning included.
        Sum the margins of a batch, and call `backward` before the next is asked for.
        """
        asked = list(range(len(self.requests))) if indices is None else list(indices)
        for places, values in self._batches(asked):
            yield [asked[place] for place in places], values

    def remember(self, blocks: Sequence[str], every: int = 1) -> None:
        """Keep what enters the layers with the weights of the moment, for `from_layer`.

        A layer of a model as wide as 576 costs 2 KiB a token. Nothing is kept of models that are
        asked with one row an opening.

        Args:
            blocks: names of the decoder layers, in order.
            every: keep every so many layers; `from_layer` begins at the next one below.
        """
        import torch

        self._memories, levels = [], range(0, len(blocks), every)
        if not self.branches:
            return
        with torch.inference_mode():
            with kept_streams(self.model, blocks, levels) as prefix:
                cache = shared_cache(self.model, self.requests[0][: self.shared], self.longest)
            for places in plan(list(map(len, self.requests)), self.rows, alike=True):
                batch, asked = self._laid_out(places, cache)
                with kept_streams(self.model, blocks, levels) as found:
                    self._logits(batch, cache)
                self._memories.append(_Memory(places, batch, asked, prefix, found))

    def from_layer(self, first: int) -> Any:
        """Return (requests,) float32 margins, layers below `first` taken as remembered.

        Args:
            first: the lowest layer whose weights are not as they were.
        """
        import torch

        if not self._memories:
            return self()
        found = torch.empty(len(self.requests))
        with torch.inference_mode():
            cache = self._prefix_from(first)
            for memory in self._memories:
                with _from(self.model, memory.rows, first):
                    logits = self._logits(memory.batch, cache)
                found[memory.places] = margins_of(logits, memory.asked).cpu()
        return found

    def _prefix_from(self, first: int) -> Any:
        prefix = self._memories[0].prefix
        if not prefix.entering:
            return None
        with _from(self.model, prefix, first):
            return shared_cache(self.model, self.requests[0][: self.shared], self.longest)

    def _batches(self, asked: Sequence[int]) -> Iterator[tuple[list[int], Any]]:
        import torch

        if not asked:
            return
        shared, cache = self.shared, None
        for places in plan([len(self.requests[i]) for i in asked], self.rows, alike=True):
            indices = [asked[place] for place in places]
            if cache is None or torch.is_grad_enabled():  # a graph serves one backward pass
                cache = shared_cache(self.model, self.requests[0][:shared], self.longest)
            values = self._read if self.branches else self._read_rows
            yield places, values(indices, cache)

    def _read(self, indices: Sequence[int], cache: Any) -> Any:
        batch, asked = self._laid_out(indices, cache)
        return margins_of(self._logits(batch, cache), asked)

    def _laid_out(self, indices: Sequence[int], cache: Any) -> tuple[Branched, Asked]:
        trees = [self.trees[index] for index in indices]
        requests = [self.requests[index] for index in indices]
        batch = Branched(self.model, requests, trees, 0 if cache is None else self.shared)
        openings = [self.openings[index] for index in indices]
        return batch, ask(openings, trees, self.model.device)

    def _logits(self, batch: Branched, cache: Any) -> Any:
        return node_logits(self.model, batch, standing_cache(self.model, cache))

    def _read_rows(self, indices: Sequence[int], cache: Any) -> Any:
        """Ask with one row an opening."""
        import torch

        openings = [self.openings[index] for index in indices]
        asked = ask(openings, [self.trees[index] for index in indices], self.model.device)
        chances = []
        for index, each in zip(indices, openings, strict=True):
            both = [*each.refusing, *each.complying]
            rows = [[*self.requests[index], *opening] for opening in both]
            batch = Batch(self.model, rows, 0 if cache is None else self.shared, cache)
            count = max(map(len, both)) + 1
            logits = self.model(
                batch.ids,
                attention_mask=batch.mask,
                past_key_values=batch.cache,
                use_cache=True,
                **accepted(self.model, position_ids=batch.positions),
                **last_positions(self.model, batch.ids.shape[1], count),
            ).logits[:, -count:-1]
            labels = batch.ids[:, 1 - count :]
            scores = logits.float().log_softmax(-1).gather(2, labels[..., None])[..., 0]
            sizes = torch.tensor([len(opening) for opening in both], device=scores.device)
            places = torch.arange(1 - count, 0, device=scores.device)
            own = scores.where(places >= -sizes[:, None], 0.0).sum(1)
            spare = asked.refusing.shape[1] - len(both)
            chances.append(torch.cat([own, own.new_zeros(spare)]))
        return odds(torch.stack(chances), asked)
