from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Event, Thread

import numpy as np
import pytest

from steadface.errors import SteadfaceError
from steadface.gallery.index import top_k
from steadface.gallery.index.encodings import Exact, Half, Int8, quantise
from steadface.gallery.index.exact import UNCHANGED, FlatIndex


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def random(rng, count, dimension):
    return unit(rng.standard_normal((count, dimension)))


def exactly(keys, templates, probes, k):
    """The slow truth: all similarities in double precision, as float32; among equals the lower key first."""
    similarities = (probes.astype(np.float64) @ templates.astype(np.float64).T).astype(np.float32)
    order = np.stack([np.lexsort((keys, -row)) for row in similarities])[:, :k]
    return keys[order], np.take_along_axis(similarities, order, axis=1)


def filled(keys, templates, **options):
    index = FlatIndex(templates.shape[1], **options)
    index.add(keys, templates)
    return index


def assert_exact(index, keys, templates, probes, k):
    matches = index.search(probes, k)
    expected, similarities = exactly(keys, templates, probes, k)
    # A double sum in another order can round to the neighbouring float32: then two keys may change places.
    np.testing.assert_allclose(matches.similarities, similarities, rtol=0, atol=2e-7)
    for found, wanted, row in zip(matches.keys, expected, similarities, strict=True):
        sure = row > row[-1] + 2e-7
        assert set(wanted[sure]) <= set(found)
        assert len(set(found)) == k
    apart = np.diff(similarities, axis=1, prepend=np.inf, append=-np.inf) < -4e-7
    clear = apart[:, :-1] & apart[:, 1:]
    clear[:, -1] = False  # its next neighbour is not in sight
    np.testing.assert_array_equal(matches.keys[clear], expected[clear])


def around(rng, centre, count, spread):
    return unit(centre + spread * rng.standard_normal((count, len(centre))))


HARD = {
    "random": lambda rng, d: random(rng, 3000, d),
    "a hair apart": lambda rng, d: around(rng, np.ones(d), 3000, 1e-4),
    "closer than codes can tell": lambda rng, d: around(rng, random(rng, 1, d)[0], 3000, 1e-6),
    "duplicates": lambda rng, d: np.repeat(random(rng, 30, d), 100, axis=0),
    "one coordinate large": lambda rng, d: unit(rng.standard_normal((3000, d)) + 20 * np.eye(1, d)),
    "sparse": lambda rng, d: np.eye(d, dtype=np.float32)[rng.integers(0, d, 3000)],
    "ever better": lambda rng, d: unit(np.linspace(0, 1, 3000)[:, None] + rng.standard_normal((3000, d)) * 0.05),
}


@pytest.mark.parametrize("dimension", [7, 128, 512])
@pytest.mark.parametrize("kind", HARD)
def test_the_matches_are_the_true_ones_however_close_the_templates(monkeypatch, kind, dimension):
    monkeypatch.setattr(top_k, "BLOCK", 2000)  # several blocks
    rng = np.random.default_rng(0)
    templates = HARD[kind](rng, dimension)
    keys = rng.permutation(10 * len(templates))[: len(templates)]
    probes = np.concatenate([random(rng, 2, dimension), templates[:1], unit(np.ones((1, dimension))), -templates[-1:]])
    index = filled(keys, templates)
    for count in (1, len(probes)):
        assert_exact(index, keys, templates, probes[:count], 10)


def test_equal_templates_come_in_the_order_of_their_keys():
    rng = np.random.default_rng(1)
    keys = rng.permutation(5000)
    same = np.repeat(random(rng, 1, 64), 5000, axis=0)
    index = filled(keys, same)
    np.testing.assert_array_equal(index.search(same[:1], 20).keys[0], np.arange(20))
    index.remove(np.arange(0, 5000, 2))
    np.testing.assert_array_equal(index.search(same[:1], 20).keys[0], np.arange(1, 41, 2))


