"""The autopilot's way: a graft where a relative has refusals to give, else distilling.

A graft takes minutes and distilling trains; so a donor comes first, where one is given or found.
One that is no relative, or does not refuse, is said, and the next is tried; then it distils.
"""

from __future__ import annotations

from dataclasses import fields, replace

from demur.aligning.config import AlignConfig
from demur.aligning.donors import Donor, Looked, look_for_donors
from demur.distill.teachers.filtering import UnfitTeacher
from demur.distilling.choosing import choose_teaching
from demur.distilling.seen import require_refusals
from demur.distilling.start import require_start
from demur.distilling.treatment import distilling, teacher_of
from demur.errors import ConfigError
from demur.grafting.config import GraftConfig
from demur.grafting.treatment import UNFIT, grafting
from demur.judge import OpeningJudge
from demur.judge.names import Means
from demur.models.chat_model import ChatModel
from demur.prompts.types import Splits
from demur.treating.config import TreatmentConfig
from demur.treating.stages import Context
from demur.treating.treated import Treated, Treatment

CHOOSING = "Choosing a path"


def aligning(config: AlignConfig, means: Means | None = None) -> Treatment:
    """Return the treatment that chooses for itself.

    A teacher, a patch to begin from and sentences to teach are looked at before anything else.

    Args:
        means: how a teacher behind an endpoint is asked.

    Raises:
        DemurError: there is no such teacher or patch, it was trained on test prompts, or a
            sentence is no refusal to the judge.
    """
    means = means or Means()
    if config.path != "graft":
        require_start(config)
        require_refusals(config.refusal, OpeningJudge())
        teacher_of(config, means)

    def treat(context: Context, chat: ChatModel, splits: Splits) -> Treated:
        with context.phase(CHOOSING):
            looked = _donors(config, context)
            if looked is not None:
                context.narrator.say(f"  {looked.sentence}")
        donors = () if looked is None else looked.donors
        said = [] if looked is None else [looked.sentence]
        for donor in donors:
            try:
                return _graft(config, context, chat, splits, donor, said)
            except UNFIT as error:
                if config.path == "graft" and donor is donors[-1]:
                    raise
                said.append(f"Nothing can be grafted from {donor.name}: {error.cause}")
                context.narrator.say(f"  {said[-1]}")
        return _distil(config, context, chat, splits, means, said)

    return treat


def _donors(config: AlignConfig, context: Context) -> Looked | None:
    """Return who could give; None where distilling was asked for, outright or by its choices.

    Raises:
        ConfigError: a graft was asked for, and there is no donor.
    """
    if config.trains or (config.path == "auto" and config.donor is None and config.teaches):
        return None
    looked = look_for_donors(config, context)
    if config.path == "graft" and not looked.donors:
        raise ConfigError(
            f"A graft was asked for. {looked.sentence}",
            "Give a donor with --donor, or leave --path out to distil.",
        )
    return looked


def _graft(
    config: AlignConfig,
    context: Context,
    chat: ChatModel,
    splits: Splits,
    donor: Donor,
    said: list[str],
) -> Treated:
    """Graft from one donor; ends in one of `UNFIT` where that cannot be."""
    shared = {each.name: getattr(config, each.name) for each in fields(TreatmentConfig)}
    own = {"donor": donor.name, "base": donor.base, "max_share": config.max_share}
    graft = GraftConfig(**{**shared, **own})
    why = (
        f"It grafts from {donor.name}, since a relative that refuses costs minutes, and training "
        "is not needed."
    )
    context.narrator.say(f"  {why}")
    treat = grafting(graft, offline=bool(donor.found))
    treated = treat(replace(context, config=graft), chat, splits)
    return replace(treated, steps=(*said, why, *treated.steps), purpose=GraftConfig.purpose)


def _distil(
    config: AlignConfig,
    context: Context,
    chat: ChatModel,
    splits: Splits,
    means: Means,
    said: list[str],
) -> Treated:
    """Distil from the teacher that was given, or that the student can be of itself."""
    choice = choose_teaching(config, context, chat, splits)
    context.narrator.say(f"  {choice.sentence}")
    try:
        treated = distilling(choice.config, means)(context, chat, splits)
    except UnfitTeacher as error:
        if choice.config == config:  # nothing was chosen: the teacher is the user's
            raise
        context.narrator.say(f"  {error.cause} It learns the sentence of --refusal instead.")
        said = [*said, error.cause]
        treated = distilling(config, means)(context, chat, splits)
    return replace(treated, steps=(*said, choice.sentence, *treated.steps))
