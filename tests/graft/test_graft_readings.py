"""Search prompts read from a later layer: the numbers of a plain pass, over fewer layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.models.architectures import tiny
from tests.relatives import make_relatives

from demur.checkpoint import open_checkpoint
from demur.graft.candidate import Candidate
from demur.graft.cost import metered
from demur.graft.deltas import find_deltas
from demur.graft.readings import Readings
from demur.graft.workbench import Workbench
from demur.models.anatomy import anatomy_of
from demur.models.chat_model import ChatModel

PROMPTS = [f"Tell me how to bake bread {'and what the weather is like ' * k}." for k in range(6)]


def plain(chat: ChatModel, rows: list[list[int]]) -> torch.Tensor:
    """Return the logits after each row, read alone and whole."""
    with torch.inference_mode():
        return torch.stack(
            [chat.model(torch.tensor([row]), use_cache=False).logits[0, -1] for row in rows]
        )


@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_candidates_are_read_from_below_their_lowest_layer(kind: str, tmp_path: Path) -> None:
    relatives = make_relatives(tmp_path, kind)
    chat = relatives.chat()
    anatomy = anatomy_of(chat.model, open_checkpoint(relatives.recipient))
    deltas = find_deltas(
        anatomy, relatives.recipient, relatives.donor, relatives.base, store=tmp_path / "deltas"
    )
    rows = [chat.encode(prompt) for prompt in PROMPTS]
    blocks = [layer.block for layer in anatomy.layers]
    readings = Readings(chat, blocks, rows)
    places, last = [4, 0, 2, 5], len(blocks) - 1
    with metered(chat.model) as meter, Workbench(chat.model, deltas) as bench:
        untouched = readings.read_untouched(places, meter)
        assert torch.allclose(untouched, plain(chat, [rows[p] for p in places]), atol=1e-4)
        readings.check(places[:2], meter)
        assert readings.levels == tuple(range(1, last + 1)) and readings.shared > 0
        for layer in range(last + 1):
            candidate = Candidate(frozenset({f"layers.{layer}.down"}), 2.0)
            bench.move(candidate)
            assert readings.level(places, candidate.lowest(deltas)) == layer
            before = meter.cost
            logits = readings.read(places, candidate.lowest(deltas), meter)
            tokens = meter.cost.tokens - before.tokens
            whole = readings.read(places, 0, meter)
            full = meter.cost.tokens - before.tokens - tokens
            assert torch.allclose(logits, plain(chat, [rows[p] for p in places]), atol=1e-4)
            assert torch.allclose(logits, whole, atol=1e-4)
            assert not torch.allclose(logits, untouched, atol=1e-2)
            assert tokens == pytest.approx(full * (1 - layer / len(blocks)))
            passes = meter.cost.passes
            named = [readings.read([p], layer, meter, candidate.key) for p in places[:2]]
            assert torch.allclose(torch.cat(named), logits[:2], atol=1e-4)
            assert meter.cost.passes == passes + 3  # what both begin with is read once
        assert readings.level([1], last) == 0  # not read untouched so far


@pytest.mark.parametrize("kind", ["gemma2", "mpt", "gpt-neo"])
def test_without_a_shared_beginning_all_is_read_whole(kind: str, tmp_path: Path) -> None:
    chat = replace(make_relatives(tmp_path).chat(), model=tiny(kind))
    rows = [chat.encode(prompt) for prompt in PROMPTS]
    anatomy = anatomy_of(chat.model)
    readings = Readings(chat, [layer.block for layer in anatomy.layers], rows)
    with metered(chat.model) as meter:
        untouched = readings.read_untouched(range(6), meter)
        readings.check(range(6), meter)
        assert readings.levels == (1,) and readings.shared == 0
        later = readings.read(range(6), 1, meter)

    assert torch.allclose(untouched, plain(chat, rows), atol=1e-4)
    assert torch.allclose(later, untouched, atol=1e-4)


def test_layers_that_do_not_only_pass_on_a_stream_are_read_whole(tmp_path: Path) -> None:
    chat = make_relatives(tmp_path).chat()
    anatomy = anatomy_of(chat.model)
    blocks = [layer.block for layer in anatomy.layers]
    first, last = (chat.model.get_submodule(blocks[place]) for place in (0, -1))
    said: list[torch.Tensor] = []
    # The last layer listens to the first beside the stream, as layers that share keys do.
    first.register_forward_hook(lambda _, __, out: said.append(out.square().mean()))
    last.register_forward_hook(lambda _, __, out: out + 1000 * said[-1] * out.roll(1, -1))
    rows = [chat.encode(prompt) for prompt in PROMPTS]
    readings = Readings(chat, blocks, rows)
    with metered(chat.model) as meter:
        readings.read_untouched([0, 1], meter)
        assert readings.level([0, 1], 3) == 3
        readings.check([0, 1], meter)

    assert readings.level([0, 1], 3) == 0


def test_streams_take_no_more_room_than_they_may(tmp_path: Path) -> None:
    chat = make_relatives(tmp_path).chat()
    anatomy = anatomy_of(chat.model)
    blocks = [layer.block for layer in anatomy.layers]
    rows = [chat.encode(prompt) for prompt in PROMPTS]
    one = Readings(chat, blocks, rows)
    tokens = sum(map(len, rows)) - one.shared * (len(rows) - 1)
    size = tokens * chat.model.config.hidden_size * 4

    assert Readings(chat, blocks, rows, room=size - 1).levels == ()
    assert Readings(chat, blocks, rows, room=size).levels == (2,)
    with metered(chat.model) as meter:
        readings = Readings(chat, blocks, rows, room=size)
        readings.read_untouched(range(6), meter)
        assert sum(kept.numel() * 4 for kept in readings._kept.values()) == size
        assert [readings.level(range(6), lowest) for lowest in range(4)] == [0, 0, 2, 2]