def test_estimates_are_within_the_bound_that_they_promise():
    rng = np.random.default_rng(2)
    for templates in (make(rng, 256) for make in HARD.values()):
        probes = np.concatenate([random(rng, 3, 256), templates[:3], np.eye(2, 256, dtype=np.float32)])
        index = filled(np.arange(len(templates)), templates)
        estimates, wrong = Exact().read(index._table.columns, probes).estimates(slice(0, len(templates)))
        true = templates.astype(np.float64) @ probes.astype(np.float64).T
        assert (np.abs(estimates - true) <= wrong).all()
        assert wrong.max() < 0.2  # and it means something


def test_quantising_leaves_the_residual_that_it_states():
    vectors = random(np.random.default_rng(3), 50, 512)
    found = quantise(vectors)
    assert np.abs(found.codes.astype(int)).max() == 127
    left = vectors.astype(np.float64) - found.codes * found.scales[:, None].astype(np.float64)
    np.testing.assert_allclose(found.residuals, np.linalg.norm(left, axis=1), rtol=1e-4)
    assert (np.abs(left) <= found.scales[:, None] * 0.5001).all()


def test_the_kth_largest_is_reached_by_k_rows_at_least_and_not_by_many_more():
    values = np.random.default_rng(4).standard_normal((20_000, 3)).astype(np.float32)
    for k in (1, 10, 200):
        reached = (values >= top_k.kth_largest(values, k)).sum(axis=0)
        assert (reached >= k).all()
        assert (reached <= 1.5 * k + 2).all()
    assert (top_k.kth_largest(values[:9], 10) == -np.inf).all()


def test_threads_and_the_number_of_probes_change_nothing(monkeypatch):
    monkeypatch.setattr("steadface.gallery.index.exact.WORTH_A_THREAD", 0)
    rng = np.random.default_rng(5)
    templates, probes = random(rng, 2003, 96), random(rng, 150, 96)
    one = filled(np.arange(2003), templates, threads=1).search(probes, 7)
    several = filled(np.arange(2003), templates, threads=3)
    np.testing.assert_array_equal(several.search(probes, 7).keys, one.keys)
    alone = np.concatenate([several.search(probe[None], 7).keys for probe in probes])
    np.testing.assert_array_equal(alone, one.keys)


@pytest.mark.parametrize("encoding", [Exact(), Int8(), Half()])
def test_an_index_left_alone_answers_the_same_from_packed_codes_and_forgets_them_with_a_change(encoding):
    rng = np.random.default_rng(10)
    templates, probe = random(rng, 3000, 40), random(rng, 1, 40)
    index = filled(np.arange(3000), templates, encoding=encoding)
    first = index.search(probe, 9)
    for _ in range(UNCHANGED + 1):
        later = index.search(probe, 9)
    assert (index._packed is not None) == (encoding != Half())
    np.testing.assert_array_equal(later.keys, first.keys)
    np.testing.assert_array_equal(later.similarities, first.similarities)
    index.remove(first.keys[0, :4])
    np.testing.assert_array_equal(index.search(probe, 5).keys, first.keys[:, 4:])
    index.add([9999], probe)
    assert index.search(probe, 1).keys == 9999


def test_fewer_templates_than_asked_for_leave_nobody():
    index = FlatIndex(4)
    empty = index.search(np.eye(2, 4), 3)
    assert (empty.keys == -1).all()
    assert (empty.similarities == -np.inf).all()
    index.add([5], np.eye(1, 4))
    found = index.search(np.eye(2, 4), 3)
    np.testing.assert_array_equal(found.keys, [[5, -1, -1], [5, -1, -1]])
    np.testing.assert_array_equal(found.similarities[:, 0], [1, 0])
    assert index.search(np.empty((0, 4)), 3).keys.shape == (0, 3)


@pytest.mark.parametrize("encoding", [Exact(), Int8(), Half()])
def test_any_sequence_of_changes_leaves_what_a_dictionary_holds(encoding):
    rng = np.random.default_rng(6)
    index, truth = FlatIndex(24, encoding=encoding), {}
    for _ in range(60):
        keys = rng.choice(4000, rng.integers(0, 200), replace=False)
        if rng.random() < 0.4:
            index.remove(keys)
            truth = {key: vector for key, vector in truth.items() if key not in set(keys.tolist())}
        else:
            vectors = random(rng, len(keys), 24)
            index.add(keys, vectors)
            truth |= dict(zip(keys.tolist(), vectors, strict=True))
        assert len(index) == len(truth)
    own = index.search(np.stack(list(truth.values())), 1)
    np.testing.assert_array_equal(own.keys[:, 0], list(truth))
    np.testing.assert_allclose(own.similarities[:, 0], 1, atol=0.02)


