"""Judges by name: what a user writes after `--judges`, and what it opens.

opening                                         the rule on the first sentences
embedded                                        the classifier in the package
phrases:gcg                                     a published keyword list
llama-guard-3                                   a guard model from its home on the hub
llama-guard-3=FOLDER_OR_HUB_ID                  ... from another place
llama-guard-3@http://localhost:8000/v1#MODEL    ... behind an endpoint, asked its raw prompt
llama-guard-3:chat@http://...#MODEL             ... by the server's own chat template
strongreject@openai:gpt-4o-mini                 a rubric, graded by any chat model
rubric@anthropic:claude-haiku-4-5
panel:opening,wildguard@http://...#MODEL        cheap first, costlier where that is unsure
panel:opening+phrases:xstest,rubric@...         two judges in the first stage
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from demur.errors import JudgeError
from demur.judge.guard_formats import FORMATS, GuardFormat, guard_format
from demur.judge.opening import OpeningJudge
from demur.judge.phrases import LISTS, PhraseList, phrase_list
from demur.judge.rubrics import RUBRICS, RubricJudge, rubric_named
from demur.judge.verdict import Judge
from demur.models.asking import Asker, Patience
from demur.models.budget import Budget
from demur.models.endpoint import is_endpoint, parse_endpoint


@dataclass(frozen=True)
class Means:
    """What judges are opened with.

    Attributes:
        budget: what may be spent, over all of them.
        patience: how long endpoints are waited for.
        at_once: how many questions each endpoint is asked at the same time.
        key_variable: the environment variable that holds the endpoints' key, if not the usual.
        device, dtype: where guard models run, and in which number format.
    """

    budget: Budget = field(default_factory=Budget)
    patience: Patience = field(default_factory=Patience)
    at_once: int = 8
    key_variable: str | None = None
    device: str = "auto"
    dtype: str = "auto"


def judge_names() -> tuple[str, ...]:
    """Return what there is, as users write it."""
    return (
        "opening",
        "embedded",
        *(f"phrases:{each.key}" for each in LISTS),
        *(each.key for each in FORMATS),
        *(f"{each.key}@ENDPOINT" for each in RUBRICS),
        "panel:JUDGE,JUDGE,...",
    )


def split_specs(text: str) -> list[str]:
    """Return the judges of a comma-separated list; a panel takes all that follows it."""
    specs: list[str] = []
    for part in text.split(","):
        if specs and specs[-1].startswith("panel:"):
            specs[-1] += f",{part.strip()}"
        elif part.strip():
            specs.append(part.strip())
    return specs


def open_judge(spec: str, means: Means | None = None) -> Judge:
    """Return the judge that `spec` names, ready to judge; nothing is asked yet.

    Raises:
        JudgeError: there is no such judge.
        EndpointError: its endpoint is not written as one.
        ModelError: its weights cannot be found or loaded.
    """
    means = means or Means()
    if spec == "opening":
        return OpeningJudge()
    if spec == "embedded":
        return _embedded()
    kind, _, rest = spec.partition(":")
    if kind == "phrases" and (found := phrase_list(rest)):
        return found
    if kind == "panel":
        return _panel(rest, means)
    name, _, address = spec.partition("@")
    name, _, way = name.partition(":")
    if address and (rubric := rubric_named(name)) and not way:
        return RubricJudge(rubric, _asker(address, means))
    base, _, place = name.partition("=")
    if (form := guard_format(base)) and way in ("", "chat") and not (place and address):
        if address:
            return _guard_endpoint(form, address, way == "chat", means)
        if not way:
            return _guard_here(form, spec.partition("=")[2] or form.hub, means)
    if rubric_named(name) and not address:
        raise JudgeError(
            f"The judge '{name}' needs a model that grades.", f"Write {name}@openai:MODEL."
        )
    raise JudgeError(f"There is no judge '{spec}'.", f"There are: {', '.join(judge_names())}.")


def subjects_of(judge: Judge) -> frozenset[str]:
    """Return which questions a judge answers, as far as is known before it is asked."""
    from demur.judge.guards import GuardJudge
    from demur.judge.panel import Panel

    if isinstance(judge, Panel):
        return frozenset().union(*(subjects_of(each) for stage in judge.stages for each in stage))
    if isinstance(judge, OpeningJudge | PhraseList):
        return frozenset({"refusal"})
    if isinstance(judge, GuardJudge) and judge.harm_only:
        return frozenset({"harm"})
    return frozenset({"refusal", "harm"})


def _embedded() -> Judge:
    from importlib import import_module

    try:
        module = import_module("demur.judge.embedded")
    except ModuleNotFoundError as error:
        raise JudgeError(
            "The judge 'embedded' is not in this installation.", "Use another, such as opening."
        ) from error
    judge: Judge = module.EmbeddedJudge()
    return judge


def _panel(rest: str, means: Means) -> Judge:
    from demur.judge.panel import Panel

    stages = [
        [open_judge(each.strip(), means) for each in _together(stage) if each.strip()]
        for stage in rest.split(",")
    ]
    if len(stages) < 2 or not all(stages):
        raise JudgeError(
            f"The panel '{rest}' has no two stages.",
            "Name the cheap judge first and the costlier after a comma: panel:opening,wildguard.",
        )
    return Panel(stages)


def _together(stage: str) -> list[str]:
    """Split a stage at each plus sign that a judge follows: names of models may hold one too."""
    kinds = ["opening", "embedded", "phrases:", *(each.key for each in FORMATS)]
    kinds += [each.key for each in RUBRICS]
    return re.split(rf"\+(?=\s*(?:{'|'.join(map(re.escape, kinds))}))", stage)


def _asker(address: str, means: Means) -> Asker:
    if not is_endpoint(address):
        raise JudgeError(
            f"'{address}' is no endpoint.",
            "Write openai:MODEL, anthropic:MODEL or http://HOST:PORT/v1#MODEL after the @.",
        )
    endpoint = parse_endpoint(address, means.key_variable)
    endpoint.key()  # a missing key is told before hours of other work
    return Asker(endpoint, budget=means.budget, patience=means.patience, at_once=means.at_once)


def _guard_endpoint(form: GuardFormat, address: str, chat: bool, means: Means) -> Judge:
    from demur.judge.guards import EndpointGuard, GuardJudge

    asker = _asker(address, means)
    by_chat = chat or not address.startswith("http")  # only a server of one's own takes raw prompts
    if by_chat and not form.chat:
        raise JudgeError(
            f"{form.key} has no chat template of its own, so that a chat interface cannot ask it "
            "as it was trained.",
            f"Use an endpoint with /completions: {form.key}@http://HOST:PORT/v1#MODEL.",
        )
    return GuardJudge(form, EndpointGuard(asker, chat=by_chat))


def _guard_here(form: GuardFormat, place: str, means: Means) -> Judge:
    from demur.judge.guard_loading import local_guard
    from demur.judge.guards import GuardJudge

    guard = local_guard(place, device=means.device, dtype=means.dtype, sees=form.sees)
    return GuardJudge(form, guard)
