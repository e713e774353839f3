"""Batched decoding writes what plain generation writes, for every architecture at hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.architectures import SETTINGS, tiny
from tests.tiny import tiny_tokenizer

from demur.errors import ModelError
from demur.models import decoding, generation
from demur.models.batch import plan
from demur.models.chat_model import ChatModel
from demur.models.decoding import decode
from demur.models.device import Placement
from demur.models.forward import (
    accepted,
    can_share_prefix,
    common_prefix,
    last_positions,
    shared_cache,
)
from demur.models.generation import SETTLED_EVERY, Decoding, answer, decode_all, write_freely
from demur.run.journal import Journal

TOKENS = 10
SHARING = {
    "llama", "mistral", "mistral-wide", "qwen2", "qwen3", "phi3", "olmo2", "gpt-neox", "gpt2",
    "falcon", "falcon-alibi", "opt", "mixtral",
}  # fmt: skip


def chat_model(model: Any, stops: frozenset[int] = frozenset({2})) -> ChatModel:
    placement = Placement("cpu", "float32", "")
    return ChatModel(Path("tiny"), model, tiny_tokenizer(), placement, "w", _stops=stops)


def requests(count: int = 6, prefix: int = 10, longest: int = 12) -> list[list[int]]:
    generator = random.Random(3)
    head = [generator.randrange(3, 300) for _ in range(prefix)]
    rows = [
        [*head, *(generator.randrange(3, 300) for _ in range(generator.randrange(1, longest)))]
        for _ in range(count)
    ]
    rows[0][prefix], rows[1][prefix] = 3, 4  # nothing more is shared than the head
    return rows


def plainly(model: Any, row: list[int], tokens: int, stops: list[int]) -> tuple[int, ...]:
    ids = torch.tensor([row])
    written = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=stops,
        pad_token_id=0,
    )
    return tuple(written[0, len(row) :].tolist())


def likely_stops(model: Any, rows: list[list[int]]) -> list[int]:
    """Return tokens that the model does write early, so that some rows end before others."""
    written = [plainly(model, row, TOKENS, [1]) for row in rows]
    return sorted({written[0][2], written[1][4]})


@pytest.mark.parametrize("name", SETTINGS)
def test_decoding_equals_plain_generation(name):
    model, rows = tiny(name), requests()
    stops = likely_stops(model, rows)
    expected = [plainly(model, row, TOKENS, stops) for row in rows]
    chat = chat_model(model, frozenset(stops))
    found = dict(pair for batch in decode_all(chat, rows, TOKENS, rows=3) for pair in batch)
    assert [found[index].tokens for index in range(len(rows))] == expected
    for written in found.values():
        assert written.finished == (written.tokens[-1] in stops)
    assert len({len(tokens) for tokens in expected}) > 1  # some rows did leave early


@pytest.mark.parametrize("name", SETTINGS)
def test_a_settled_row_ends_and_leaves_the_others_as_they_are(name):
    model, rows = tiny(name), requests()
    chat = chat_model(model, frozenset())
    told: list[tuple[int, int]] = []

    def settled(index: int, new: Sequence[int]) -> bool:
        told.append((index, len(new)))
        return index % 2 == 0 and len(new) >= 2 * SETTLED_EVERY

    found = dict(
        pair for batch in decode_all(chat, rows, TOKENS, rows=3, settled=settled) for pair in batch
    )
    for index, row in enumerate(rows):
        whole = plainly(model, row, TOKENS, [])
        assert found[index].tokens == (whole[: 2 * SETTLED_EVERY] if index % 2 == 0 else whole)
        assert not found[index].finished
    assert {count % SETTLED_EVERY for _, count in told} == {0}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_prefix_is_shared_only_where_that_is_exact(name):
    model = tiny(name)
    assert can_share_prefix(model, 40) == (name in SHARING)
    assert (shared_cache(model, [5, 6, 7], 40) is not None) == (name in SHARING)
    assert shared_cache(model, [], 40) is None


def test_a_window_matters_from_its_length_on():
    model = tiny("mistral-wide")
    assert can_share_prefix(model, 199)
    assert not can_share_prefix(model, 200)


def test_a_shared_prefix_is_computed_once_and_not_used_up():
    model, rows = tiny("llama"), requests()
    widths = widths_of(model, lambda: list(decode_all(chat_model(model), rows, 1, rows=3)))
    assert widths[0] == (1, 10)
    assert sum(rows for rows, _ in widths[1:]) == 6
    assert max(width for _, width in widths[1:]) == max(map(len, rows)) - 10


def test_candidates_are_the_likeliest_tokens_of_each_step():
    model, rows = tiny("qwen3"), requests(4)
    batches = list(decode_all(chat_model(model), rows, 5, candidates=7))
    for index, written in (pair for batch in batches for pair in batch):
        ids = torch.tensor([[*rows[index], *written.tokens]])
        logits = model(ids).logits[0, len(rows[index]) - 1 : -1]
        best = logits.log_softmax(-1).topk(7)
        assert written.candidates.shape == (len(written.tokens), 7)
        assert torch.equal(written.candidates, best.indices)
        assert torch.equal(written.candidates[:, 0], torch.tensor(written.tokens))
        assert torch.allclose(written.log_probabilities, best.values, atol=1e-5)


def test_an_answer_ends_where_the_context_does():
    model = tiny("gpt2")
    rows = [[5] * 250, [6] * 240]
    found = dict(pair for batch in decode_all(chat_model(model, frozenset()), rows, 12)
                 for pair in batch)  # fmt: skip
    assert len(found[0].tokens) == 256 - 250 + 1
    assert len(found[1].tokens) == 12
    assert not found[0].finished
    assert found[1].tokens == plainly(model, rows[1], 12, [1])


def test_plan_is_deterministic_and_complete():
    generator = random.Random(1)
    lengths = [generator.randrange(1, 400) for _ in range(500)]
    batches = plan(lengths, rows=32, budget=4000)
    assert batches == plan(list(lengths), rows=32, budget=4000)
    assert sorted(index for batch in batches for index in batch) == list(range(500))
    order = [lengths[index] for batch in batches for index in batch]
    assert order == sorted(order)
    for batch in batches:
        assert len(batch) <= 32
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= 4000
    assert plan([9000], rows=4, budget=100) == [[0]]
    assert plan([], rows=4) == []


def test_common_prefix():
    assert common_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert common_prefix([[1, 2], [1, 2, 4, 5]]) == 1  # each keeps one of its own
    assert common_prefix([[1, 2, 3]]) == 2
    assert common_prefix([[1, 2, 3], (1, 2, 3)]) == 2
    assert common_prefix([[7], [8, 9]]) == 0


def test_accepted_knows_what_a_model_can_be_told():
    assert set(accepted(tiny("llama"), position_ids=1, logits_to_keep=2, nonsense=3)) == {
        "position_ids",
        "logits_to_keep",
    }
    assert set(accepted(tiny("mpt"), position_ids=1, logits_to_keep=2)) == {"logits_to_keep"}


def test_accepted_looks_through_a_peft_model():
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(deepcopy(tiny("llama")), LoraConfig(r=2, target_modules=["q_proj"]))
    assert set(accepted(wrapped, position_ids=1, nonsense=3)) == {"position_ids"}
    assert can_share_prefix(wrapped, 100)


class Counted:
    """Counts a model's forward passes while it is open."""

    def __init__(self, model: Any) -> None:
        self.model, self.calls = model, 0

    def __enter__(self) -> Counted:
        self.handle = self.model.register_forward_hook(lambda *arguments: self.count())
        return self

    def count(self) -> None:
        self.calls += 1

    def __exit__(self, *exception: object) -> None:
        self.handle.remove()


