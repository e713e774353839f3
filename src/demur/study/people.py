"""Who judges in a study: a rule, or the people whose labels came with recorded answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from demur.errors import ConfigError
from demur.judge import Judge, OpeningJudge, Verdict
from demur.judge.verdict import Outcome
from demur.study.source import Source

JUDGES = ("opening", "people")


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


def choose_judge(name: str, sources: Sequence[Source]) -> Judge:
    """Return the judge of that name.

    Raises:
        ConfigError: there is none, or people are asked for and no answer has their label.
    """
    if name not in JUDGES:
        raise ConfigError(f"There is no judge '{name}'.", f"Name one of: {', '.join(JUDGES)}.")
    return PeopleJudge(sources, OpeningJudge()) if name == "people" else OpeningJudge()
