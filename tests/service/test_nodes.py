"""Several services on one gallery in a database: each knows within a moment what was done at another."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from steadface.errors import InvalidInput
from steadface.service.admission import Doors
from steadface.service.application import Service, application
from steadface.service.collections import DEFAULT, Place, opened
from steadface.service.keys import Keys
from steadface.service.observation import Metrics
from steadface.service.server import Address, server

from ..waiting import until
from .conftest import Desk

if TYPE_CHECKING:
    from ..postgres_server import Server

Started = Callable[..., Desk]


@pytest.fixture
def start() -> Iterator[Started]:
    """A node, until the test ends."""
    with ExitStack() as stack:

        def started(place: Place, keys: Keys | None = None) -> Desk:
            metrics = Metrics()
            found = stack.enter_context(opened({DEFAULT: place}, metrics))
            doors = Doors(workers=4, waiting=4)
            service = Service(collections=found, keys=keys, metrics=metrics, doors=doors)
            client = TestClient(application(service), base_url="http://127.0.0.1", raise_server_exceptions=False)
            return Desk(service=service, client=stack.enter_context(client))

        yield started


@pytest.fixture
def place(model: Path, tmp_path: Path, postgres: "Server") -> Place:
    return Place(model=str(model), gallery=postgres.address(), key=tmp_path / "k")


def test_what_one_node_does_the_others_know(start: Started, place: Place, pngs: list[list[bytes]]) -> None:
    one, other = start(place), start(place)
    ada = one.enroll("Ada", pngs[0][0]).json()["id"]
    until(lambda: other.identify(pngs[0][0]).json()["match"])
    told = other.identify(pngs[0][0]).json()["known"]
    assert 0 <= told["age"] <= 1
    assert told["entry"] == one.client.get("/v1/log").json()["last"]
    assert other.client.delete(f"/v1/people/{ada}").status_code == 200
    until(lambda: not one.identify(pngs[0][0]).json()["match"])


def test_one_that_cannot_look_at_the_gallery_is_not_ready(
    start: Started, place: Place, postgres: "Server", pngs: list[list[bytes]]
) -> None:
    """It answers from nothing that is too old, and is back by itself."""
    node = start(place)
    node.enroll("Ada", pngs[0][0])
    assert 'steadface_gallery_ready{collection="default"} 1.0' in node.client.get("/metrics").text
    postgres.stop()
    until(lambda: node.client.get("/v1/health/ready").status_code == 503)
    assert node.identify(pngs[0][0]).status_code == 503
    assert 'steadface_gallery_ready{collection="default"} 0.0' in node.client.get("/metrics").text
    postgres.start()
    until(lambda: node.client.get("/v1/health/ready").status_code == 200)
    assert node.identify(pngs[0][0]).json()["match"]


@pytest.fixture
def served() -> Iterator[Callable[[Desk], str]]:
    """The address of a node, which listens until the test ends."""
    with ExitStack() as stack:

        def serve(desk: Desk) -> str:
            here = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = here.getsockname()[1]
            made = server(application(desk.service), Address(port=port))
            thread = threading.Thread(target=lambda: made.run(sockets=[here]))
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, made, "should_exit", True)
            return f"http://127.0.0.1:{port}"

        yield serve


def test_a_gallery_that_is_divided_is_searched_through_all_shards(
    start: Started, served: Callable[[Desk], str], place: Place, pngs: list[list[bytes]], tmp_path: Path
) -> None:
    whole = start(place)
    for person, pictures in enumerate(pngs[:6]):
        assert whole.enroll(f"p{person}", pictures[0], data={"check": "false"}).status_code == 201
    keys = Keys.create(tmp_path / "keys.json")
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(keys.make("front", ["shard"])[1])
    halves = [start(place.model_copy(update={"shard": f"{number}/2"}), keys) for number in (1, 2)]
    urls = [served(half) for half in halves]
    front = start(place.model_copy(update={"nodes": tuple(urls), "nodes_key": token}))
    for pictures in pngs[:8]:
        found, expected = front.identify(pictures[1]).json(), whole.identify(pictures[1]).json()
        assert found["faces"] == expected["faces"]
    searching = halves[0].client.post("/v1/shard", json={"vectors": "AAAA"}, headers={"X-API-Key": token.read_text()})
    assert searching.status_code == 400
    alone = halves[0].identify(pngs[0][0], headers={"X-API-Key": keys.make("door", ["identify"])[1]})
    assert (alone.status_code, "shard 1/2" in alone.json()["detail"]) == (409, True)
    halves[1].service.doors.inside = 10**6  # as if it were gone
    until(lambda: front.client.get("/v1/health/ready").status_code == 503)
    missed = front.identify(pngs[0][0])
    assert missed.status_code == 503
    assert urls[1] in missed.json()["detail"]
    halves[1].service.doors.inside = 0
    until(lambda: front.client.get("/v1/health/ready").status_code == 200)
    assert front.identify(pngs[0][0]).status_code == 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"shard": "3/2"}, "none of 2 shards"),
        ({"shard": "1/2", "nodes": ("http://127.0.0.1:1",)}, "either the shard or the nodes"),
        ({"nodes": ("http://127.0.0.1:1",), "gallery": None}, "give the gallery"),
        ({"nodes": ("http://127.0.0.1:1", "http://127.0.0.1:1")}, "given twice"),
        ({"nodes": ("ftp://127.0.0.1",)}, "ftp"),
    ],
)
def test_a_division_that_cannot_be_is_refused_at_once(model: Path, tmp_path: Path, words: object, said: str) -> None:
    place = Place(model=f"{model}-that-is-not-looked-for", gallery=tmp_path / "g.db")
    with pytest.raises(InvalidInput, match=said), opened({DEFAULT: place.model_copy(update=words)}, Metrics()):  # type: ignore[arg-type]
        pass