PROMPTS = [f"How do I bake bread number {number}, and why?" for number in range(7)]


def test_answers_come_from_the_journal_the_second_time(tmp_path):
    chat, journal = chat_model(tiny("llama")), Journal(tmp_path / "journal.sqlite")
    advanced: list[int] = []
    with Counted(chat.model) as counted:
        first = answer(chat, PROMPTS, journal, Decoding(6), advance=advanced.append)
    assert counted.calls > 1
    assert sum(advanced) == len(PROMPTS)
    advanced.clear()
    with Counted(chat.model) as counted:
        second = answer(chat, PROMPTS[::-1], journal, Decoding(6), advance=advanced.append)
    assert counted.calls == 0
    assert second == first[::-1]
    assert sum(advanced) == len(PROMPTS)
    assert [one.prompt for one in first] == PROMPTS
    for one in first:
        row = chat.encode(one.prompt)
        assert one.tokens == plainly(chat.model, row, 6, [2])
        assert one.text == chat.decode(one.tokens)


def test_other_settings_are_other_answers(tmp_path):
    chat, journal = chat_model(tiny("llama")), Journal(tmp_path / "journal.sqlite")
    answer(chat, PROMPTS, journal, Decoding(3))
    for settings in (Decoding(4), Decoding(3, "Sure")):
        with Counted(chat.model) as counted:
            answer(chat, PROMPTS, journal, settings)
        assert counted.calls > 0
    opened = answer(chat, PROMPTS[:1], journal, Decoding(3, "Sure"))[0]
    row = chat.encode(PROMPTS[0], "Sure")
    assert row[: len(chat.encode(PROMPTS[0]))] == chat.encode(PROMPTS[0])
    assert opened.tokens == plainly(chat.model, row, 3, [2])


