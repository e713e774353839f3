"""A model behind an endpoint as the teacher: OpenAI's protocol or Anthropic's.

    teacher = Remote(Asker(parse_endpoint("openai:gpt-4o-mini"), budget=budget), journal)

Caps, keys, patience and resuming are as everywhere (`models.asking`). A reply that the endpoint's
own content filter withheld or cut is no refusal of the model: such prompts have no answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demur.console import Advance
from demur.models.asking import Asker
from demur.models.endpoint_answers import endpoint_answers, was_filtered
from demur.models.generation import Decoding
from demur.prompts.types import Prompt
from demur.run.journal import Journal

TOKENS = 120


@dataclass(frozen=True)
class Remote:
    """A teacher behind an endpoint; a `Teacher`.

    Attributes:
        system: a system prompt, or an empty string for none.
        tokens: the most of an answer.
    """

    asker: Asker
    journal: Journal
    system: str = ""
    tokens: int = TOKENS

    @property
    def name(self) -> str:
        """The endpoint's short name."""
        return self.asker.endpoint.name

    def answers(self, prompts: Sequence[Prompt], advance: Advance) -> Mapping[str, str]:
        """As in `Teacher`.

        Raises:
            EndpointError: it cannot be asked, or the budget is spent; what came is kept.
        """
        said = endpoint_answers(
            self.asker,
            [prompt.text for prompt in prompts],
            self.journal,
            Decoding(self.tokens),
            system=self.system,
            advance=advance,
        )
        return {
            prompt.key: one.text
            for prompt, one in zip(prompts, said, strict=True)
            if not was_filtered(self.journal, one)
        }
