"""Searches that answer from a state that is followed in the background, and what becomes of them when it cannot be."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from steadface.errors import Conflict, InvalidInput, Unavailable
from steadface.gallery.gallery import Gallery
from steadface.gallery.sealing.keys import new_key
from steadface.gallery.storage.sqlite import SQLiteStorage

from ..waiting import until
from .conftest import IN_BOTH, OTHER, Clock, names, unit

STALENESS = 5.0
"""Seconds: what is told is found at once, and no machine is so busy that it takes longer."""


class Counted(SQLiteStorage):
    """One that counts how often it is read, and can be cut off."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read, self.cut = 0, False

    def reading(self):  # type: ignore[no-untyped-def]
        self.read += 1
        if self.cut:
            raise Unavailable("cut off")
        return super().reading()


@pytest.fixture
def follower(gallery: Gallery, place: str) -> Iterator[Gallery]:
    gallery.enroll("Ada", unit(2))
    with Gallery.open(place, staleness=STALENESS) as opened:
        yield opened


@IN_BOTH
def test_what_anybody_changes_is_found_without_being_asked_for(gallery: Gallery, follower: Gallery) -> None:
    probes = unit(3)
    assert names(follower.search(probes[:1])) == [["Ada"]]
    gallery.enroll("Bob", probes[2:])
    until(lambda: names(follower.search(probes[2:])) == [["Bob"]])
    gallery.rename("Bob", "Bea")
    until(lambda: names(follower.search(probes[2:])) == [["Bea"]])
    gallery.remove("Ada")
    until(lambda: names(follower.search(probes[:1])) == [["Bea"]])
    assert follower.findable() == 1
    assert follower.freshness().entry == gallery.info().entries
    assert 0 <= follower.freshness().age <= STALENESS


@IN_BOTH
def test_who_changes_something_finds_it(follower: Gallery) -> None:
    """Through the same gallery at once, however far behind the background is."""
    for place, vector in enumerate(unit(8, seed=1)):
        follower.enroll(f"p{place}", vector[None])
        assert names(follower.search(vector[None])) == [[f"p{place}"]]
        follower.remove(f"p{place}")
        assert names(follower.search(vector[None])) == [["Ada"]]


def test_a_search_does_not_ask_the_storage(gallery: Gallery, path: Path) -> None:
    gallery.enroll("Ada", unit(1))
    storage = Counted(path)
    with Gallery.open(storage, staleness=3600) as opened:
        opened.search(unit(1))
        before = storage.read
        for _ in range(5):
            assert names(opened.search(unit(1))) == [["Ada"]]
            assert opened.findable() == 1
        assert storage.read == before


def test_nothing_is_answered_from_a_state_that_is_too_old(gallery: Gallery, path: Path) -> None:
    gallery.enroll("Ada", unit(1))
    storage = Counted(path)
    with Gallery.open(storage, staleness=0.1) as opened:
        opened.search(unit(1))
        storage.cut = True
        until(lambda: _refused(opened.freshness))
        with pytest.raises(Unavailable, match=r"cut off.*looked at again"):
            opened.search(unit(1))
        storage.cut = False
        until(lambda: not _refused(opened.freshness))
        until(lambda: names(opened.search(unit(1))) == [["Ada"]])


def _refused(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except Unavailable:
        return True
    return False


def test_one_that_does_not_answer_is_not_waited_for(gallery: Gallery, path: Path) -> None:
    """As a server that is cut off says nothing for a long time."""
    gallery.enroll("Ada", unit(1))
    storage = Counted(path)
    stuck, silent = threading.Event(), threading.Event()

    def wait(_: float) -> None:
        stuck.set()
        silent.wait()

    storage.wait = wait  # type: ignore[method-assign, assignment]
    with Gallery.open(storage, staleness=0.1) as opened:
        stuck.wait()
        until(lambda: _refused(opened.freshness))
        with pytest.raises(Unavailable, match="does not answer"):
            opened.search(unit(1))
        silent.set()


@IN_BOTH
def test_another_key_or_model_ends_it(gallery: Gallery, follower: Gallery) -> None:
    gallery.rotate(new_key())
    with pytest.raises(Conflict, match="key"):
        until(lambda: not follower.search(unit(1)))


def test_its_own_new_key_and_model_are_followed(follower: Gallery) -> None:
    follower.rotate(new_key())
    assert names(follower.search(unit(1))) == [["Ada"]]
    follower.re_embed(OTHER, {"Ada": unit(1, dimension=OTHER.dimension)})
    assert names(follower.search(unit(1, dimension=OTHER.dimension))) == [["Ada"]]
    with pytest.raises(InvalidInput):
        follower.search(unit(1))


def test_nobody_is_found_beyond_their_expiry(gallery: Gallery, place: str, clock: Clock) -> None:
    gallery.enroll("Ada", unit(1), expires="2031-05-03")
    with Gallery.open(place, staleness=STALENESS, clock=clock) as opened:
        assert names(opened.search(unit(1))) == [["Ada"]]
        clock.pass_days(3)
        assert names(opened.search(unit(1))) == [[]]


@pytest.mark.parametrize("staleness", [-1, 0.01, float("nan"), float("inf"), True, "1"])
def test_an_age_that_cannot_be_kept_is_refused(gallery: Gallery, path: Path, staleness: object) -> None:
    assert len(gallery) == 0
    with pytest.raises(InvalidInput, match="staleness"):
        Gallery.open(path, staleness=staleness)  # type: ignore[arg-type]