def test_answers_end_when_their_verdict_is_settled(tmp_path):
    chat, journal = chat_model(tiny("llama")), Journal(tmp_path / "journal.sqlite")
    whole = answer(chat, PROMPTS, journal, Decoding(9))
    until = Decoding(9, until="judge-1")
    cut = answer(chat, PROMPTS, journal, until, settled=lambda prompt, text: prompt in PROMPTS[1:])
    assert cut[0].text == whole[0].text
    for one, all_of_it in zip(cut[1:], whole[1:], strict=True):
        assert one.tokens == all_of_it.tokens[:SETTLED_EVERY]
        assert one.key != all_of_it.key
    assert answer(chat, PROMPTS, journal, until) == cut  # known


def test_a_batch_half_known_is_completed(tmp_path):
    chat, journal = chat_model(tiny("llama")), Journal(tmp_path / "journal.sqlite")
    answer(chat, PROMPTS[:3], journal, Decoding(5))
    advanced: list[int] = []
    both = answer(chat, [*PROMPTS, PROMPTS[0]], journal, Decoding(5), advance=advanced.append)
    assert [one.prompt for one in both] == [*PROMPTS, PROMPTS[0]]
    assert sum(advanced) == len(PROMPTS) + 1
    assert journal.count("answers") == len(PROMPTS)


def test_nothing_asked_is_nothing_answered(tmp_path):
    chat = chat_model(tiny("llama"))
    assert answer(chat, [], Journal(tmp_path / "journal.sqlite"), Decoding()) == []
    assert list(decode_all(chat, [], 4)) == []


def test_fewer_rows_are_written_at_once_where_memory_is_short(monkeypatch):
    chat, rows = chat_model(tiny("llama")), requests()
    expected = [plainly(chat.model, row, 4, [2]) for row in rows]
    tried, real = [], generation.decode

    def small(*arguments: Any, **named: Any) -> Any:
        tried.append((named["rows"], named["together"]))
        if named["rows"] > 2:
            raise torch.OutOfMemoryError("no memory")
        return real(*arguments, **named)

    monkeypatch.setattr(generation, "decode", small)
    found = [pair for window in decode_all(chat, rows, 4, rows=16) for pair in window]
    assert tried == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert sorted(index for index, _ in found) == list(range(6))
    assert {index: written.tokens for index, written in found} == dict(enumerate(expected))


