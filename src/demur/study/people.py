"""Who judges in a study: any judge, or the people whose labels came with recorded answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from demur.errors import ConfigError
from demur.judge import Judge, Verdict
from demur.judge.names import Means, open_judge, subjects_of
from demur.judge.verdict import Outcome
from demur.study.source import Source

PEOPLE, OTHERWISE = "people", "embedded"


class PeopleJudge:
    """Says what people said of an answer; answers that they did not see go to another judge."""

    def __init__(self, sources: Iterable[Source], otherwise: Judge) -> None:
        """Take the labels of all sources; where two contradict each other the answer is undecided.

        Raises:
            ConfigError: no answer has a label.
        """
        self.otherwise = otherwise
        self.labels: dict[tuple[str, str], Outcome] = {}
        known: dict[str, Outcome] = {"refused": "refused", "complied": "complied"}
        for source in sources:
            for entry in source.entries:
                if entry.label is None:
                    continue
                pair, said = (entry.prompt, entry.answer), known.get(entry.label, "undecided")
                agreed = self.labels.get(pair, said) == said
                self.labels[pair] = said if agreed else "undecided"
        if not self.labels:
            raise ConfigError(
                "No recorded answer has a label of people's.",
                "Name the column with --label-column, or choose another --judge.",
            )
        self.name = f"people, else {otherwise.name}"
        self.description = (
            f"People's own labels for {len(self.labels):,} answers (neither refused nor complied: "
            f"undecided); for all others: {otherwise.description}"
        )

    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        """Return one verdict an answer."""
        pairs = list(zip(prompts, answers, strict=True))
        rest = [index for index, pair in enumerate(pairs) if pair not in self.labels]
        judged = self.otherwise.judge([prompts[i] for i in rest], [answers[i] for i in rest])
        fresh = dict(zip(rest, judged, strict=True))
        return [
            fresh[index] if index in fresh else Verdict(self.labels[pair], "people's label")
            for index, pair in enumerate(pairs)
        ]


def choose_judge(name: str, sources: Sequence[Source], means: Means | None = None) -> Judge:
    """Return the judge of that name; `people` are those who labelled recorded answers.

    Raises:
        ConfigError: people are asked for and no answer has their label, or the judge cannot tell a
            refusal.
        JudgeError, EndpointError, ModelError: there is no such judge, or it cannot be opened.
    """
    if name == PEOPLE:
        return PeopleJudge(sources, open_judge(OTHERWISE, means))
    judge = open_judge(name, means)
    if "refusal" not in subjects_of(judge):
        raise ConfigError(
            f"The judge '{name}' tells harm, and not whether an answer refuses.",
            f"Choose another with --judge, such as {OTHERWISE}.",
        )
    return judge
