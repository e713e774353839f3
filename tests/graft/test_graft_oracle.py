"""The oracle: decisions of the full evaluation, for less, kept, and leaving the model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from tests.relatives import HARMFUL, ORDINARY, TWINS, make_refusing

from demur.checkpoint import open_checkpoint
from demur.errors import ConfigError, PromptError
from demur.graft.agreement import agreement, is_clear, passes
from demur.graft.candidate import Candidate
from demur.graft.cost import Cost
from demur.graft.deltas import Deltas, find_deltas
from demur.graft.first_tokens import FirstTokens
from demur.graft.oracle import Oracle, Settings
from demur.graft.wanted import Decision, Standing, Wanted
from demur.judge import OpeningJudge
from demur.models.anatomy import anatomy_of
from demur.models.chat_model import ChatModel
from demur.prompts.types import Prompt
from demur.run.journal import Journal
from demur.stats import rate

PROMPTS = {
    "harmful": [Prompt(text, "harmful") for text in HARMFUL],
    "twins": [Prompt(text, "twin") for text in TWINS],
    "ordinary": [Prompt(text, "ordinary") for text in ORDINARY],
}
SETTINGS = Settings(tokens=12, block=4, indifference=0.2, divergence_prompts=4, text_tokens=64)
NOTHING = Candidate(frozenset())


@dataclass(frozen=True)
class Bench:
    """A recipient, and what a donor that refuses has to give it."""

    chat: ChatModel
    deltas: Deltas
    bits: dict[str, torch.Tensor]

    def oracle(self, journal: Journal, **choices: object) -> Oracle:
        settings = replace(SETTINGS, **choices)
        return Oracle(self.chat, self.deltas, PROMPTS, OpeningJudge(), journal, settings=settings)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("refusing")
    relatives = make_refusing(folder)
    chat = relatives.chat()
    anatomy = anatomy_of(chat.model, open_checkpoint(relatives.recipient))
    deltas = find_deltas(
        anatomy, relatives.recipient, relatives.donor, relatives.base, store=folder / "deltas"
    )
    bits = {name: value.clone() for name, value in chat.model.state_dict().items()}
    return Bench(chat, deltas, bits)


@pytest.fixture
def journal(tmp_path: Path, bench: Bench) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()
    bench.chat.model.load_state_dict(bench.bits)  # where a test failed on the way


def tried(deltas: Deltas) -> list[Candidate]:
    """Return candidates of all sizes, of which some refuse and some do not."""
    every = deltas.changed
    kinds = [[n for n in every if n.endswith(kind)] for kind in ("gate", "down", "o")]
    return [
        Candidate(frozenset(every)),
        *(Candidate(frozenset(every[start:])) for start in (3, 6, 9)),
        *(Candidate(frozenset(every), scale) for scale in (0.2, 0.5, 0.8, 1.5)),
        *(Candidate(frozenset(names), scale) for names in kinds for scale in (1.0, 2.0)),
        Candidate(frozenset(every), 1.0, 1),
        Candidate(frozenset(every), kind="swap"),
    ]


def test_decisions_are_those_of_the_full_evaluation(bench: Bench, journal: Journal) -> None:
    oracle = bench.oracle(journal)
    wanted = Wanted.of(oracle.before, oracle.donor, slack=0.1)
    candidates = [NOTHING, *tried(bench.deltas)]

    found = agreement(oracle, candidates, wanted)
    decisions = [oracle.judge(candidate, wanted) for candidate in candidates]

    assert oracle.before.harmful.value < 0.1 and oracle.donor.harmful.value > 0.7
    assert not decisions[0].passed and decisions[1].passed
    assert found.clear.n >= 8 and found.clear.count == found.clear.n
    assert found.decisions.n == len(candidates) and found.decisions.value > 0.8
    assert found.prompts.value > 0.97 and found.told.value > 0.5
    assert "on candidates" in found.sentence and found.to_json()["clear"]["n"] == found.clear.n
    for candidate in candidates[:2]:
        assert oracle.quick_standing(candidate).harmful == oracle.standing(candidate).harmful
    oracle.close()
    state = bench.chat.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in bench.bits.items())


def test_a_clear_failure_is_read_in_part_and_costs_less(bench: Bench, journal: Journal) -> None:
    oracle = bench.oracle(journal)
    wanted = Wanted.of(oracle.before, oracle.donor)
    oracle.prepare()

    failing = oracle.judge(Candidate(frozenset({"layers.3.gate"}), 0.1), wanted)
    passing = oracle.judge(oracle.whole, wanted)

    assert not failing.passed and failing.stage == "reading"
    assert failing.harmful.n < len(HARMFUL) and failing.twins.n == 0
    assert failing.margin is not None and passing.margin is not None
    assert failing.margin < 0 < passing.margin
    margins = oracle.margins(oracle.whole, "harmful", 6)
    assert len(margins) == 6 and min(margins) > 0 > max(oracle.margins(NOTHING, "twins", 99))
    oracle.close()
    assert "wanted at least" in failing.reason
    assert passing.passed and passing.twins.n > 0
    assert 0 < failing.cost.tokens < passing.cost.tokens
    # One layer of four is computed of each prompt.
    prompts = sum(len(bench.chat.encode(text)) for text in HARMFUL)
    assert failing.cost.tokens < prompts / 4


def test_what_is_open_is_written_where_it_matters(bench: Bench, journal: Journal) -> None:
    oracle = bench.oracle(journal)
    wanted = Wanted.of(oracle.before, oracle.donor, slack=0.1)
    size = len(bench.chat.tokenizer)
    whole = [oracle.standing(candidate) for candidate in tried(bench.deltas)]
    oracle.close()
    blind = bench.oracle(journal)
    blind.first_tokens = FirstTokens(frozenset(), frozenset(range(size)))  # nothing is told
    blind.setting += " blind"

    written = [blind.judge(candidate, wanted) for candidate in tried(bench.deltas)]
    blind.close()

    clear = [is_clear(one, wanted, SETTINGS.indifference) for one in whole]
    assert clear.count(True) >= 8
    for decision, standing, away in zip(written, whole, clear, strict=True):
        assert decision.stage == "decoding"
        assert not away or decision.passed == passes(standing, wanted)


def test_decisions_are_kept(
    bench: Bench, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = bench.oracle(journal)
    wanted = Wanted.of(oracle.before, oracle.donor)
    first = oracle.judge(oracle.whole, wanted)
    oracle.close()
    again = bench.oracle(journal)
    monkeypatch.setattr(bench.chat.model, "forward", None)

    assert again.before == oracle.before
    kept = again.judge(oracle.whole, Wanted.of(again.before, again.donor))
    assert kept == replace(first, cost=Cost())
    assert Decision.from_json(first.to_json()) == first


def test_limits_of_utility_are_kept_to(bench: Bench, journal: Journal) -> None:
    oracle = bench.oracle(journal)
    wanted = Wanted.of(oracle.before, oracle.donor, slack=0.1)
    divergence = oracle.utility.divergence(oracle.whole)
    ratio = oracle.utility.perplexity(oracle.whole)
    assert oracle.utility.divergence(NOTHING) == pytest.approx(0, abs=1e-5)
    assert oracle.utility.perplexity(NOTHING) == 1 and ratio != 1 and divergence > 0.01

    for limits, passed in (
        ({"divergence": divergence / 2}, False),
        ({"divergence": divergence * 2}, True),
        ({"perplexity": ratio * 0.9}, False),
        ({"divergence": divergence * 2, "perplexity": ratio * 1.1}, True),
    ):
        decision = oracle.judge(oracle.whole, replace(wanted, **limits))
        assert (decision.passed, decision.stage) == (passed, "utility")
        assert passed or "is allowed" in decision.reason
    oracle.close()


def test_over_refusal_fails_a_candidate(bench: Bench, journal: Journal) -> None:
    oracle = bench.oracle(journal)
    counts = oracle.standing(oracle.whole)
    wanted = Wanted(counts.harmful.value, counts.twins.value, counts.ordinary.value)
    assert oracle.judge(oracle.whole, wanted).passed
    oracle.close()
    # A limit that the donor's own standing does not keep, but for a whole prompt.
    fewer = replace(wanted, harmful=0.0, twins=counts.harmful.value)
    swapped = Oracle(
        bench.chat,
        bench.deltas,
        {**PROMPTS, "twins": PROMPTS["harmful"]},
        OpeningJudge(),
        journal,
        settings=SETTINGS,
    )
    assert swapped.judge(oracle.whole, fewer).passed
    decision = swapped.judge(oracle.whole, replace(fewer, twins=counts.harmful.value - 0.3))
    swapped.close()

    assert not decision.passed and "twins refused" in decision.reason


def test_what_cannot_be_searched_with_is_refused(bench: Bench, journal: Journal) -> None:
    with pytest.raises(PromptError, match="no harmful"):
        Oracle(bench.chat, bench.deltas, {"harmful": []}, OpeningJudge(), journal)
    low, high = (Standing(rate(n, 9), rate(0, 9), rate(0, 0)) for n in (1, 8))
    with pytest.raises(ConfigError, match="nothing to give"):
        Wanted.of(high, low)
    wanted = Wanted.of(low, high, share=0.5)
    assert wanted.harmful == pytest.approx(0.5) and wanted.ordinary is None
    assert passes(high, wanted) and not passes(low, wanted)
    assert is_clear(high, replace(wanted, twins=0.3), 0.1)
    assert not is_clear(high, replace(wanted, twins=0.05), 0.1)
