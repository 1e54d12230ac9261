import numpy as np
import pytest

from steadface import clustering
from steadface.clustering import likeness_bound, people_alike


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings of 60 people with one to four images each, mixed, and who they are."""
    rng = np.random.default_rng(0)
    who = rng.permutation(np.repeat(np.arange(60), 1 + np.arange(60) % 4))
    people = rng.normal(size=(60, 64))
    return unit(people[who] + 0.2 * rng.normal(size=(len(who), 64))), who


def assert_same_groups(labels: np.ndarray, who: np.ndarray) -> None:
    np.testing.assert_array_equal(labels[:, None] == labels, who[:, None] == who)


def test_images_of_one_person_are_joined_and_nobody_else(planted):
    embeddings, who = planted
    labels = people_alike(embeddings)
    assert_same_groups(labels, who)
    first = np.sort(np.unique(labels, return_index=True)[1])
    np.testing.assert_array_equal(labels[first], np.arange(60))


def test_blocks_and_samples_do_not_matter(planted, monkeypatch):
    embeddings, who = planted
    monkeypatch.setattr(clustering, "BLOCK", 7 * len(embeddings))
    monkeypatch.setattr(clustering, "SAMPLED", 100)
    assert_same_groups(people_alike(embeddings), who)


def test_the_bound_is_six_robust_deviations_above_the_median(planted):
    embeddings, _ = planted
    pairs = [embeddings[i] @ embeddings[j] for i in range(len(embeddings)) for j in range(i)]
    middle = np.median(pairs)
    expected = middle + 6 * 1.4826 * np.median(np.abs(pairs - middle))
    assert likeness_bound(embeddings) == pytest.approx(expected, abs=1e-5)


def test_images_are_joined_through_others():
    strangers = np.random.default_rng(1).normal(size=(80, 64))
    turns = np.deg2rad([0, 60, 30])
    chain = np.zeros((3, 64))
    chain[:, 0], chain[:, 1] = np.cos(turns), np.sin(turns)
    embeddings = unit(np.concatenate([chain, strangers]))
    assert chain[0] @ chain[1] < likeness_bound(embeddings) < chain[0] @ chain[2]
    assert people_alike(embeddings).tolist() == [0, 0, 0, *range(1, 81)]


def test_one_image_is_one_person():
    assert people_alike(unit(np.ones((1, 8)))).tolist() == [0]
