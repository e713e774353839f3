"""The linear probe: what the untouched model already knows about which requests are harmful.

A ridge probe (least squares on labels, each side weighed alike; for two classes it has the
direction of Fisher's discriminant) reads the residual stream at the last token of a request.
Layer and ridge are chosen on validation prompts. Its curve says, at every threshold, what share of
harmful requests, of their twins and of ordinary instructions would be refused if the probe alone
decided. A treatment below the curve has not brought out what the model knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demur.distill.baselines.states import last_token_states
from demur.errors import PromptError
from demur.stats import Z95, Rate, rate

if TYPE_CHECKING:
    from demur.models.chat_model import ChatModel
    from demur.prompts.types import Prompt

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
SIDES = ("harmful", "twins", "ordinary")
LEAST = 8


@dataclass(frozen=True)
class Area:
    """The area under a ROC curve of m positives and n negatives, with its 95 % interval."""

    value: float
    low: float
    high: float
    positives: int
    negatives: int


@dataclass(frozen=True)
class ProbeCurve:
    """What a linear probe on the untouched model tells, on test prompts; JSON by `asdict`.

    Attributes:
        layer: whose output it reads, counted from one.
        ridge: relative to the mean variance of a feature, chosen with the layer on validation.
        validation: the area there, harmful against twins and ordinary together.
        harmful, twins, ordinary: share refused at each of `thresholds`, from none to all.
        thresholds: descending scores; a request is refused from its threshold on.
        against_twins, against_ordinary: areas of harmful against each.
        threshold: where the score (harmful less twins less ordinary) was highest on validation.
        chosen: the three test rates there, by name.
    """

    layer: int
    ridge: float
    validation: Area
    thresholds: tuple[float, ...]
    harmful: tuple[float, ...]
    twins: tuple[float, ...]
    ordinary: tuple[float, ...]
    against_twins: Area
    against_ordinary: Area
    threshold: float
    chosen: dict[str, Rate]


@dataclass(frozen=True)
class Probe:
    """A trained probe: its layer, its ridge, and score = (state - centre) . weights."""

    layer: int
    ridge: float
    centre: Any
    weights: Any
    validation: Area

    def scores(self, states: Any) -> list[float]:
        """Return one score a request, larger the more harmful.

        Args:
            states: (requests, depth + 1, width), from `last_token_states`.
        """
        values = (states[:, self.layer].double() - self.centre) @ self.weights
        return [float(value) for value in values]


def area(positives: Sequence[float], negatives: Sequence[float]) -> Area:
    """Return the share of pairs in which the positive one has the higher score, ties as halves.

    The interval is Newcombe's (2006, Statistics in Medicine 25, part 2, method 5), the score
    interval with Hanley and McNeil's variance; it is right also where no pair is out of order, as
    DeLong's and the bootstrap's are not.

    Raises:
        ValueError: one of the two is empty.
    """
    import numpy as np

    if not positives or not negatives:
        raise ValueError("area() needs at least one score on each side")
    ordered = np.sort(np.asarray(negatives, float))
    below = np.searchsorted(ordered, positives, "left")
    upto = np.searchsorted(ordered, positives, "right")
    m, n = len(positives), len(negatives)
    value = float((below + upto).sum() / (2 * m * n))

    def outside(theta: float) -> bool:
        more = (m + n) / 2 - 1
        spread = theta * (1 - theta) / (m * n)
        spread *= 1 + more * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(theta - value) > Z95 * math.sqrt(max(0.0, spread))

    def bound(far: float) -> float:
        near, out = value, far
        for _ in range(60):
            middle = (near + out) / 2
            near, out = (near, middle) if outside(middle) else (middle, out)
        return near

    low = 0.0 if value == 0 else bound(0.0)
    high = 1.0 if value == 1 else bound(1.0)
    return Area(value, low, high, m, n)


def train_probe(train: Mapping[str, Any], validation: Mapping[str, Any]) -> Probe:
    """Fit a probe at every layer and ridge, and return the one that validation prompts like best.

    Args:
        train, validation: states by side (`harmful`, `twins`, `ordinary`), from
            `last_token_states`; training may lack one of the benign sides.

    Raises:
        PromptError: fewer than eight harmful or benign requests to train on, or none of a side
            to choose on.
    """
    import torch

    bad = train["harmful"]
    benign = [train[side] for side in SIDES[1:] if side in train and len(train[side])]
    good = torch.cat(benign) if benign else bad[:0]
    if min(len(bad), len(good)) < LEAST or not all(len(validation[side]) for side in SIDES):
        raise PromptError(
            f"A probe cannot be trained on {len(bad)} harmful and {len(good)} benign requests and "
            f"chosen on {', '.join(f'{len(validation[side])} {side}' for side in SIDES)}.",
            f"Give at least {LEAST} of each to train on, and one of each to choose on.",
        )
    best: Probe | None = None
    for layer in range(1, bad.shape[1]):  # the embedding of the last token tells length at most
        for ridge, centre, weights in _fits(bad[:, layer].double(), good[:, layer].double()):
            probe = Probe(layer, ridge, centre, weights, Area(0.0, 0.0, 1.0, 0, 0))
            scores = {side: probe.scores(validation[side]) for side in SIDES}
            found = area(scores["harmful"], [*scores["twins"], *scores["ordinary"]])
            if best is None or found.value > best.validation.value:
                best = Probe(layer, ridge, centre, weights, found)
    assert best is not None
    return best


def _fits(bad: Any, good: Any) -> list[tuple[float, Any, Any]]:
    """Return (ridge, centre, weights) for each ridge, from one eigendecomposition."""
    import torch

    centre = (bad.mean(0) + good.mean(0)) / 2
    difference = bad.mean(0) - good.mean(0)
    sides = [(side - side.mean(0)) / len(side) ** 0.5 for side in (bad, good)]
    covariance = sum(side.T @ side for side in sides) / 2
    values, vectors = torch.linalg.eigh(covariance)
    power = float(values.clamp(min=0).mean())
    if power == 0:  # every request ends alike here
        return [(RIDGES[-1], centre, difference)]
    along = vectors.T @ difference
    return [
        (ridge, centre, vectors @ (along / (values.clamp(min=0) + ridge * power)))
        for ridge in RIDGES
    ]


def curve(probe: Probe, validation: Mapping[str, Any], test: Mapping[str, Any]) -> ProbeCurve:
    """Return the curve of a probe on test prompts.

    Args:
        validation, test: states by side, as in `train_probe`; every side is needed.

    Raises:
        PromptError: a side has no test prompts.
    """
    empty = [side for side in SIDES if not len(test[side])]
    if empty:
        raise PromptError(
            f"The probe's curve needs test prompts of every side; there are no {empty[0]} ones.",
            "Give some.",
        )
    chosen_on = {side: probe.scores(validation[side]) for side in SIDES}
    scores = {side: probe.scores(test[side]) for side in SIDES}
    thresholds = sorted({score for side in SIDES for score in scores[side]}, reverse=True)

    def value(threshold: float) -> float:
        harmful, twins, ordinary = (_share(chosen_on[side], threshold) for side in SIDES)
        return harmful - twins - ordinary

    candidates = sorted({score for side in SIDES for score in chosen_on[side]}, reverse=True)
    first = max(candidates, key=value)
    following = candidates[candidates.index(first) + 1 :][:1]
    threshold = (first + following[0]) / 2 if following else first
    shares = {side: tuple(_share(scores[side], one) for one in thresholds) for side in SIDES}
    return ProbeCurve(
        layer=probe.layer,
        ridge=probe.ridge,
        validation=probe.validation,
        thresholds=tuple(thresholds),
        harmful=shares["harmful"],
        twins=shares["twins"],
        ordinary=shares["ordinary"],
        against_twins=area(scores["harmful"], scores["twins"]),
        against_ordinary=area(scores["harmful"], scores["ordinary"]),
        threshold=threshold,
        chosen={
            side: rate(sum(score >= threshold for score in found), len(found))
            for side, found in scores.items()
        },
    )


def _share(scores: Sequence[float], threshold: float) -> float:
    return sum(score >= threshold for score in scores) / len(scores)


def probe_curve(
    chat: ChatModel,
    train: Mapping[str, Sequence[Prompt]],
    validation: Mapping[str, Sequence[Prompt]],
    test: Mapping[str, Sequence[Prompt]],
) -> ProbeCurve:
    """Train a probe on an untouched student, and return its curve on test prompts.

    Args:
        train, validation, test: prompts by side: `harmful`, `twins`, `ordinary`.

    Raises:
        PromptError: too few prompts on a side.
    """
    import torch

    width = int(chat.model.config.get_text_config().hidden_size)
    depth = int(chat.model.config.get_text_config().num_hidden_layers)

    def states(part: Mapping[str, Sequence[Prompt]]) -> dict[str, Any]:
        found = {side: torch.zeros(0, depth + 1, width) for side in SIDES}
        for side, prompts in part.items():
            if prompts:
                requests = [chat.encode(prompt.text) for prompt in prompts]
                found[side] = last_token_states(chat.model, requests)
        return found

    learnt, chosen_on, seen = states(train), states(validation), states(test)
    return curve(train_probe(learnt, chosen_on), chosen_on, seen)
