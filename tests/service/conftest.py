"""A service in this process: a small calibrated recogniser, a gallery of its own, and somebody who asks."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from starlette.testclient import TestClient

from steadface.backbones import Architecture, save_backbone
from steadface.data.faces import ArrayFaces
from steadface.data.synthetic import synthetic_faces
from steadface.service.admission import Doors
from steadface.service.application import Service, application
from steadface.service.collections import DEFAULT, Collections, Place, opened
from steadface.service.keys import Keys, Scope
from steadface.service.observation import Metrics
from steadface.workflows.calibrate import calibrate

PEOPLE, EACH = 24, 5


@pytest.fixture(scope="session")
def faces() -> ArrayFaces:
    return synthetic_faces(people=PEOPLE, images_per_person=EACH, size=(32, 32), seed=0)


@pytest.fixture(scope="session")
def pngs(faces: ArrayFaces) -> list[list[bytes]]:
    """Each person's pictures, as files."""
    files = [cv2.imencode(".png", faces.read(place)[:, :, ::-1])[1].tobytes() for place in range(len(faces))]
    return [files[first : first + EACH] for first in range(0, len(files), EACH)]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, faces: ArrayFaces) -> Path:
    """A calibrated random network, which tells these faces apart by their colours."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    architecture = Architecture(image_size=(32, 32), embedding_size=16, width=0.25, blocks=(1, 0, 0, 0))
    save_backbone(path, architecture.build(torch.Generator().manual_seed(0)).eval(), {})
    calibrate(path, faces)
    return path


@pytest.fixture(scope="session")
def collections(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collections, Metrics]]:
    """Opened once; `everybody_gone` empties the galleries between tests."""
    folder, metrics = tmp_path_factory.mktemp("galleries"), Metrics()
    places = {
        name: Place(model=str(model), gallery=folder / f"{name}.db", key=folder / f"{name}.key")
        for name in (DEFAULT, "visitors")
    }
    with opened(places, metrics) as found:
        yield found, metrics


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Somebody at a service, with or without keys."""

    service: Service
    client: TestClient
    keys: Keys | None = None

    def key(self, *scopes: Scope, **more: Any) -> dict[str, str]:
        """Headers with a new key."""
        assert self.keys is not None
        _, token = self.keys.make("somebody", scopes, **more)
        return {"Authorization": f"Bearer {token}"}

    def enroll(self, name: str, *pictures: bytes, **more: Any) -> Any:
        files = [("images", (f"{place}.png", data, "image/png")) for place, data in enumerate(pictures)]
        data = {"name": name, "aligned": "true", **more.pop("data", {})}
        return self.client.post("/v1/people", data=data, files=files, **more)

    def verify(self, first: bytes, second: bytes, **more: Any) -> Any:
        files = {"first": ("a.png", first, "image/png"), "second": ("b.png", second, "image/png")}
        data = {"aligned": "true", "fmr": "0.05", **more.pop("data", {})}
        return self.client.post("/v1/verify", data=data, files=files, **more)

    def identify(self, image: bytes, **more: Any) -> Any:
        data = {"aligned": "true", "fmr": "0.05", **more.pop("data", {})}
        return self.client.post("/v1/identify", data=data, files={"image": ("a.png", image, "image/png")}, **more)


Sat = Callable[..., Desk]


@pytest.fixture
def sit(collections: tuple[Collections, Metrics], tmp_path: Path) -> Iterator[Sat]:
    """A desk at a service of its own: `keys=True` for one with keys, and options of `Service`."""
    found, _ = collections
    for collection in found.named.values():
        for person in collection.gallery.people():
            collection.gallery.remove(person.name)
    open_ones: list[TestClient] = []

    def made(*, keys: bool = False, workers: int = 8, waiting: int = 8, **options: Any) -> Desk:
        held = Keys.create(tmp_path / "keys.json") if keys else None
        doors = Doors(workers=workers, waiting=waiting)
        service = Service(collections=found, keys=held, doors=doors, stopping=asyncio.Event(), **options)
        app = application(service)
        client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        client.__enter__()
        open_ones.append(client)
        return Desk(service=service, client=client, keys=held)

    yield made
    for client in open_ones:
        client.__exit__(None, None, None)


@pytest.fixture
def desk(sit: Sat) -> Desk:
    """At a service without keys."""
    return sit()
