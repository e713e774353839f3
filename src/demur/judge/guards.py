"""Guard models as judges: on this machine's own weights, or behind an endpoint.

    GuardJudge(guard_format("llama-guard-3"), local_guard("meta-llama/Llama-Guard-3-8B"))
    GuardJudge(guard_format("wildguard"), EndpointGuard(Asker(parse_endpoint("http://...#m"))))

Decoding is greedy, and a few tokens long. What a guard is asked, and how its reply is read, is in
`demur.judge.guard_formats`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from demur.errors import JudgeError
from demur.judge.guard_formats import GuardFormat, Said
from demur.judge.kept import judged_each
from demur.judge.verdict import Verdict
from demur.models.asking import Asker
from demur.models.endpoint import Question

if TYPE_CHECKING:
    from demur.models.chat_model import ChatModel

VERSION = 1
CHOICES = 5  # as many of the likeliest first tokens as every server gives


@dataclass(frozen=True)
class Asked:
    """One thing that a guard is asked: the ready prompt, and the two turns that it is about."""

    text: str
    prompt: str
    answer: str


class Backend(Protocol):
    """Where a guard model runs."""

    @property
    def name(self) -> str:
        """Which weights are asked, and where."""

    def replies(
        self, form: GuardFormat, asked: Sequence[Asked]
    ) -> Iterator[tuple[int, Said | None]]:
        """Yield (index, reply); None where a prompt does not fit into the model's context."""


class GuardJudge:
    """A guard model that judges answers."""

    def __init__(self, form: GuardFormat, backend: Backend) -> None:
        self.form, self.backend = form, backend
        self.name = f"{form.key}-{VERSION}@{backend.name}"
        self.description = f"{form.description} ({backend.name})."

    @property
    def asker(self) -> Asker | None:
        """Who asks the endpoint, where there is one."""
        return self.backend.asker if isinstance(self.backend, EndpointGuard) else None

    @property
    def harm_only(self) -> bool:
        """Whether it tells nothing of refusals."""
        return self._undecided("").outcome is None

    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        """Return one verdict an answer, in order."""
        return judged_each(self, prompts, answers)

    def judge_each(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> Iterator[tuple[int, Verdict]]:
        """Yield (index, verdict) as the guard's replies come.

        An answer without a word is undecided, without asking.
        """
        asked: list[Asked] = []
        owners: list[tuple[int, int]] = []
        wanted: dict[int, int] = {}
        for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            if not answer.strip():
                yield index, self._undecided("empty")
                continue
            texts = self.form.ask(prompt, answer)
            wanted[index] = len(texts)
            asked += [Asked(text, prompt, answer) for text in texts]
            owners += [(index, place) for place in range(len(texts))]
        replies: dict[int, dict[int, Said | None]] = defaultdict(dict)
        for number, said in self.backend.replies(self.form, asked):
            index, place = owners[number]
            replies[index][place] = said
            if len(replies[index]) == wanted[index]:
                ready = replies.pop(index)
                parts = [part for _, part in sorted(ready.items()) if part is not None]
                whole = len(parts) == wanted[index]
                yield (
                    index,
                    self.form.read(parts) if whole else self._undecided("too long for the guard"),
                )

    def _undecided(self, reason: str) -> Verdict:
        """Return the undecided verdict on the questions that this guard answers."""
        nothing = self.form.read([Said("")] * len(self.form.prompts("", "")))
        return Verdict(nothing.outcome, reason, harm=nothing.harm)


class EndpointGuard:
    """A guard model behind an endpoint: by its raw prompt, or by the server's chat template."""

    def __init__(self, asker: Asker, *, chat: bool = False) -> None:
        self.asker, self.chat = asker, chat
        self.name = asker.endpoint.name + (" (chat)" if chat else "")

    def replies(
        self, form: GuardFormat, asked: Sequence[Asked]
    ) -> Iterator[tuple[int, Said | None]]:
        """Yield (index, reply) as they come.

        Raises:
            EndpointError: see `Asker.ask_all`.
            JudgeError: the guard has no chat template that a server could use.
        """
        if self.chat and not form.chat:
            raise JudgeError(
                f"{form.key} has no chat template of its own, so that a chat interface cannot ask "
                "it as it was trained.",
                "Use an endpoint with /completions, such as vLLM or llama.cpp.",
            )
        choices = CHOICES if form.choices else 0
        questions = [
            Question(user=each.prompt, assistant=each.answer, tokens=form.tokens, choices=choices)
            if self.chat
            else Question(prompt=each.text, tokens=form.tokens, choices=choices)
            for each in asked
        ]
        for index, reply in self.asker.ask_all(questions):
            yield index, Said(reply.text, reply.first)


class LocalGuard:
    """A guard model in this process's memory."""

    def __init__(self, chat: ChatModel, name: str) -> None:
        self.model, self.name = chat, name

    def replies(
        self, form: GuardFormat, asked: Sequence[Asked]
    ) -> Iterator[tuple[int, Said | None]]:
        """Yield (index, reply) batch by batch, decoded greedily."""
        from demur.models.chat_model import context_length
        from demur.models.generation import decode_all

        tokenizer = self.model.tokenizer
        ids = [
            tokenizer(each.text, add_special_tokens=True).input_ids
            if form.marks
            else tokenizer(form.first_mark + each.text, add_special_tokens=False).input_ids
            for each in asked
        ]
        room = context_length(self.model.model) - form.tokens
        fitting = [index for index, row in enumerate(ids) if len(row) <= room]
        for index in set(range(len(ids))) - set(fitting):
            yield index, None
        candidates = CHOICES if form.choices else 0
        rows = [ids[index] for index in fitting]
        for batch in decode_all(self.model, rows, form.tokens, rows=16, candidates=candidates):
            for place, written in batch:
                first: dict[str, float] = {}
                if written.candidates is not None and written.log_probabilities is not None:
                    likeliest = written.candidates[0].tolist()
                    values = written.log_probabilities[0].tolist()
                    first = dict(zip(map(tokenizer.decode, likeliest), values, strict=True))
                text = tokenizer.decode(list(written.tokens), skip_special_tokens=True)
                yield fitting[place], Said(text, first)
