import numpy as np
import pytest

from steadface.errors import SteadfaceError
from steadface.gallery.index.approximate import ApproximateIndex
from steadface.gallery.index.exact import FlatIndex

from ..rounding import rounding


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def people(rng, count, each, dimension):
    """Templates of people: those of one person have cosines of about .6."""
    centres = np.repeat(unit(rng.standard_normal((count, dimension))), each, axis=0)
    return unit(centres + 0.8 * unit(rng.standard_normal((count * each, dimension))))


def test_it_finds_the_person_in_clusters_as_faces_make_them():
    rng = np.random.default_rng(0)
    templates = people(rng, 500, 4, 64)
    enrolled, probes = np.delete(templates, np.s_[::4], axis=0), templates[::4]
    exact, index = FlatIndex(64), ApproximateIndex(64, threads=1)
    for either in (exact, index):
        either.add(np.arange(len(enrolled)), enrolled)
    wanted, found = exact.search(probes, 1), index.search(probes, 1)
    assert (wanted.keys == found.keys).mean() > 0.98
    same = wanted.keys == found.keys
    np.testing.assert_allclose(found.similarities[same], wanted.similarities[same], atol=rounding(64))


def test_a_wider_search_misses_less():
    rng = np.random.default_rng(1)
    templates, probes = unit(rng.standard_normal((4000, 64))), unit(rng.standard_normal((100, 64)))
    exact = FlatIndex(64)
    exact.add(np.arange(4000), templates)
    recalls = []
    for width in (10, 400):
        index = ApproximateIndex(64, connectivity=8, expansion_add=40, expansion_search=width, threads=1)
        index.add(np.arange(4000), templates)
        found, wanted = index.search(probes, 10).keys, exact.search(probes, 10).keys
        recalls.append(np.mean([len(set(a) & set(b)) for a, b in zip(found, wanted, strict=True)]) / 10)
    assert recalls[0] < 0.95 * recalls[1]
    assert recalls[1] > 0.95


def test_it_keeps_to_the_protocol():
    index = ApproximateIndex(4, threads=1)
    assert (index.search(np.eye(2, 4), 3).keys == -1).all()
    index.add([5, 2**62], np.eye(2, 4))
    index.add([5], np.eye(4)[2:3])  # a new vector under the same key
    index.remove([99])
    assert len(index) == 2
    found = index.search(np.eye(4)[2:3], 3)
    np.testing.assert_array_equal(found.keys, [[5, 2**62, -1]])
    np.testing.assert_array_equal(found.similarities, [[1, 0, -np.inf]])
    index.remove([5, 5])
    found = index.search(np.eye(4)[1:3], 2)
    np.testing.assert_array_equal(found.keys, [[2**62, -1]] * 2)
    index.remove([2**62])
    assert len(index) == 0
    assert (index.search(np.eye(2, 4), 3).keys == -1).all()
    index.add([], np.empty((0, 4)))


def test_what_does_not_fit_is_refused():
    index = ApproximateIndex(4, threads=1)
    with pytest.raises(SteadfaceError, match="dimension 4"):
        index.add([1], np.eye(1, 5))
    with pytest.raises(SteadfaceError, match="expansion_search is 0"):
        ApproximateIndex(4, expansion_search=0)
