"""The three runs of causal tracing, for a batch of pairs: clean, corrupted, and restored ones.

What makes a map cost little more than its forward passes:

* the template's common beginning is read once, and the openings of all answers in one pass;
* a restoration at layer l leaves all below as in the corrupted run: only layers from l on are run,
  on what entered l there (`models/later.py`);
* a restoration at one token leaves all tokens before it as in the corrupted run, at every layer:
  only tokens from there on are run, on the keys and values that the others had there;
* restorations that begin at the same layer and place are rows of one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from demur.errors import ModelError
from demur.graft.margin import Asked, ask, margins_of, node_logits, tree_of
from demur.graft.tracing.pairs import Pair, noise
from demur.graft.tracing.places import Place
from demur.graft.tracing.targets import Target
from demur.models.anatomy import Anatomy, assign, select
from demur.models.branches import Branched, KeysValues, can_branch, cut_cache, standing_cache
from demur.models.forward import common_prefix, shared_cache
from demur.models.later import Streams, kept_streams, starting_at, stream_of, with_stream


@dataclass(frozen=True)
class Job:
    """One restoration: a target, and the layers of its window."""

    target: int
    first: int
    stop: int


class Runs:
    """The clean and the corrupted runs of some pairs, and any number of restored ones.

    Args:
        model: the transformers model.
        anatomy: its own.
        pairs: as many as fit into memory at once; each draw of noise is a unit, a row.
        targets: what will be restored.
        scale: of the noise: its standard deviation.

    Attributes:
        units: of each unit, which pair it is of.
        clean: (pairs,) margins of the clean run.
        corrupted: (units,) margins of the corrupted run.
    """

    def __init__(
        self,
        model: Any,
        anatomy: Anatomy,
        pairs: Sequence[Pair],
        targets: Sequence[Target],
        scale: float = 0.0,
    ) -> None:
        import torch

        self.model, self.pairs, self.targets, self.scale = model, tuple(pairs), targets, scale
        self.blocks = tuple(layer.block for layer in anatomy.layers)
        self.embedding = anatomy.embedding
        self.units = [index for index, pair in enumerate(pairs) for _ in range(pair.draws)]
        everything = [*(pair.clean for pair in pairs), *(pair.corrupted for pair in pairs)]
        shared = min(common_prefix(everything), min(pair.start for pair in pairs))
        longest = max(map(len, everything))
        trees = [tree_of(pair.openings) for pair in pairs]
        require_branches(model, longest + max(len(tree.tokens) for tree in trees))
        with torch.no_grad():  # no inference tensors: `gradients` takes them up into its graph
            self.prefix = shared_cache(model, everything[0][:shared], longest)
        kept = 0 if self.prefix is None else shared
        self.batch = Branched(
            model,
            [pairs[index].corrupted for index in self.units],
            [trees[index] for index in self.units],
            kept,
            longest,
        )
        openings = [pairs[index].openings for index in self.units]
        self.asked = ask(openings, [trees[index] for index in self.units], model.device)
        cleanly = Branched(model, [pair.clean for pair in pairs], trees, kept, longest)
        asked = ask([pair.openings for pair in pairs], trees, model.device)
        self._run(cleanly, asked)

    def _run(self, cleanly: Branched, asked: Asked) -> None:
        import torch

        self.keys: dict[int, KeysValues] = {}
        with torch.inference_mode():
            with self._outputs(lambda stream: stream[:, : cleanly.end + 1].clone()) as found:
                standing = standing_cache(self.model, self.prefix)
                self.clean = margins_of(node_logits(self.model, cleanly, standing), asked).cpu()
            self.values = {place: self._part(place, stream) for place, stream in found.items()}
            standing = standing_cache(self.model, self.prefix, self.keys)
            levels = range(len(self.blocks))
            with self.noisy(), kept_streams(self.model, self.blocks, levels) as states:
                logits = node_logits(self.model, self.batch, standing)
            self.corrupted = margins_of(logits, self.asked).cpu()
        self.states = states

    @contextmanager
    def _outputs(
        self, keep: Callable[[Any], Any], *, apart: bool = False
    ) -> Iterator[dict[tuple[int, int], Any]]:
        """Yield what fills with the whole outputs that targets are in, by (target, layer).

        Args:
            apart: have the model go on with copies, since some (Falcon) add to outputs in place.
        """
        found: dict[tuple[int, int], Any] = {}

        def hook(place: tuple[int, int]) -> Callable[..., Any]:
            def note(_: Any, __: Any, output: Any) -> Any:
                stream = stream_of(output)
                found[place] = keep(stream)
                return with_stream(output, stream.clone()) if apart else None

            return note

        with ExitStack() as stack:
            for number, target in enumerate(self.targets):
                for layer, path in enumerate(target.paths):
                    module = self.model.get_submodule(path)
                    stack.callback(module.register_forward_hook(hook((number, layer))).remove)
            yield found

    def _part(self, place: tuple[int, int], stream: Any) -> Any:
        part = self.targets[place[0]].parts[place[1]]
        return stream if part is None else select(stream, part)

    @contextmanager
    def noisy(self, grow: bool = False) -> Iterator[None]:
        """Corrupt embeddings by the units' noise.

        Args:
            grow: begin a graph there.
        """

        def corrupt(_: Any, __: Any, output: Any) -> Any:
            output = output.clone()
            for row, (pair, draw) in enumerate(self.draws()):
                start = self.batch.end + 1 - len(pair.clean) + pair.start
                stop = start + pair.end - pair.start
                added = noise(pair, draw, output.shape[-1], self.scale).to(output)
                output[row, start:stop] += added
            return output.requires_grad_() if grow else output

        handle = self.model.get_submodule(self.embedding).register_forward_hook(corrupt)
        try:
            yield
        finally:
            handle.remove()

    def draws(self) -> list[tuple[Pair, int]]:
        """Return each unit's pair and draw of noise; nothing where twins corrupt."""
        return [(pair, draw) for pair in self.pairs for draw in range(len(pair.seeds))]

    def columns(self, place: Place, which: Sequence[int]) -> list[tuple[int, int]]:
        """Return (start, stop) columns of a place in each unit.

        Args:
            which: the numbers that the place knows the batch's pairs by.
        """
        after = self.batch.end + 1
        spans = [place.spans[which[index]] for index in self.units]
        return [(after + start, after + stop) for start, stop in spans]

    def restored(self, jobs: Sequence[Job], columns: Sequence[tuple[int, int]]) -> Any:
        """Return (jobs, units) margins of runs that are corrupted but for what each job restores.

        Args:
            jobs: all beginning at the same layer.
            columns: of each unit, where; nothing is restored in an empty span.
        """
        import torch

        units = len(self.units)
        first = jobs[0].first
        start = min((begin for begin, stop in columns if begin < stop), default=self.batch.end)
        mask = torch.zeros((units, self.batch.end + 1 - start), dtype=torch.bool)
        for row, (begin, stop) in enumerate(columns):
            if begin < stop:
                mask[row, begin - start : stop - start] = True
        mask = mask.to(self.model.device)[..., None]
        with torch.inference_mode(), ExitStack() as stack:
            stream = self.states.entering[first][:, start:].repeat(len(jobs), 1, 1)
            entering = Streams(self.blocks, {first: stream}, self.states.tuples)
            stack.enter_context(starting_at(self.model, entering, first, counted=False))
            for number, job in enumerate(jobs):
                target = self.targets[job.target]
                rows = slice(number * units, (number + 1) * units)
                for layer in range(job.first, job.stop):
                    values = self.values[job.target, layer][self.units, start:]
                    hook = _restore(rows, mask, values, target.parts[layer])
                    module = self.model.get_submodule(target.paths[layer])
                    stack.callback(module.register_forward_hook(hook).remove)
            cache = cut_cache(self.model, self.keys, self.batch.shared + start)
            logits = node_logits(self.model, self.batch, cache, first=start, times=len(jobs))
            parts = logits.split(units)
            return torch.stack([margins_of(part, self.asked) for part in parts]).cpu()

    def gradients(self) -> tuple[dict[tuple[int, int], Any], dict[tuple[int, int], Any]]:
        """Return the targets' outputs in the corrupted run, and the margins' gradients there."""
        import torch

        with torch.enable_grad(), self._outputs(lambda stream: stream, apart=True) as found:
            with self.noisy(grow=True):
                standing = standing_cache(self.model, self.prefix)
                margins = margins_of(node_logits(self.model, self.batch, standing), self.asked)
            gradients = torch.autograd.grad(margins.sum(), list(found.values()))
        return (
            {place: self._part(place, value.detach()) for place, value in found.items()},
            {
                place: self._part(place, value)
                for place, value in zip(found, gradients, strict=True)
            },
        )


def require_branches(model: Any, longest: int) -> None:
    """Check that a model can be traced: trees stand behind prompts, tokens are told who sees whom.

    Raises:
        ModelError: they are not.
    """
    if not can_branch(model, longest):
        raise ModelError(
            f"The architecture {model.config.model_type} cannot be traced: its attention does not "
            f"take a mask of its own for rows of {longest} tokens.",
            "Trace a model with rotary or learned positions and full attention.",
        )


def _restore(rows: slice, mask: Any, values: Any, part: Any) -> Callable[..., Any]:
    import torch

    width = mask.shape[1]

    def hook(_: Any, __: Any, output: Any) -> Any:
        stream = stream_of(output).clone()
        here = stream[rows, :width]
        if part is None:
            here.copy_(torch.where(mask, values, here))
        else:
            assign(here, part, torch.where(mask, values, select(here, part)))
        return with_stream(output, stream)

    return hook
