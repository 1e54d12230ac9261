"""Several services on one gallery in a database: each knows within a moment what was done at another."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from steadface.service.admission import Doors
from steadface.service.application import Service, application
from steadface.service.collections import DEFAULT, Place, opened
from steadface.service.observation import Metrics

from .conftest import Desk

if TYPE_CHECKING:
    from ..postgres_server import Server

Started = Callable[[Place], Desk]


@pytest.fixture
def start() -> Iterator[Started]:
    """A node, until the test ends."""
    with ExitStack() as stack:

        def started(place: Place) -> Desk:
            metrics = Metrics()
            found = stack.enter_context(opened({DEFAULT: place}, metrics))
            service = Service(collections=found, metrics=metrics, doors=Doors(workers=4, waiting=4))
            client = TestClient(application(service), base_url="http://127.0.0.1", raise_server_exceptions=False)
            return Desk(service=service, client=stack.enter_context(client))

        yield started


def until(true: Callable[[], bool]) -> None:
    """Waits for that, as long as it takes."""
    while not true():
        time.sleep(0.02)


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
