"""Models and endpoints as sources: whoever answers is asked the study's prompts, and the answers
are kept in the journal batch by batch, so that a killed study asks only what is missing.

`Respondent` is all that a study must know of whoever answers: `ModelRespondent` is a model in
memory, `EndpointRespondent` one behind an endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from demur.console import Narrator
from demur.prompts.attacks import with_template
from demur.prompts.types import Prompt
from demur.run.journal import Answer, Journal
from demur.study.source import Attack, Entry, How, Source

if TYPE_CHECKING:
    from demur.models.asking import Asker
    from demur.models.chat_model import ChatModel


class Respondent(Protocol):
    """Whoever answers requests."""

    @property
    def how(self) -> How:
        """`model` or `endpoint`."""

    @property
    def origin(self) -> str:
        """One sentence on who answers, without a folder of this machine or a key."""

    @property
    def identity(self) -> str:
        """Equal for two respondents whose answers to one request are the same."""

    @property
    def takes_openings(self) -> bool:
        """Whether words can be put into its mouth (prefill)."""

    def answers(
        self,
        prompts: Sequence[str],
        journal: Journal,
        *,
        tokens: int,
        opening: str,
        advance: Callable[[int], None],
    ) -> list[Answer]:
        """Return one answer a prompt, from the journal where it is known; fresh ones go into it.

        Args:
            tokens: at most so many a answer.
            opening: words put into its mouth; empty for none.
            advance: called with the number of answers that have just become known.
        """


@dataclass(frozen=True)
class ModelRespondent:
    """A chat model in memory that answers greedily."""

    chat: ChatModel
    origin: str
    how: How = "model"
    takes_openings: bool = True

    @property
    def identity(self) -> str:
        """As in `ChatModel`."""
        return self.chat.identity

    def answers(
        self,
        prompts: Sequence[str],
        journal: Journal,
        *,
        tokens: int,
        opening: str,
        advance: Callable[[int], None],
    ) -> list[Answer]:
        """As in `Respondent`."""
        from demur.models.generation import Decoding, answer

        return answer(self.chat, prompts, journal, Decoding(tokens, opening), advance=advance)


@dataclass(frozen=True)
class EndpointRespondent:
    """A model behind an endpoint; words cannot be put into its mouth."""

    asker: Asker
    system: str = ""
    how: How = "endpoint"
    takes_openings: bool = False

    @property
    def origin(self) -> str:
        """As in `Respondent`."""
        return f"{self.asker.endpoint.name}, an endpoint, asked here."

    @property
    def identity(self) -> str:
        """As in `Respondent`."""
        from demur.models.endpoint_answers import identity

        return identity(self.asker, self.system)

    def answers(
        self,
        prompts: Sequence[str],
        journal: Journal,
        *,
        tokens: int,
        opening: str,
        advance: Callable[[int], None],
    ) -> list[Answer]:
        """As in `Respondent`.

        Raises:
            EndpointError: a prompt could not be answered; all answers that came are kept.
        """
        from demur.models.endpoint_answers import endpoint_answers
        from demur.models.generation import Decoding

        decoding = Decoding(tokens, opening)
        return endpoint_answers(
            self.asker, prompts, journal, decoding, system=self.system, advance=advance
        )


@dataclass(frozen=True)
class Questions:
    """What a respondent is asked.

    Attributes:
        harmful, benign: direct requests.
        prefilled: harmful requests that are asked again with `opening` forced.
        opening: the first words of a compliant answer.
        templated: harmful requests that are asked again inside each of `templates`.
        templates: jailbreak texts of the user's with a place for the request.
        tokens: at most so many an answer.
    """

    harmful: tuple[Prompt, ...]
    benign: tuple[Prompt, ...]
    prefilled: tuple[Prompt, ...]
    opening: str
    templated: tuple[Prompt, ...]
    templates: tuple[str, ...]
    tokens: int


def ask(
    name: str, respondent: Respondent, questions: Questions, journal: Journal, narrator: Narrator
) -> Source:
    """Put all questions to one respondent, and return its answers as a source."""
    entries: list[Entry] = []

    def put(attack: Attack, prompts: Sequence[Prompt], template: str, opening: str) -> None:
        asked = [with_template(p.text, template) if template else p.text for p in prompts]
        with narrator.progress(f"{name}, {attack}", len(asked)) as advance:
            answers = respondent.answers(
                asked, journal, tokens=questions.tokens, opening=opening, advance=advance
            )
        entries.extend(
            Entry(
                prompt.text,
                answer.text,
                "harmful" if prompt.kind == "harmful" else "benign",
                attack,
                answer.key,
                finished=answer.finished,
            )
            for prompt, answer in zip(prompts, answers, strict=True)
        )

    put("direct", (*questions.harmful, *questions.benign), "", "")
    notes = []
    if questions.prefilled and respondent.takes_openings:
        put("prefill", questions.prefilled, "", questions.opening)
    elif questions.prefilled:
        notes.append("No words can be put into its mouth: prefill is not measured.")
    for template in questions.templates:
        put("template", questions.templated, template, "")
    return Source(
        name,
        respondent.how,
        f"{respondent.origin.rstrip('.')}; answers of at most {questions.tokens} tokens.",
        tuple(entries),
        tuple(notes),
        respondent.identity,
    )
