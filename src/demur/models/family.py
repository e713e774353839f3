"""Whether two models are relatives, so that parts of one can be put into the other.

    family = check_family(recipient, donor)
    for sentence in family.bridged: ...

All is read from small files, headers and some hundred kilobytes of weights, before any model is
loaded: a check of two 70B models takes seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.checkpoint.header import TensorRange
from demur.checkpoint.index import Checkpoint, open_checkpoint
from demur.errors import ModelError
from demur.models.config import architecture_name, read_config, refuse_quantized
from demur.models.similarity import FLOATS, Similarity, similarity
from demur.models.vocabulary import Vocabulary, compare_vocabularies, read_vocabulary

# Strangers come out at about 0 and relatives at about 0.99; what lies between is said.
RELATED, CLOSE = 0.5, 0.95
WIDTHS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "moe_intermediate_size", "num_experts", "num_local_experts",
)  # fmt: skip
FUNCTIONS = ("hidden_act", "hidden_activation", "activation_function")
NOTED = (
    "rope_parameters", "sliding_window", "layer_types", "rms_norm_eps", "layer_norm_eps",
    "max_position_embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One way in which the two differ.

    Attributes:
        subject: what differs, in a word or two.
        sentence: what it is in each, and what becomes of it.
        bridged: whether a graft can be made all the same.
    """

    subject: str
    sentence: str
    bridged: bool


@dataclass(frozen=True)
class Family:
    """What two models have in common.

    Attributes:
        recipient, donor, base: the folders.
        architecture: the recipient's class.
        similarity: of the weights of recipient and donor; None if no matrix could be compared.
        recipient_base, donor_base: of each with the base, where there is one.
        differences: every one that was found.
    """

    recipient: Path
    donor: Path
    base: Path | None
    architecture: str
    similarity: Similarity | None
    recipient_base: Similarity | None
    donor_base: Similarity | None
    differences: tuple[Difference, ...]

    @property
    def related(self) -> bool:
        """Whether parts of the donor can be put into the recipient."""
        return not self.barriers

    @property
    def bridged(self) -> tuple[str, ...]:
        """What differs and does no harm, a sentence each."""
        return tuple(one.sentence for one in self.differences if one.bridged)

    @property
    def barriers(self) -> tuple[str, ...]:
        """Why no graft can be made, a sentence each."""
        return tuple(one.sentence for one in self.differences if not one.bridged)


@dataclass(frozen=True)
class _Member:
    """One model, as far as it was read; `role` is how sentences call it."""

    role: str
    folder: Path
    config: Mapping[str, Any]
    settings: Any
    checkpoint: Checkpoint
    vocabulary: Vocabulary


class NotRelatives(ModelError):
    """Two models have no common base, or not the same shape."""


def check_family(recipient: Path, donor: Path, base: Path | None = None) -> Family:
    """Return what recipient and donor (and their base) have in common, as relatives.

    Raises:
        NotRelatives: they are none, with the numbers that show it.
        ModelError: one of them is quantised.
        CheckpointError: a checkpoint cannot be read.
    """
    family = compare_family(recipient, donor, base)
    if family.related:
        return family
    raise NotRelatives(
        f"{recipient.name} and {donor.name} are not relatives: {' '.join(family.barriers[:4])}",
        "Choose a donor that was made from the same base model; to align a model that has no "
        "relative, use demur distill.",
    )


def compare_family(recipient: Path, donor: Path, base: Path | None = None) -> Family:
    """Return the same as `check_family`, for strangers too: `related` says what they are.

    Raises:
        ModelError: a model is quantised, or its config or tokenizer cannot be read.
        CheckpointError: a checkpoint cannot be read.
    """
    one, other = _read("recipient", recipient), _read("donor", donor)
    differences = list(_differences(one, other))
    alike = _similarity(one, other)
    differences += _kinship(one, other, alike)
    recipient_base = donor_base = None
    if base is not None:
        root = _read("base", base)
        recipient_base, donor_base = _similarity(one, root), _similarity(other, root)
        for member, found in ((one, recipient_base), (other, donor_base)):
            differences += [*_structure(member, root), *_kinship(member, root, found)]
    return Family(
        recipient=recipient,
        donor=donor,
        base=base,
        architecture=architecture_name(dict(one.config)),
        similarity=alike,
        recipient_base=recipient_base,
        donor_base=donor_base,
        differences=tuple(differences),
    )


