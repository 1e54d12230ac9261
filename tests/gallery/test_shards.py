"""A gallery that is divided: what all shards find together is what one index finds, or nothing is found."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import pytest

from steadface.arguments import Shard
from steadface.errors import Conflict, InvalidInput, SteadfaceError, Unavailable
from steadface.gallery.gallery import Gallery
from steadface.gallery.index import Vectors
from steadface.gallery.shards import Found

from .conftest import IN_BOTH, MODEL, names, rows_of, unit


@dataclass
class Held:
    """A `Node` in this process; with an `error` it answers with that."""

    gallery: Gallery
    error: SteadfaceError | None = None
    cut: int = 0
    """Probes that are left out of the answer."""
    name: str = "a node"

    def search(self, probes: Vectors, k: int, *, least: int) -> Found:
        if self.error is not None:
            raise self.error
        found = self.gallery.search_shard(probes, k, least=least)
        return replace(found, ranked=found.ranked[: len(found.ranked) - self.cut])


@pytest.fixture(params=[1, 3])
def shards(request: pytest.FixtureRequest, gallery: Gallery, place: str) -> Iterator[list[Held]]:
    """Of the test's gallery, in which a hundred people are, some with several templates."""
    vectors = iter(unit(200, seed=1))
    for number in range(100):
        gallery.enroll(f"p{number}", np.stack([next(vectors) for _ in range(1 + number % 3 // 2)]))
    with ExitStack() as stack:
        opened = [
            Gallery.open(place, shard=Shard(number=number, of=request.param)) for number in range(1, request.param + 1)
        ]
        yield [Held(stack.enter_context(one)) for one in opened]


@IN_BOTH
def test_all_shards_find_together_what_one_index_finds(gallery: Gallery, place: str, shards: list[Held]) -> None:
    probes = unit(20, seed=2)
    with Gallery.open(place, nodes=shards) as divided:
        for k in (1, 7, 200):
            for one, other in zip(divided.search(probes, k), gallery.search(probes, k), strict=True):
                assert [(each.person, each.template) for each in one] == [
                    (each.person, each.template) for each in other
                ]
        gallery.remove("p7")
        divided.enroll("new", unit(2, seed=3))
        assert names(divided.search(unit(2, seed=3), 1)) == [["new"], ["new"]]
        assert "p7" not in names(divided.search(probes[:1], 200))[0]
        assert divided.findable() == 100
    own = [held.gallery.search_shard(probes[:1], 200).ranked[0] for held in shards]
    assert sum(map(len, own)) == 100
    assert max(map(len, own)) - min(map(len, own)) <= 1


def test_without_one_of_them_nothing_is_found(place: str, shards: list[Held]) -> None:
    with Gallery.open(place, nodes=shards) as divided:
        divided.search(unit(1))
        shards[-1].error = Unavailable("it is off")
        with pytest.raises(Unavailable, match=r"it is off.*missed"):
            divided.search(unit(1))
        shards[-1].error, shards[-1].cut = None, 1
        with pytest.raises(Unavailable, match="again"):
            divided.search(unit(1))


def test_one_that_is_behind_is_not_believed(place: str, shards: list[Held]) -> None:
    class Behind(Held):
        def search(self, probes: Vectors, k: int, *, least: int) -> Found:
            return replace(super().search(probes, k, least=least), entry=least - 1)

    shards[0] = Behind(shards[0].gallery)
    with Gallery.open(place, nodes=shards) as divided, pytest.raises(Unavailable, match="does not know of entry"):
        divided.search(unit(1))


def test_what_are_not_all_shards_of_the_gallery_is_refused(place: str, shards: list[Held], path: object) -> None:
    for wrong in ([*shards, shards[0]], shards[1:] or [*shards, *shards]):
        with Gallery.open(place, nodes=wrong) as divided, pytest.raises(Conflict, match="start one node with each"):
            divided.search(unit(1))
    with (
        Gallery.create(f"{path}-other", model=MODEL) as other,
        Gallery.open(other.name, nodes=shards) as divided,
        pytest.raises(Conflict, match="another gallery"),
    ):
        divided.search(unit(1))
    with pytest.raises(InvalidInput, match="no node"):
        Gallery.open(place, nodes=[])


def test_a_shard_alone_answers_no_search(gallery: Gallery, shards: list[Held]) -> None:
    with pytest.raises(Conflict, match="shard 1/"):
        shards[0].gallery.search(unit(1))
    with pytest.raises(Conflict, match="as a whole"):
        gallery.search_shard(unit(1))
    assert len(shards[0].gallery) == 100


def test_rows_that_were_taken_away_are_missed_in_a_shard_too(gallery: Gallery, place: str) -> None:
    for number in range(4):
        gallery.enroll(f"p{number}", unit(1, seed=number))
    with rows_of(gallery) as rows:
        rows.connection.execute("DELETE FROM templates WHERE number = 4")
    with Gallery.open(place, shard=Shard(number=1, of=2)) as shard, pytest.raises(InvalidInput, match="templates"):
        shard.search_shard(unit(1))
