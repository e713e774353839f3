"""The split into train, validation and test, and smaller samples of a split.

A block (a prompt, a pair, or all pairs of one template) goes as a whole to the split that a hash
of its id and the seed names, so that adding prompts to a set moves none of the others. Where
chance would leave a split with less than half of its share of a hazard category or a contrast
kind, the fewest blocks that make it good are moved. Prompts of an earlier split that nearly
repeat one of a later split are then removed, and counted.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from demur.prompts.duplicates import THRESHOLD, near_duplicates, normalise
from demur.prompts.types import SPLITS, Prompt, Split, Splits, text_key

SHARES = (0.70, 0.12, 0.18)

_Stratum = tuple[str, str]


def split(
    prompts: Iterable[Prompt],
    *,
    seed: int = 0,
    shares: tuple[float, float, float] = SHARES,
    threshold: float = THRESHOLD,
) -> Splits:
    """Divide prompts into train, validation and test.

    Args:
        prompts: any mixture of kinds.
        seed: another seed, another division.
        shares: of train, validation and test; they add up to 1.
        threshold: from which similarity (see `duplicates`) two prompts of different splits count
            as the same. Harmful prompts are compared with harmful ones, harmless ones with
            harmless ones: a twin is meant to be like its partner.

    Returns:
        The splits, each in the order given. A prompt that repeats another, stands on both the
        harmful and the harmless side, or nearly repeats one of a later split, is removed, its
        partner with it.

    Raises:
        ValueError: the shares do not add up to 1, or one is negative.
    """
    if min(shares) < 0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise ValueError("the three shares must be at least 0 and add up to 1")
    kept, removed = _without_repeats(tuple(prompts))
    places = _assign(kept, seed, dict(zip(SPLITS, shares, strict=True)))
    parts: dict[Split, list[Prompt]] = {name: [] for name in SPLITS}
    for item in kept:
        parts[places[_block(item)]].append(item)
    later: list[tuple[Prompt, Split]] = [(item, "test") for item in parts["test"]]
    earlier: tuple[Split, ...] = ("validation", "train")
    for name in earlier:
        parts[name], gone = _without_likes(parts[name], later, threshold)
        removed += gone
        later += [(item, name) for item in parts[name]]
    return Splits(
        tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["test"]), tuple(removed)
    )


def limit(
    prompts: Sequence[Prompt], n: int | None, seed: int = 0, *, last: bool = False
) -> tuple[Prompt, ...]:
    """Take a sample of prompts that keeps pairs together and mirrors the whole.

    Hazard categories, and contrast kinds inside them, come in proportion. A smaller sample is
    always a part of a larger one, and the samples of the harmful prompts and of their twins
    hold the same pairs.

    Args:
        prompts: the prompts of one split.
        n: the most prompts to return; None for all.
        seed: another seed, another sample.
        last: take what a growing sample of this seed would come to last, so that the two have
            nothing in common as long as there is enough for both.

    Returns:
        At most `n` prompts, in the order given.

    Raises:
        ValueError: `n` is negative.
    """
    if n is None or n >= len(prompts):
        return tuple(prompts)
    if n < 0:
        raise ValueError("a sample cannot have fewer than 0 prompts")
    units: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        units[prompt.pair or f"{prompt.kind}/{prompt.key}"].append(prompt)
    chosen: set[str] = set()
    left = n
    spread = _spread(units, seed)
    for unit in reversed(spread) if last else spread:
        left -= len(units[unit])
        if left < 0:
            break
        chosen.add(unit)
    return tuple(item for item in prompts if (item.pair or f"{item.kind}/{item.key}") in chosen)


def evenly(
    prompts: Sequence[Prompt], n: int, seed: int = 0, *, last: bool = False
) -> tuple[Prompt, ...]:
    """Take a sample that holds as many prompts of each source as of any other, as far as they go.

    The built-in tiers are sources; within one, `limit` keeps pairs together and the proportions.
    """
    groups: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        groups[prompt.source].append(prompt)
    chosen: list[Prompt] = []
    left = n
    for rank, source in enumerate(sorted(groups, key=lambda name: (len(groups[name]), name))):
        share = left // (len(groups) - rank)
        sample = limit(groups[source], share, seed, last=last)
        chosen += sample
        left -= len(sample)
    return tuple(chosen)


def _spread(units: Mapping[str, Sequence[Prompt]], seed: int) -> list[str]:
    """Order units so that every beginning of the list mirrors the whole."""

    def interleave(groups: Mapping[str, Sequence[str]], where: str = "") -> list[str]:
        placed = [
            ((rank + _fraction(seed, f"order/{where}/{name}")) / len(members), name, unit)
            for name, members in groups.items()
            for rank, unit in enumerate(members)
        ]
        return [unit for *_, unit in sorted(placed)]

    by_hazard: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for unit in sorted(units, key=lambda name: _fraction(seed, f"sample/{name}")):
        first = units[unit][0]
        side = "pairs" if first.pair else first.kind
        by_hazard[f"{side}/{first.source}/{first.hazard}"][first.contrast].append(unit)
    return interleave({name: interleave(groups, name) for name, groups in by_hazard.items()})


def _block(prompt: Prompt) -> str:
    return prompt.block or prompt.pair or prompt.key


def _fraction(seed: int, name: str) -> float:
    """Return a number in [0, 1) that depends on the seed and the name only."""
    digest = hashlib.sha256(f"{seed}/{name}".encode("utf-8", errors="surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def _strata(prompt: Prompt) -> tuple[_Stratum, ...]:
    """Return the groups of which each split should hold its share."""
    side = "ordinary" if prompt.kind == "ordinary" else "contrast"
    tier = ("source", prompt.source)
    return (("kind", prompt.kind), ("hazard", prompt.hazard), (side, prompt.contrast), tier)


def _assign(
    prompts: Sequence[Prompt], seed: int, shares: Mapping[Split, float]
) -> dict[str, Split]:
    """Give each block its split."""
    members: dict[str, Counter[_Stratum]] = defaultdict(Counter)
    for prompt in prompts:
        members[_block(prompt)].update(_strata(prompt))
    position = {block: _fraction(seed, f"split/{block}") for block in members}
    places: dict[str, Split] = {}
    for block, value in position.items():
        if value < shares["train"]:
            places[block] = "train"
        elif value < shares["train"] + shares["validation"]:
            places[block] = "validation"
        else:
            places[block] = "test"
    counts: dict[Split, Counter[_Stratum]] = {name: Counter() for name in SPLITS}
    for block, place in places.items():
        counts[place].update(members[block])
    totals = sum(counts.values(), Counter())
    for stratum in sorted(totals):
        candidates = sorted(
            (block for block in members if members[block][stratum]), key=position.__getitem__
        )
        for name in SPLITS:
            _fill(stratum, name, candidates, members, places, counts, shares)
    return places


def _fill(
    stratum: _Stratum,
    name: Split,
    candidates: Sequence[str],
    members: Mapping[str, Counter[_Stratum]],
    places: dict[str, Split],
    counts: Mapping[Split, Counter[_Stratum]],
    shares: Mapping[Split, float],
) -> None:
    """Move blocks to a split until it has half of its share of a stratum, or one of three."""
    total = sum(counts[other][stratum] for other in SPLITS)
    enough = len(candidates) >= sum(share > 0 for share in shares.values())

    def least(place: Split) -> int:
        one = stratum[0] == "kind" and shares[place] > 0 and enough
        return max(math.floor(shares[place] * total / 2), int(one))

    for block in candidates:
        if counts[name][stratum] >= least(name):
            return
        giver = places[block]
        if giver == name or counts[giver][stratum] - members[block][stratum] < least(giver):
            continue
        counts[giver].subtract(members[block])
        counts[name].update(members[block])
        places[block] = name


def _without_repeats(
    prompts: tuple[Prompt, ...],
) -> tuple[list[Prompt], list[tuple[Prompt, str]]]:
    """Leave out prompts that repeat an earlier one, or that stand on both sides."""
    texts = [normalise(item.text) for item in prompts]
    sides: dict[str, set[bool]] = defaultdict(set)
    for item, text in zip(prompts, texts, strict=True):
        sides[text].add(item.kind == "harmful")
    reasons: dict[int, str] = {}
    seen: dict[str, int] = {}
    for index, text in enumerate(texts):
        if len(sides[text]) > 1:
            reasons[index] = "is given both as harmful and as harmless"
        elif text in seen:
            reasons[index] = "repeats another prompt"
        else:
            seen[text] = index
    return _remove(prompts, reasons)


def _without_likes(
    prompts: Sequence[Prompt], others: Sequence[tuple[Prompt, Split]], threshold: float
) -> tuple[list[Prompt], list[tuple[Prompt, str]]]:
    """Leave out prompts that nearly repeat one of a later split."""
    reasons: dict[int, str] = {}
    for harmful in (True, False):
        mine = [i for i, item in enumerate(prompts) if (item.kind == "harmful") == harmful]
        theirs = [entry for entry in others if (entry[0].kind == "harmful") == harmful]
        for left, right, _ in near_duplicates(
            [prompts[i].text for i in mine], [item.text for item, _ in theirs], threshold
        ):
            reasons.setdefault(mine[left], f"nearly repeats a prompt of {theirs[right][1]}")
    return _remove(prompts, reasons)


def _remove(
    prompts: Sequence[Prompt], reasons: Mapping[int, str]
) -> tuple[list[Prompt], list[tuple[Prompt, str]]]:
    """Leave out the prompts at the given places, and the partners that they leave alone."""
    lost = {prompts[i].pair for i in reasons if prompts[i].pair}
    remaining = {item.pair for i, item in enumerate(prompts) if i not in reasons and item.pair}
    kept: list[Prompt] = []
    removed: list[tuple[Prompt, str]] = []
    for index, item in enumerate(prompts):
        if index in reasons:
            removed.append((item, reasons[index]))
        elif item.pair in lost & remaining:
            removed.append((item, "its partner was removed"))
        else:
            kept.append(item)
    return kept, removed


def block_of(text: str) -> str:
    """Return the block id of a prompt that stands alone: equal texts share it."""
    return text_key(normalise(text))