def _read(role: str, folder: Path) -> _Member:
    from transformers import AutoConfig

    config = read_config(folder)
    refuse_quantized(config, folder.name)
    checkpoint = open_checkpoint(folder)
    for name, tensor in checkpoint.tensors.items():
        if tensor.dtype not in FLOATS and _in_a_layer(name) and len(tensor.shape) > 1:
            raise ModelError(
                f"{folder.name} is quantised: its {name} is stored as {tensor.dtype}, so its "
                "weights cannot be changed.",
                "Name the unquantised model that it was made from, in BF16, F16 or F32.",
            )
    try:
        settings = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"The config.json of {folder.name} was not understood ({error}).",
            "Check that this transformers knows the model's architecture.",
        ) from error
    return _Member(role, folder, config, settings, checkpoint, read_vocabulary(folder))


def _differences(one: _Member, other: _Member) -> Iterator[Difference]:
    """Yield every difference but that of the weights' values."""
    yield from _structure(one, other)
    for key in NOTED:
        mine, theirs = getattr(one.settings, key, None), getattr(other.settings, key, None)
        if mine != theirs:
            sentence = (
                f"{key} is {mine} in the {one.role} and {theirs} in the {other.role}; the "
                f"{one.role}'s stays."
            )
            yield Difference(key, sentence, True)
    yield from _vocabulary(one, other)
    mine, theirs = _main_dtype(one.checkpoint), _main_dtype(other.checkpoint)
    if mine != theirs:
        sentence = (
            f"The {one.role} is stored in {mine} and the {other.role} in {theirs}; what is grafted "
            f"is rounded to {mine}."
        )
        yield Difference("dtype", sentence, True)


def _structure(one: _Member, other: _Member) -> Iterator[Difference]:
    """Yield what differs in architecture, widths and tensors."""
    mine, theirs = one.config.get("model_type"), other.config.get("model_type")
    if mine != theirs:
        sentence = f"The {one.role} is a {mine} and the {other.role} a {theirs}."
        yield Difference("architecture", sentence, False)
    for key in (*WIDTHS, *FUNCTIONS):
        left, right = getattr(one.settings, key, None), getattr(other.settings, key, None)
        if left != right:
            sentence = f"{key} is {left} in the {one.role} and {right} in the {other.role}."
            yield Difference(key, sentence, False)
    left, right = _layers(one.checkpoint), _layers(other.checkpoint)
    for member, lacking in ((other, left.keys() - right.keys()), (one, right.keys() - left.keys())):
        if lacking:
            whole = max(len(left), len(right))
            sentence = (
                f"The {member.role} lacks {len(lacking)} of {whole} tensors of layers, such as "
                f"{min(lacking)}."
            )
            yield Difference("layers", sentence, False)
    unlike = [key for key in left.keys() & right.keys() if left[key].shape != right[key].shape]
    if unlike:
        key = min(unlike)
        sentence = (
            f"{len(unlike)} tensors of layers have other shapes, such as {key}: "
            f"{list(left[key].shape)} in the {one.role} and {list(right[key].shape)} in the "
            f"{other.role}."
        )
        yield Difference("shapes", sentence, False)


