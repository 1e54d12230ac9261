import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from steadface.errors import SteadfaceError
from steadface.gallery.gallery import Gallery
from steadface.gallery.index import milvus
from steadface.gallery.index.address import index_at
from steadface.gallery.index.comparison import Compared
from steadface.gallery.index.engine import Mark
from steadface.gallery.index.exact import FlatIndex
from steadface.gallery.index.milvus import FLAT, MilvusIndex, hnsw, inverted_lists
from steadface.gallery.storage import ModelIdentity

from ..rounding import rounding

for needed, remedy in (("pymilvus", "'steadface[milvus]'"), ("milvus_lite", "milvus-lite")):
    if find_spec(needed) is None:  # looked for and not loaded, which takes seconds in every process that collects
        pytest.skip(f"{needed} is not installed: pip install {remedy}", allow_module_level=True)

MODEL = ModelIdentity(fingerprint="ab" * 32, dimension=32, mirror=True, name="the model")

A_MARK = Mark(gallery="ab" * 16, sequence=7, head="cd" * 32, template=40)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return str(tmp_path_factory.mktemp("milvus") / "lite.db")


def test_it_finds_what_the_exact_index_finds_through_all_changes(address, monkeypatch):
    monkeypatch.setattr(milvus, "BATCH_NUMBERS", 32 * 100)  # several messages
    monkeypatch.setattr(milvus, "BATCH_KEYS", 40)
    rng = np.random.default_rng(0)
    templates, probes = unit(rng.standard_normal((450, 32))), unit(rng.standard_normal((120, 32)))
    keys = rng.permutation(10_000)[:450]
    exact = FlatIndex(32)
    with MilvusIndex(address, model=MODEL, collection="changes") as index:
        for either in (exact, index):
            either.add(keys, templates)
            either.add(keys[:50], templates[50:100])  # as the gallery does when it catches up
            either.remove(keys[100:200])
            either.remove(keys[100:200])
        assert len(index) == len(exact) == 350
        found, wanted = index.search(probes, 5), exact.search(probes, 5)
    np.testing.assert_allclose(found.similarities, wanted.similarities, atol=rounding(32))
    untied = np.diff(wanted.similarities, axis=1, prepend=2, append=-2) < -2 * rounding(32)
    same = untied[:, :-1] & untied[:, 1:] & (np.arange(5) < 4)
    np.testing.assert_array_equal(found.keys[same], wanted.keys[same])


def test_it_is_still_there_for_the_next_to_open_it(address):
    with MilvusIndex(address, model=MODEL, collection="kept") as index:
        assert index.search(np.eye(1, 32), 2).keys.tolist() == [[-1, -1]]
        index.add([2**62, 3], np.eye(2, 32))
    with MilvusIndex(address, model=MODEL, collection="kept") as index:
        found = index.search(np.eye(1, 32), 3)
    assert found.keys.tolist() == [[2**62, 3, -1]]
    assert found.similarities.tolist() == [[1, 0, -np.inf]]


@pytest.mark.parametrize(
    "other",
    [
        ModelIdentity(fingerprint="cd" * 32, dimension=32, mirror=True),
        ModelIdentity(fingerprint="ab" * 32, dimension=32, mirror=False),
        ModelIdentity(fingerprint="ab" * 32, dimension=16, mirror=True),
    ],
    ids=["weights", "mirror", "dimension"],
)
def test_a_collection_of_another_model_is_refused(address, other):
    MilvusIndex(address, model=MODEL, collection="taken").close()
    with pytest.raises(SteadfaceError, match=r"collection taken at .* holds other vectors"):
        MilvusIndex(address, model=other, collection="taken")


@pytest.mark.parametrize("approximate", [hnsw(), inverted_lists(lists=8, probed=8)], ids=lambda index: index.kind)
def test_approximate_indexes_find_near_templates_too(address, approximate):
    rng = np.random.default_rng(1)
    templates = unit(rng.standard_normal((200, 32)))
    with MilvusIndex(address, model=MODEL, collection=approximate.kind, index=approximate) as index:
        index.add(np.arange(200), templates)
        found = index.search(templates, 1).keys[:, 0]
        assert index.pending() == 0
    assert (found == np.arange(200)).mean() > 0.95
    with pytest.raises(SteadfaceError, match=f"made with a {approximate.kind} index, not FLAT"):
        MilvusIndex(address, model=MODEL, collection=approximate.kind)


