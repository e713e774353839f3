"""The student as its own teacher: it is told, or shown, to refuse; it then learns to do so untold.

    teacher = Instructed(chat, journal, criterion, (*instructions(), *shots(...)))
    texts = teacher.answers(prompts, advance)

Best of several contexts: wordings of a safety instruction first, then examples. Each harmful
request is asked in one context after another until there is a clean refusal, and the first one
wins. Benign requests are asked in the first context alone: more tries would only find more
refusals. (Context distillation, Askell et al. 2021, arXiv 2112.00861, on answers that a
judge chose.)

SmolLM2-135M on 24 harmful validation requests (greedy, 95 % intervals): clean refusals to 8 (18 to
53 %) under the four instructions, to 16 (47 to 82 %) with two contexts of examples after them; of
24 twins it refused 3 (4 to 31 %) in the first context.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from demur.console import Advance
from demur.distill.baselines.context import INSTRUCTIONS, ContextBaseline, ContextChat, Shot
from demur.distill.teachers.filtering import Criterion
from demur.errors import ModelError, PromptError
from demur.judge.settled import is_quick, settled
from demur.judge.verdict import Judge
from demur.models.chat_model import ChatModel
from demur.models.generation import Decoding, answer
from demur.prompts.types import Prompt
from demur.run.journal import Journal
from demur.stats import Rate
from demur.wording.sentences import sentences

WEAK = 0.2  # share of clean refusals below which a student is too weak to teach itself
PILOT = 96  # harmful requests on which that is found out
TOKENS = 56
SHOWN = 3  # examples of each kind in a context
EXAMPLE_TOKENS = 32


@dataclass(frozen=True)
class Sampled:
    """What a student said of itself.

    Attributes:
        texts: by the prompts' keys: a clean refusal where there was one, else what was said in the
            first context.
        contexts: how many clean refusals came of each context, by its name.
    """

    texts: Mapping[str, str]
    contexts: Mapping[str, int]


@dataclass(frozen=True)
class Instructed:
    """A student in contexts that are to make it refuse; a `Teacher`.

    Attributes:
        chat: the untouched student.
        contexts: in the order in which they are tried.
        tokens: the most of an answer; what is longer is cut off, and then is no clean refusal.
    """

    chat: ChatModel
    journal: Journal
    criterion: Criterion
    contexts: tuple[ContextBaseline, ...]
    tokens: int = TOKENS
    name: str = "the model itself, under a safety instruction"

    def answers(self, prompts: Sequence[Prompt], advance: Advance) -> Mapping[str, str]:
        """As in `Teacher`."""
        return self.sampled(prompts, advance).texts

    def sampled(self, prompts: Sequence[Prompt], advance: Advance) -> Sampled:
        """Return the answers, and which contexts the clean refusals are from."""
        texts: dict[str, str] = {}
        counts: Counter[str] = Counter()
        waiting = list(prompts)
        for context in self.contexts:
            asked = context.applied(self.chat)
            some = _fitting(asked, waiting)
            said = self._ask(asked, [prompt.text for prompt in some], advance)
            flaws = self.criterion.flaws([prompt.text for prompt in some], said)
            clean = set()
            for prompt, text, flaw in zip(some, said, flaws, strict=True):
                if prompt.kind == "harmful" and not flaw:
                    texts[prompt.key] = text
                    counts[context.name] += 1
                    clean.add(prompt.key)
                else:
                    texts.setdefault(prompt.key, text)
            left = [each for each in waiting if each.kind == "harmful" and each.key not in clean]
            advance(len(waiting) - len(left))
            waiting = left
        advance(len(waiting))
        return Sampled(texts, dict(counts))

    def _ask(self, asked: ContextChat, requests: list[str], advance: Advance) -> list[str]:
        judge = next((one for one in self.criterion.judges if is_quick(one)), None)
        found = answer(
            asked,
            requests,
            self.journal,
            Decoding(self.tokens, until=f"{judge.name}, answered" if judge else ""),
            advance=lambda count: advance(0),
            settled=None if judge is None else partial(_answered, judge),
        )
        return [one.text for one in found]


def _answered(judge: Judge, request: str, text: str) -> bool:
    """Whether it is settled that an answer refuses not; refusals are written to their end."""
    return settled(judge, request, text) and not judge.judge([request], [text])[0].refused


def instructions() -> tuple[ContextBaseline, ...]:
    """Return the contexts that are a safety instruction, in several wordings."""
    return tuple(ContextBaseline(name, text) for name, text in INSTRUCTIONS.items())


def shots(
    chat: ChatModel,
    harmful: Sequence[Prompt],
    benign: Sequence[Prompt],
    refusals: Sequence[str],
    judge: Judge,
    journal: Journal,
) -> tuple[ContextBaseline, ...]:
    """Return contexts of examples: harmful requests refused, benign ones answered by the student.

    There are none where the template takes one turn only, or no harmful request is given.

    Args:
        harmful, benign: training requests; the first few are shown.
        refusals: the sentences that harmful ones are refused with, in turn.
    """
    answered = _own_examples(chat, benign[: 4 * SHOWN], judge, journal)[: 2 * SHOWN]
    made = []
    for number in range(2):
        refused = [
            Shot(prompt.text, refusals[place % len(refusals)])
            for place, prompt in enumerate(harmful[number * SHOWN : (number + 1) * SHOWN])
        ]
        helped = answered[number * SHOWN : (number + 1) * SHOWN]
        both = [
            shot
            for place in range(SHOWN)
            for shot in (*helped[place : place + 1], *refused[place : place + 1])
        ]
        if refused:
            made.append(ContextBaseline(f"examples {number + 1}", shots=tuple(both)))
    try:
        for context in made:
            context.applied(chat).text("Hello")
    except ModelError:
        return ()
    return tuple(made)


def _own_examples(
    chat: ChatModel, benign: Sequence[Prompt], judge: Judge, journal: Journal
) -> list[Shot]:
    """Return benign requests with the first sentence of the student's own answer."""
    requests = [prompt.text for prompt in benign]
    said = [one.text for one in answer(chat, requests, journal, Decoding(EXAMPLE_TOKENS))]
    verdicts = judge.judge(requests, said)
    return [
        Shot(request, sentences(text)[0])
        for request, text, verdict in zip(requests, said, verdicts, strict=True)
        if verdict.outcome == "complied" and sentences(text)
    ]


def too_weak(clean: Rate) -> bool:
    """Return whether a student with so many clean refusals cannot be its own teacher."""
    return not clean.n or clean.value < WEAK


def _fitting(asked: ContextChat, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Leave out requests that are shown in this context, or too long for the room it leaves."""
    shown = {shot.request for shot in asked.shots}
    some = []
    for prompt in prompts:
        if prompt.text in shown:
            continue
        try:
            asked.encode(prompt.text)
        except PromptError:
            continue
        some.append(prompt)
    return some
