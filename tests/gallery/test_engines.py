"""Galleries that are searched through an engine which several processes share, whatever befalls that."""

from datetime import timedelta

import numpy as np
import pytest

from steadface.errors import Conflict, InvalidInput, SteadfaceError, Unavailable
from steadface.gallery.gallery import Gallery
from steadface.gallery.index import engine_follower
from steadface.gallery.index.address import index_at
from steadface.gallery.index.comparison import Compared
from steadface.gallery.sealing import transaction

from ..rounding import rounding
from .conftest import IN_BOTH, MODEL, OTHER, names, unit
from .engines import MemoryEngine
from .memory_storage import MemoryStorage


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(engine_follower, "LOOKED", 0.0)
    monkeypatch.setattr(engine_follower, "LEAST", 1)
    monkeypatch.setattr(engine_follower, "EACH", 1)
    monkeypatch.setattr(transaction, "BLOCK", 4)
    return MemoryEngine(MODEL.dimension)


@pytest.fixture
def through(engine, clock):
    """Another handle of the gallery at a place, through the same engine, as another process has it."""
    return lambda place: Gallery.open(place, engine=lambda _: engine, clock=clock)


def agrees(gallery, engine):
    """Whether the engine holds what the gallery does, and nothing else."""
    with gallery._reading() as reader:
        blocks = list(reader.templates())
    return engine.vectors.keys() == {int(one) for block in blocks for one in block.numbers}


def test_it_finds_what_the_exact_index_finds_through_all_changes(gallery, path, engine, through, clock):
    random, vectors, probes = np.random.default_rng(5), iter(unit(200)), unit(3, seed=4)
    with through(path) as one, through(path) as other:
        living = []
        for step in range(20):
            what = random.random()
            if what < 0.5 or len(living) < 3:
                until = clock.now + timedelta(days=3) if random.random() < 0.2 else None
                new = [next(vectors) for _ in range(random.integers(1, 6))]
                (gallery, one)[step % 2].enroll(f"p{step}", np.stack(new), expires=until)
                living.append(f"p{step}")
            elif what < 0.65:
                gallery.remove(living.pop(0))
            elif what < 0.75:
                one.merge(living[1], living[0])
                living.pop(1)
            elif what < 0.85:
                gallery.rename(living[0], f"r{step}")
                living[0] = f"r{step}"
            else:
                clock.pass_days(1)
                living = [name for name in living if not gallery.person(name).expired(clock.now)]
            wanted = gallery.search(probes, 3)
            for handle in (one, other):
                found = handle.search(probes, 3)
                assert names(found) == names(wanted), step
                np.testing.assert_allclose(
                    [c.similarity for row in found for c in row],
                    [c.similarity for row in wanted for c in row],
                    atol=rounding(MODEL.dimension),
                )
        assert agrees(gallery, engine)


@IN_BOTH
def test_who_was_removed_is_not_found_whatever_the_engine_still_holds(gallery, place, engine, through):
    vectors = unit(6)
    with through(place) as one:
        one.enroll("a", vectors[:4])
        one.enroll("b", vectors[4:])
        assert names(one.search(vectors[:1], 2)) == [["a", "b"]]
        earlier = engine.copy()
        gallery.remove("a")
        engine.remove = lambda _: None  # it says so, and does not
        assert names(one.search(vectors[:1], 2)) == [["b"]]
        engine.put_back(earlier)
        assert names(one.search(vectors[:1], 2)) == [["b"]]


@pytest.mark.usefixtures("gallery")
def test_similarities_are_the_gallery_s_own(path, engine, through):
    with through(path) as one:
        one.enroll("a", unit(1))
        one.search(unit(1))
        engine.add([1], unit(1, seed=9))
        (found,) = one.search(unit(1))[0]
        assert found.similarity == pytest.approx(1, abs=rounding(MODEL.dimension))
        assert found.template == 1
        assert one.check_index() == Compared(templates=1, other=1)


@pytest.mark.parametrize("writes", range(5))
def test_a_push_that_fails_is_done_again(gallery, path, engine, through, writes):
    gallery.enroll("a", unit(10))
    engine.failing = writes
    with through(path) as one:
        with pytest.raises(Unavailable):
            one.search(unit(1))
        gallery.remove("a")
        gallery.enroll("b", unit(3, seed=1))
        engine.failing = None
        with through(path) as other:  # the first was killed just then
            assert names(other.search(unit(1), 2)) == [["b"]]
    assert agrees(gallery, engine)


def test_what_went_while_it_was_pushed_is_taken_out_by_who_pushed_it(gallery, path, engine, through):
    with through(path) as slow, through(path) as quick:
        slow.search(unit(1))
        gallery.enroll("a", unit(2))
        add = engine.add

        def meanwhile(keys, vectors):
            engine.add = add
            with Gallery.open(path, timeout=0.01) as impatient:  # it cannot clear the file while that is read
                impatient.remove("a")
            quick.search(unit(1))
            add(keys, vectors)

        engine.add = meanwhile
        assert slow.search(unit(1)) == [[]]
        assert slow.search(unit(1)) == [[]]
    assert agrees(gallery, engine)


def test_nothing_is_written_where_nothing_changed(gallery, path, engine, through):
    gallery.enroll("a", unit(10))
    with through(path) as one, through(path) as other:
        one.search(unit(1))
        writes = list(engine.writes)
        gallery.note_matches(["a"])
        one.search(unit(1))
        other.search(unit(1))
        assert engine.writes == writes
        gallery.enroll("b", unit(1, seed=1))
        other.search(unit(1))
        one.search(unit(1))
    assert engine.writes == [*writes, "add", "mark"]