def _vocabulary(one: _Member, other: _Member) -> Iterator[Difference]:
    """Yield what differs in tokens, rows, the tied head and the chat template."""
    mine, theirs = one.vocabulary, other.vocabulary
    found = compare_vocabularies(mine, theirs)
    if not found.agree:
        sentence = (
            f"Only {found.same} of the {min(len(mine.tokens), len(theirs.tokens))} tokens of the "
            "smaller vocabulary have the same number in both."
        )
        yield Difference("vocabulary", sentence, False)
    elif found.only_first or found.only_second or found.moved:
        parts = [
            f"the {member.role} has {len(only)} tokens that the other lacks, such as {only[0]!r}"
            for member, only in ((one, found.only_first), (other, found.only_second))
            if only
        ]
        if found.moved:
            parts.append(f"{len(found.moved)} numbers stand for other tokens")
        sentence = f"{'; '.join(parts)}; embeddings stay the {one.role}'s."
        yield Difference("vocabulary", sentence[0].upper() + sentence[1:], True)
    rows, other_rows = _embedding_rows(one), _embedding_rows(other)
    if rows != other_rows:
        sentence = (
            f"The {one.role} has {rows} rows of embeddings for {len(mine.tokens)} tokens and the "
            f"{other.role} {other_rows} for {len(theirs.tokens)}; they are not grafted."
        )
        yield Difference("embedding rows", sentence, True)
    for member in (one, other):
        beyond = member.vocabulary.highest + 1 - _embedding_rows(member)
        if beyond > 0:
            sentence = (
                f"The tokenizer of the {member.role} has {beyond} tokens beyond its "
                f"{_embedding_rows(member)} rows of embeddings, which no prompt may hold."
            )
            yield Difference("tokens without rows", sentence, True)
    tied, other_tied = _tied(one), _tied(other)
    if tied != other_tied:
        sentence = (
            f"The {(one if tied else other).role} shares its output head with its embedding and "
            f"the {(other if tied else one).role} does not; neither is grafted."
        )
        yield Difference("tied head", sentence, True)
    if mine.template != theirs.template:
        without = [member.role for member in (one, other) if not member.vocabulary.template]
        how = f"the {' and the '.join(without)} has none" if without else "each has its own"
        yield Difference("chat template", f"The chat templates differ: {how}.", True)


def _similarity(one: _Member, other: _Member) -> Similarity | None:
    left, right = _layers(one.checkpoint), _layers(other.checkpoint)
    pairs = {
        left[key].name: right[key].name
        for key in left
        if key in right and left[key].shape == right[key].shape and len(left[key].shape) > 1
    }
    return similarity(one.checkpoint, other.checkpoint, pairs)


def _kinship(one: _Member, other: _Member, found: Similarity | None) -> Iterator[Difference]:
    """Yield what the similarity of the weights says."""
    if found is None:
        sentence = f"The {one.role} and the {other.role} have no matrix of the same shape."
        yield Difference("weights", sentence, False)
        return
    numbers = (
        f"the median cosine of the weights of {one.role} and {other.role} over {found.matrices} "
        f"matrices is {found.median:.4f}, the lowest {found.lowest:.4f}"
    )
    if found.median < RELATED:
        sentence = f"Their weights have nothing to do with each other: {numbers}, where relatives "
        yield Difference("weights", f"{sentence}have about 0.99.", False)
    elif found.median < CLOSE:
        sentence = f"They are distant relatives: {numbers}; less may carry over."
        yield Difference("weights", sentence, True)
    elif found.identical and other.role == "donor":
        sentence = "No sampled weight differs: recipient and donor may be one and the same."
        yield Difference("weights", sentence, True)


def _layers(checkpoint: Checkpoint) -> dict[str, TensorRange]:
    """Return the tensors of layers that are weights, by their names without the model's prefix."""
    tensors = [
        tensor
        for name, tensor in checkpoint.tensors.items()
        if _in_a_layer(name) and 1 <= len(tensor.shape) <= 3 and not name.endswith("inv_freq")
    ]
    names = [tensor.name.split(".") for tensor in tensors]
    drop = 0
    while names and len({name[drop] for name in names}) == 1:
        if any(name[drop].isdigit() or name[drop + 1].isdigit() for name in names):
            break
        drop += 1
    return {".".join(tensor.name.split(".")[drop:]): tensor for tensor in tensors}


def _in_a_layer(name: str) -> bool:
    return any(word.isdigit() for word in name.split("."))


def _outside(member: _Member) -> list[TensorRange]:
    """Return the matrices outside of layers that have the model's width."""
    return [
        tensor
        for name, tensor in member.checkpoint.tensors.items()
        if not _in_a_layer(name)
        and len(tensor.shape) == 2
        and tensor.shape[1] == member.settings.hidden_size
    ]


def _embedding_rows(member: _Member) -> int:
    """Return the rows of the input embedding: those of the matrix that has most."""
    return max((tensor.shape[0] for tensor in _outside(member)), default=0)


def _tied(member: _Member) -> bool:
    """Whether the output head is the embedding: asked for, or the only one there is."""
    rows = _embedding_rows(member)
    heads = sum(tensor.shape[0] == rows for tensor in _outside(member))
    return bool(getattr(member.settings, "tie_word_embeddings", False)) or heads < 2


def _main_dtype(checkpoint: Checkpoint) -> str:
    counts: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        counts[tensor.dtype] += tensor.elements
    return counts.most_common(1)[0][0]