@pytest.mark.parametrize(("index", "pending"), [(hnsw(), 150), (FLAT, 0)], ids=["hnsw", "exact"])
def test_what_a_server_has_not_indexed_yet_is_counted(address, monkeypatch, index, pending):
    name = f"counted_{index.kind}"
    with MilvusIndex(address, model=MODEL, collection=name, index=index) as opened:
        opened.add(np.arange(200), unit(np.random.default_rng(1).standard_normal((200, 32))))
        told = opened._client.describe_index(name, opened._vector)
        # as a server says it; a segment that is merged counts as indexed, and as pending once more
        said = {**told, "indexed_rows": 50, "pending_index_rows": 200}
        monkeypatch.setattr(opened._client, "describe_index", lambda *_, **__: said)
        assert opened.pending() == pending


def test_what_does_not_fit_is_refused_before_it_is_sent(address):
    with MilvusIndex(address, model=MODEL, collection="checked") as index:
        with pytest.raises(SteadfaceError, match="dimension 32"):
            index.add([1], np.eye(1, 16))
        with pytest.raises(SteadfaceError, match="length"):
            index.search(2 * np.eye(1, 32), 1)
        index.add([], np.empty((0, 32)))
        assert len(index) == 0


def test_nobody_there_is_said_with_the_address():
    with pytest.raises(SteadfaceError, match=r"Milvus at http://localhost:1: .*see that the address is right"):
        MilvusIndex("http://localhost:1", model=MODEL, timeout=1)
    with pytest.raises(SteadfaceError, match="Milvus at neither"):
        MilvusIndex("neither", model=MODEL, timeout=1)


def test_without_pymilvus_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(SteadfaceError, match=r"pip install 'steadface\[milvus\]'"):
        MilvusIndex("http://localhost:1", model=MODEL)


def test_a_mark_is_kept_beside_the_vectors_and_found_by_no_search(address):
    with MilvusIndex(address, model=MODEL, collection="marked") as index:
        assert index.mark() is None
        index.put_mark(replace(A_MARK, sequence=1))
        index.add(np.arange(1, 41), unit(np.random.default_rng(2).standard_normal((40, 32))))
        index.put_mark(A_MARK)
        assert sorted(index.search(np.eye(1, 32), 40).keys[0]) == list(range(1, 41))
        keys, vectors = index.within(5, 12)
        assert (keys.tolist(), vectors.shape) == (list(range(5, 13)), (8, 32))
        assert sorted(index.outside(38, 9)) == [39, 40]
    with MilvusIndex(address, model=MODEL, collection="marked", consistency="eventual") as index:
        assert (index.mark(), len(index)) == (A_MARK, 40)


def test_a_gallery_in_milvus_follows_templates_that_go_and_people_who_become_one(address, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    vectors = np.eye(4, 32, dtype=np.float32)
    path, place = tmp_path / "g.db", index_at(f"milvus+file:{address}/people")
    with Gallery.create(path, model=MODEL, **place) as gallery, Gallery.open(path) as other:
        gallery.enroll("dan", vectors[:2])
        gallery.enroll("Daniel", vectors[2:3])
        gallery.search(vectors)
        other.remove_template("dan", 1)
        assert gallery.search(vectors[:1])[0][0].similarity == 0
        other.merge("dan", "Daniel")
        other.rename("Daniel", "Dan")
        assert [one[0].person.name for one in gallery.search(vectors[1:3])] == ["Dan", "Dan"]
        other.remove("Dan")
    with Gallery.open(path, **place) as again:
        assert again.search(vectors, 2) == [[], [], [], []]
        assert again.check_index() == Compared()
        again.enroll("Ada", vectors[:2])
        with MilvusIndex(address, model=MODEL, collection="people") as index:
            index.add([70], vectors[:1])
        assert again.check_index(mend=True) == Compared(templates=2, surplus=1)
        assert again.check_index() == Compared(templates=2)