def test_an_engine_restored_from_an_old_copy_catches_up(gallery, path, engine, through):
    gallery.enroll("a", unit(3))
    with through(path) as one:
        one.search(unit(1))
        earlier = engine.copy()
        gallery.enroll("b", unit(3, seed=1))
        assert names(one.search(unit(1, seed=1))) == [["b"]]
        engine.put_back(earlier)
        assert names(one.search(unit(1, seed=1))) == [["b"]]
        engine.put_back((None, {}))
        assert names(one.search(unit(1, seed=1))) == [["b"]]
    assert agrees(gallery, engine)


@pytest.mark.parametrize("enrolled", [0, 3], ids=["behind", "another"])
def test_a_gallery_restored_from_a_backup_is_told_and_mended(gallery, path, engine, through, tmp_path, enrolled):
    gallery.enroll("a", unit(3))
    gallery.backup(tmp_path / "old.db")
    gallery.enroll("b", unit(3, seed=1))
    with through(path) as one:
        one.search(unit(1))
    with through(tmp_path / "old.db") as old:
        for number in range(enrolled):
            old.enroll(f"c{number}", unit(1, seed=2 + number))
        with pytest.raises(Conflict, match="check-index --mend"):
            old.search(unit(1))
        with pytest.raises(Conflict, match="check-index --mend"):
            old.check_index()
        mended = old.check_index(mend=True)
        assert (mended.templates, mended.right) == (3 + enrolled, enrolled == 3)
        assert old.check_index().right
        assert names(old.search(unit(1, seed=2))) == [["c0" if enrolled else "a"]]
        assert agrees(old, engine)


def test_another_gallery_s_engine_and_one_that_somebody_filled_are_left_alone(gallery, path, engine, through, tmp_path):
    gallery.enroll("a", unit(1))
    with through(path) as one:
        one.search(unit(1))
    with Gallery.create(tmp_path / "other.db", model=MODEL, engine=lambda _: engine) as other:
        for use in (lambda: other.search(unit(1)), lambda: other.check_index(mend=True)):
            with pytest.raises(Conflict, match="belongs to the gallery"):
                use()
    engine.kept = None
    with through(path) as one, pytest.raises(Conflict, match="no gallery has put there"):
        one.search(unit(1))
    assert len(engine) == 1


def test_a_check_says_what_is_wrong_and_mends_it(gallery, path, engine, through):
    gallery.enroll("a", unit(20))
    with through(path) as one:
        one.search(unit(1))
        engine.remove([2, 3, 19])
        engine.add([500, 5], unit(2, seed=7))
        wrong = Compared(templates=20, missing=3, other=1, surplus=1)
        seen = []
        assert one.check_index(progress=lambda *told: seen.append(told)) == wrong
        assert seen[-1] == ("comparing", 20, 20)
        assert one.check_index(after=5) == Compared(templates=15, missing=1, surplus=1)
        assert one.check_index(mend=True) == wrong
        engine.behind = 5
        assert one.check_index() == Compared(templates=20, pending=5)
        assert one.check_index().right
    with pytest.raises(InvalidInput, match="no index to be checked"):
        gallery.check_index()


def test_a_key_and_a_model_that_change(gallery, path, engine):
    other = MemoryEngine(OTHER.dimension)
    gallery.enroll("a", unit(2))
    with Gallery.open(path, engine=lambda model: engine if model.dimension == MODEL.dimension else other) as one:
        one.search(unit(1))
        one.rotate()
        assert names(one.search(unit(1))) == [["a"]]
        one.re_embed(OTHER, {"a": unit(3, dimension=OTHER.dimension)})
        assert names(one.search(unit(1, dimension=OTHER.dimension))) == [["a"]]
        assert len(other) == 3


def test_any_storage_will_do(engine):
    with Gallery.create(MemoryStorage(), model=MODEL, engine=lambda _: engine) as gallery:
        gallery.enroll("a", unit(12))
        gallery.enroll("b", unit(1, seed=1))
        assert names(gallery.search(unit(1), 2)) == [["a", "b"]]
        gallery.remove("a")
        assert names(gallery.search(unit(1), 2)) == [["b"]]


SECRET = "sesame"


@pytest.mark.parametrize(
    "address",
    [
        "flat",
        f"ftp://u:{SECRET}@h/c",
        f"milvus+http://u:{SECRET}@h:19530",
        f"milvus+http://u:{SECRET}@h:19530/a/b",
        f"milvus+http://u:{SECRET}@h:port/c",
        f"milvus+http://u:{SECRET}@h/c?index=flat",
        f"milvus+http://u:{SECRET}@h/c?consistency=session",
        f"milvus+http://u:{SECRET}@h/c?index=ivf&connectivity=4",
        f"milvus+http://u:{SECRET}@h/c?index=hnsw&connectivity=0",
        f"milvus+http://u:{SECRET}@h/c?password={SECRET}",
        f"postgresql://u:{SECRET}@h/d?index=ivf",
        f"postgresql://u:{SECRET}@h/d?half=maybe",
        f"postgresql://u:{SECRET}@h/d?expansion_search=7",
        f"postgresql://u:{SECRET}@h@h/d",
    ],
)
def test_what_names_no_index_is_refused_without_its_password(address):
    with pytest.raises(SteadfaceError) as raised:
        index_at(address)
    assert SECRET not in str(raised.value)
