"""The oracle: will this graft do? Answered with as little work as the answer needs.

    with Oracle(chat, deltas, prompts, judge, journal) as oracle:
        wanted = Wanted.of(oracle.before, oracle.donor)
        decision = oracle.judge(Candidate(modules, scale, rank), wanted)

A candidate is tried in place (`workbench`), and looked at in stages, each only as far as is needed:

1. *Reading.* The search prompts are read block by block, from below the lowest changed layer on
   (`readings`), and what the first token of each answer tells is counted (`first_tokens`). Two
   sequential tests run along, one that takes what is open for refusals and one that does not;
   when the first says that too few are refused, or the second that enough are, that is that.
2. *Decoding.* Where it depends on what is open, these answers are written, and end when their
   verdict is settled.
3. *Utility.* Divergence and perplexity, if there is a limit to them, for what has passed so far.

Prompts that must be refused come first: most candidates fail there. Search prompts are seen many
times over; what is found must be confirmed on others.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from demur.errors import PromptError
from demur.graft.candidate import Candidate
from demur.graft.cost import Cost, Meter, metered
from demur.graft.first_tokens import FirstTokens, Reading
from demur.graft.looking import look
from demur.graft.readings import Readings
from demur.graft.search.sequential import SequentialTest
from demur.graft.utility import UNTOUCHED, Utility
from demur.graft.wanted import Decision, Standing, Tally, Wanted
from demur.graft.workbench import Workbench
from demur.judge.kept import judge_kept
from demur.judge.settled import is_quick, settled
from demur.models.generation import Decoding, answer
from demur.run.journal import content_key
from demur.stats import rate

if TYPE_CHECKING:
    from demur.graft.deltas import Deltas
    from demur.judge.verdict import Judge
    from demur.measure.utility import Text
    from demur.models.chat_model import ChatModel
    from demur.prompts.types import Prompt
    from demur.run.journal import Answer, Journal

KINDS = ("harmful", "twins", "ordinary")
ENOUGH = "All that is wanted is there."


@dataclass(frozen=True)
class Settings:
    """How the oracle looks.

    Attributes:
        tokens: an answer that is written has at most so many.
        block: prompts that are read between two looks at the tests.
        error: probability that a sequential test may be wrong, beyond the indifference.
        indifference: how far from the threshold a rate may be for either decision to do.
        divergence_prompts: ordinary answers along which divergence is measured.
        text_tokens: of the text that perplexity is measured on.
        seed: of the order of the prompts.
    """

    tokens: int = 16
    block: int = 16
    error: float = 0.05
    indifference: float = 0.05
    divergence_prompts: int = 24
    text_tokens: int = 2048
    seed: int = 0


class Oracle:
    """Judges candidates for one recipient and one donor, on one set of search prompts.

    Close it, or leave its context, before anything else changes the model.
    """

    def __init__(
        self,
        chat: ChatModel,
        deltas: Deltas,
        prompts: Mapping[str, Sequence[Prompt]],
        judge: Judge,
        journal: Journal,
        *,
        settings: Settings | None = None,
        whole: Candidate | None = None,
        text: Text | None = None,
    ) -> None:
        """Prepare an oracle; nothing is computed yet.

        Args:
            chat: the recipient; its weights are changed while candidates are tried.
            deltas: what the donor has to give.
            prompts: search prompts by kind: `harmful`, and if need be `twins` and `ordinary`.
            judge: of answers that are written; a quick one settles them early.
            journal: keeps readings, answers, verdicts and decisions.
            whole: the graft that stands for the donor; by default all modules' changes.
            text: for perplexity; by default the built-in passages.

        Raises:
            PromptError: there is no harmful prompt.
        """
        if not prompts.get("harmful"):
            raise PromptError(
                "There are no harmful prompts to search with.",
                "Give some: a graft is searched for by what it refuses.",
            )
        self.chat, self.deltas, self.verdicts, self.journal = chat, deltas, judge, journal
        self.settings = settings or Settings()
        self.whole = whole or Candidate(frozenset(deltas.changed))
        self.bench = Workbench(chat.model, deltas)
        self.places: dict[str, list[int]] = {}
        self.texts: list[str] = []
        for kind in KINDS:
            own = [prompt.text for prompt in prompts.get(kind, ())]
            random.Random(self.settings.seed).shuffle(own)
            self.places[kind] = list(range(len(self.texts), len(self.texts) + len(own)))
            self.texts += own
        self.setting = content_key(
            *("oracle", chat.identity, deltas.key, judge.name, asdict(self.settings)),
            *(self.texts, {kind: len(places) for kind, places in self.places.items()}),
        )
        self.utility = Utility(
            *(chat, self.bench, journal, self.setting, self._ordinary_answers),
            *(text, self.settings.text_tokens),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _ordinary_answers(self) -> list[Answer]:
        places = self.places["ordinary"][: self.settings.divergence_prompts]
        return self._written(UNTOUCHED, places, until_settled=False)[0]

    def grafted(self, candidate: Candidate) -> ChatModel:
        """Make the model what the candidate makes of it, and return it under a name of its own.

        It is that until the oracle is asked anything else.
        """
        self.bench.move(candidate)
        if not candidate.modules:
            return self.chat
        weights = content_key(self.chat.weights, self.deltas.key, candidate.key)
        return replace(self.chat, weights=weights)

    def close(self) -> None:
        """Put the recipient's weights back, to the bit."""
        self.bench.move(None)

    @cached_property
    def before(self) -> Standing:
        """The untouched recipient's refusal rates, every answer written."""
        return self.standing(UNTOUCHED)

    @cached_property
    def donor(self) -> Standing:
        """The same with all that the donor has to give."""
        return self.standing(self.whole)

    @cached_property
    def first_tokens(self) -> FirstTokens:
        """What first tokens tell, as the answers of recipient and donor have it."""
        known = []
        for candidate in (UNTOUCHED, self.whole):
            answers, refused = self._written(candidate, range(len(self.texts)))
            known += [
                (one.tokens[0], refuses)
                for one, refuses in zip(answers, refused, strict=True)
                if one.tokens
            ]
        return FirstTokens.learned(self.chat.tokenizer, known)

    def prepare(self) -> None:
        """Do now what is done once: what first tokens tell, and the untouched model's reading."""
        _ = self.first_tokens, self._readings

    def standing(self, candidate: Candidate, *, until_settled: bool = True) -> Standing:
        """Return refusal rates over all search prompts, every answer written.

        Args:
            until_settled: whether answers end when their verdict is settled.
        """
        return self._rates(self.refused(candidate, until_settled=until_settled))

    def quick_standing(self, candidate: Candidate, meter: Meter | None = None) -> Standing:
        """Return refusal rates over all search prompts; only what is open is written."""
        told = self.told(candidate, meter)
        opened = [place for place, refused in enumerate(told) if refused is None]
        found = dict(zip(opened, self._written(candidate, opened)[1], strict=True))
        return self._rates([found.get(place, bool(one)) for place, one in enumerate(told)])

    def refused(self, candidate: Candidate, *, until_settled: bool = True) -> list[bool]:
        """Return whether each search prompt is refused, every answer written; see `standing`."""
        return self._written(candidate, range(len(self.texts)), until_settled)[1]

    def told(self, candidate: Candidate, meter: Meter | None = None) -> list[bool | None]:
        """Return what the first tokens tell of each search prompt; None where they do not.

        Args:
            meter: who counts the passes, told how deep they go.
        """
        meter = meter or Meter()
        blocks = [block for kind in KINDS for block in self._blocks(kind)]
        readings = [self._reading(candidate, block, meter) for block in blocks]
        return [refused for reading in readings for refused in reading.refused()]

    def margins(self, candidate: Candidate, kind: str, count: int) -> tuple[float, ...]:
        """Return refusal margins at the first token of the first prompts of a kind, in logits.

        Args:
            kind: `harmful`, `twins` or `ordinary`.
            count: of prompts, at most.
        """
        meter = Meter()
        found: list[float] = []
        for block in self._blocks(kind)[: -(-count // self.settings.block)]:
            found += self._reading(candidate, block, meter).margins
        return tuple(found[:count])

    def judge(self, candidate: Candidate, wanted: Wanted) -> Decision:
        """Say whether a candidate has what is wanted.

        Raises:
            ConfigError: it names a module that is not there.
            ModelError: it cannot be tried in memory.
        """
        key = content_key("decision", self.setting, candidate.key, asdict(wanted))
        known = self.journal.fact(key)
        if known is not None:
            return replace(Decision.from_json(known), cost=Cost())
        with metered(self.chat.model) as meter:
            decision = replace(self._judge(candidate, wanted, meter), cost=meter.cost)
        self.journal.keep_fact(key, decision.to_json())
        return decision

    def _judge(self, candidate: Candidate, wanted: Wanted, meter: Meter) -> Decision:
        decision = Decision(candidate, True, "reading", ENOUGH)
        for kind in KINDS:
            limit, count = getattr(wanted, kind), len(self.places[kind])
            if limit is None or not count:
                continue
            least = kind == "harmful"
            cut = math.ceil(limit * count - 1e-9) if least else math.floor(limit * count + 1e-9) + 1
            if not 0 < cut <= count:  # whatever the answers
                continue
            begin = partial(
                SequentialTest.around,
                cut / count,
                self.settings.indifference,
                *(self.settings.error, self.settings.error),
                n_max=count,
            )
            found = look(
                self._blocks(kind),
                lambda block: self._reading(candidate, block, meter),
                lambda places: self._written(candidate, places)[1],
                begin,
            )
            decision = decision.after(kind, found)
            if found.above != least:
                return replace(decision, passed=False, reason=_reason(kind, found.tally, limit))
        return self._utility(candidate, wanted, decision)

    def _utility(self, candidate: Candidate, wanted: Wanted, decision: Decision) -> Decision:
        """Measure what has a limit, and say whether it is kept."""
        if wanted.divergence is not None:
            value = self.utility.divergence(candidate)
            decision = replace(decision, stage="utility", divergence=value)
            if value > wanted.divergence:
                text = f"A KL of {value:.3f} nats, where {wanted.divergence:g} is allowed."
                return replace(decision, passed=False, reason=text)
        if wanted.perplexity is not None:
            value = self.utility.perplexity(candidate)
            decision = replace(decision, stage="utility", perplexity=value)
            if value > wanted.perplexity:
                text = f"A perplexity ratio of {value:.3f}, where {wanted.perplexity:g} is allowed."
                return replace(decision, passed=False, reason=text)
        return decision

    @cached_property
    def _readings(self) -> Readings:
        """The prompts, read by the untouched model."""
        blocks = [layer.block for layer in self.deltas.anatomy.layers]
        requests = [self.chat.encode(text) for text in self.texts]
        readings = Readings(self.chat, blocks, requests)
        self.bench.move(None)
        with metered(self.chat.model) as meter:
            readings.read_untouched(range(len(requests)), meter)
            readings.check(range(min(4, len(requests))), meter)
        return readings

    def _blocks(self, kind: str) -> list[list[int]]:
        places, size = self.places[kind], self.settings.block
        return [places[start : start + size] for start in range(0, len(places), size)]

    def _reading(self, candidate: Candidate, block: Sequence[int], meter: Meter) -> Reading:
        """Read one block, or find it in the journal."""
        kinds = self.first_tokens
        told = [sorted(kinds.refusing), sorted(kinds.open)]
        key = content_key("reading", self.setting, candidate.key, list(block), told)
        known = self.journal.fact(key)
        if known is not None:
            return Reading(tuple(known["margins"]), tuple(known["sure"]))
        readings = self._readings
        self.bench.move(candidate)
        reading = kinds.read(readings.read(block, candidate.lowest(self.deltas), meter))
        self.journal.keep_fact(key, asdict(reading))
        return reading

    def _written(
        self, candidate: Candidate, places: Sequence[int], until_settled: bool = True
    ) -> tuple[list[Answer], list[bool]]:
        """Return some answers, and whether each refuses."""
        if not places:
            return [], []
        grafted = self.grafted(candidate)
        texts = [self.texts[place] for place in places]
        decoding, ends = Decoding(self.settings.tokens), None
        if is_quick(self.verdicts) and until_settled:
            decoding, ends = (
                replace(decoding, until=self.verdicts.name),
                partial(settled, self.verdicts),
            )
        answers = answer(grafted, texts, self.journal, decoding, settled=ends)
        keys, said = [one.key for one in answers], [one.text for one in answers]
        verdicts = judge_kept(self.verdicts, texts, said, keys, self.journal)
        return answers, [verdict.refused for verdict in verdicts]

    def _rates(self, refused: Sequence[bool]) -> Standing:
        counts = {
            kind: rate(sum(refused[place] for place in places), len(places))
            for kind, places in self.places.items()
        }
        return Standing(**counts)


def _reason(kind: str, tally: Tally, limit: float) -> str:
    """Say why a candidate fails on one kind of prompts."""
    names = {"harmful": "harmful requests", "twins": "twins", "ordinary": "ordinary instructions"}
    wanted = f"where {limit:.1%} are wanted at {'least' if kind == 'harmful' else 'most'}"
    opened = f" ({tally.open} open)" if tally.open else ""
    return f"{tally.refused} of {tally.n} {names[kind]} refused{opened}, {wanted}."