def test_what_is_removed_is_no_longer_in_memory():
    templates = random(np.random.default_rng(7), 100, 16)
    index = filled(np.arange(100), templates)
    index.remove(np.arange(0, 100, 3))
    index.remove([1, 1, 12345])
    assert len(index) == 65
    for column in (*index._table._columns.values(), index._table._keys):
        assert not column[65:].any()


@pytest.mark.parametrize(("encoding", "recall"), [(Int8(), 0.75), (Half(), 0.97)])
def test_less_of_a_template_costs_some_recall_and_saves_memory(encoding, recall):
    rng = np.random.default_rng(8)
    templates, probes = random(rng, 5000, 128), random(rng, 100, 128)
    exact, less = filled(np.arange(5000), templates), filled(np.arange(5000), templates, encoding=encoding)
    wanted, found = exact.search(probes, 10).keys, less.search(probes, 10).keys
    kept = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(wanted, found, strict=True)])
    assert recall <= kept < 1
    assert less.nbytes < exact.nbytes / 2
    similarities = less.search(probes, 10).similarities
    assert (np.diff(similarities, axis=1) <= 0).all()


def test_searches_beside_a_writer_see_every_change_whole():
    """Each change moves all ten keys to one vector: a search that saw half of it would find two similarities."""
    rng = np.random.default_rng(9)
    places, keys, done = random(rng, 8, 32), np.arange(10), Event()
    index = filled(keys, np.repeat(places[:1], 10, axis=0))

    def write():
        for turn in range(300):
            index.add(keys, np.repeat(places[turn % 8][None], 10, axis=0))
        done.set()

    def read(_):
        while not done.is_set():
            found = index.search(places, 10)
            assert (np.ptp(found.similarities, axis=1) == 0).all()
            assert (np.sort(found.keys, axis=1) == keys).all()

    writer = Thread(target=write)
    writer.start()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(read, range(3)))
    writer.join()


def test_growth_costs_no_more_per_template_however_many_there_are():
    index, rooms = FlatIndex(2), []
    for key in range(5000):
        index.add([key], [[1.0, 0.0]])
        rooms.append(len(index._table._keys))
    assert all(after == before or after >= 2 * before for before, after in pairwise(rooms))


@pytest.mark.parametrize(
    ("keys", "vectors", "complaint"),
    [
        ([1], np.eye(1, 5), "dimension 4"),
        ([1], [[2.0, 0, 0, 0]], "length 2"),
        ([1, 2], [[1.0, 0, 0, 0], [np.nan, 0, 0, 0]], "vector 1 has length nan"),
        ([1], [[np.inf, 0, 0, 0]], "finite"),
        ([1], np.zeros((1, 4)), "length 0"),
        ([1, 2], np.eye(1, 4), "2 keys for 1"),
        ([1, 1], np.eye(2, 4), "twice"),
        ([-1], np.eye(1, 4), "key -1"),
        ([1.5], np.eye(1, 4), "whole numbers"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(keys, vectors, complaint):
    index = filled([7], np.eye(1, 4))
    with pytest.raises(SteadfaceError, match=complaint):
        index.add(keys, vectors)
    assert len(index) == 1


def test_senseless_questions_are_refused():
    index = filled([7], np.eye(1, 4))
    with pytest.raises(SteadfaceError, match="k is 0"):
        index.search(np.eye(1, 4), 0)
    with pytest.raises(SteadfaceError, match="length"):
        index.search([[0.0, 0, 0, 0.5]], 1)
    with pytest.raises(SteadfaceError, match="dimension is 0"):
        FlatIndex(0)
    with pytest.raises(SteadfaceError, match="threads is -1"):
        FlatIndex(4, threads=-1)