def widths_of(model: Any, call: Callable[[], object]) -> list[tuple[int, int]]:
    """Return the shape of the token ids of each forward pass during a call."""
    shapes: list[tuple[int, int]] = []

    def watch(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        shapes.append(tuple((given or (named["input_ids"],))[0].shape))

    handle = model.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        call()
    finally:
        handle.remove()
    return shapes


def test_rows_that_leave_make_room_for_others():
    model, rows = tiny("llama"), requests(8, longest=3)
    stops = frozenset(likely_stops(model, rows))
    expected = [plainly(model, row, 20, sorted(stops)) for row in rows]
    found: list[Any] = []
    shapes = widths_of(
        model, lambda: found.extend(decode(model, rows, 20, stops, rows=4, together=1))
    )
    assert [written.tokens for written in found] == expected
    steps = [count for count, width in shapes if width == 1]
    assert max(steps) == 4
    assert len({len(tokens) for tokens in expected}) > 1
    # as many steps as the four places need, rather than as twice the longest answer does
    assert len(steps) < 2 * max(map(len, expected)) - 2


def test_columns_that_no_row_needs_are_dropped():
    model, generator = tiny("llama"), random.Random(1)
    rows = [[generator.randrange(3, 300) for _ in range(length)] for length in (6, 60, 7, 8)]
    expected = [plainly(model, row, 12, [2]) for row in rows]
    caches: list[int] = []
    real = decoding.Running.step

    def step(self: Any, tokens: Any) -> Any:
        caches.append(self.cache.layers[0].keys.shape[2])
        return real(self, tokens)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding.Running, "step", step)
        settled = lambda row, new: row == 1 and len(new) >= 4  # noqa: E731
        found = decode(model, rows, 12, frozenset({2}), together=1, settled=settled)
    assert [found[row].tokens for row in (0, 2, 3)] == [expected[row] for row in (0, 2, 3)]
    assert max(caches) > 60
    assert caches[-1] < 30


def test_a_model_with_a_cache_of_its_own_kind_is_an_error():
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=400, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(ModelError, match="The architecture mamba"):
        list(decode_all(chat_model(MambaForCausalLM(config)), requests(), 4))


def test_memory_for_not_even_one_row_is_an_error(monkeypatch):
    def none(*arguments: Any, **named: Any) -> Any:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(generation, "decode", none)
    with pytest.raises(ModelError, match="does not hold one prompt"):
        list(decode_all(chat_model(tiny("llama")), requests(), 4))


def test_done_windows_are_passed_over():
    chat, rows = chat_model(tiny("llama")), requests()
    (first, second), window = plan([len(row) for row in rows], 4), 4
    assert (len(first), len(second)) == (window, 2)
    found = list(decode_all(chat, rows, 2, rows=2, done=frozenset(first)))
    assert [[index for index, _ in batch] for batch in found] == [second]
    found = list(decode_all(chat, rows, 2, rows=2, done=frozenset([*first[1:], *second])))
    assert [[index for index, _ in batch] for batch in found] == [first]


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_the_head_is_applied_to_last_positions_only(name):
    model = tiny(name)
    row = torch.tensor([requests()[0]])
    with torch.no_grad():
        whole = model(row, use_cache=False).logits
        told = last_positions(model, row.shape[1], 2)
        last = model(row, use_cache=False, **told).logits
    assert last.shape[1] == (2 if told else row.shape[1])
    assert torch.allclose(last[:, -2:], whole[:, -2:], atol=1e-5)


def test_no_positions_are_named_off_the_cpu():
    model = deepcopy(tiny("llama")).to("meta")
    assert last_positions(model, 9, 2) == {"logits_to_keep": 2}


def test_free_text_is_drawn_from_the_model_and_from_the_seed():
    model = tiny("llama")
    text = write_freely(model, 1, rows=400, tokens=4, seed=0)
    assert text.shape == (400, 4)
    assert (text[:, 0] == 1).all()
    assert torch.equal(text, write_freely(model, 1, rows=400, tokens=4, seed=0))
    assert not torch.equal(text, write_freely(model, 1, rows=400, tokens=4, seed=1))
    with torch.no_grad():
        chances = model(torch.tensor([[1]])).logits[0, -1].softmax(-1)
    drawn = torch.bincount(text[:, 1], minlength=len(chances)) / 400
    likely = chances.topk(20).indices
    assert float((drawn[likely].sum() - chances[likely].sum()).abs()) < 0.08
    assert int((drawn > 0).sum()) > 50  # it is not greedy
