"""The shape of CompreFace: as its own SDK speaks it, and as any other program of its kind may."""

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import uvicorn

from steadface.client import AsyncClient, Client
from steadface.data.faces import TEMPLATE, Image
from steadface.errors import NotFound
from steadface.faces.detection import Face
from steadface.recognition.face_finder import Seeing
from steadface.service.application import application
from steadface.service.collections import Collections
from steadface.service.observation import Metrics

from .conftest import Desk, Sat

ROOT = "/api/v1/recognition"


class WholePicture:
    """A detector to which every picture is one face, however it was asked, unless it is of one colour."""

    def detect(self, image: Image) -> list[Face]:
        side = float(len(image))
        if (image == image[0, 0]).all():
            return []
        landmarks = ((TEMPLATE + 0.5) * side / 112 - 0.5).astype(np.float32)
        return [Face(box=(0.0, 0.0, side, side), landmarks=landmarks, score=0.9)]


@pytest.fixture(autouse=True)
def _seeing(collections: tuple[Collections, Metrics], monkeypatch: pytest.MonkeyPatch) -> None:
    for one in collections[0].named.values():
        monkeypatch.setattr(one.recognizer, "seeing", Seeing.with_detector(WholePicture(), (32, 32)))


def post(desk: Desk, path: str, picture: bytes, field: str = "file", **more: Any) -> Any:
    return desk.client.post(f"{ROOT}/{path}", files={field: ("image.jpg", picture)}, **more)


def add(desk: Desk, subject: str, picture: bytes, **more: Any) -> Any:
    return post(desk, "faces", picture, params={"subject": subject, **more.pop("params", {})}, **more)


def test_examples_come_are_listed_and_go(desk: Desk, pngs: list[list[bytes]]) -> None:
    first, second, other = (
        add(desk, name, picture) for name, picture in (("Ada", pngs[0][0]), ("Ada", pngs[0][0]), ("Eve", pngs[1][0]))
    )
    assert (first.status_code, first.json()["subject"]) == (201, "Ada")
    page = desk.client.get(f"{ROOT}/faces", params={"page": 1, "size": 2}).json()
    assert page["faces"] == [other.json()]
    assert [page[name] for name in ("page_number", "page_size", "total_pages", "total_elements")] == [1, 2, 2, 3]
    assert desk.client.get(f"{ROOT}/faces").json()["faces"] == [first.json(), second.json(), other.json()]
    assert desk.client.get(f"{ROOT}/faces", params={"subject": "Eve"}).json()["faces"] == [other.json()]
    assert desk.client.get(f"{ROOT}/subjects/").json() == {"subjects": ["Ada", "Eve"]}
    assert desk.client.delete(f"{ROOT}/faces/{first.json()['image_id']}").json() == first.json()
    assert desk.client.delete(f"{ROOT}/faces", params={"subject": "Ada"}).json() == {"deleted": 1}
    last = desk.client.post(f"{ROOT}/faces/delete", json=[first.json()["image_id"], other.json()["image_id"], "x", 3])
    assert last.json() == [other.json()]
    assert desk.client.get(f"{ROOT}/subjects").json() == {"subjects": []}


def test_who_is_below_the_threshold_is_nobody(desk: Desk, pngs: list[list[bytes]]) -> None:
    add(desk, "Ada", pngs[0][0])
    wanted = {"limit": 0, "prediction_count": 3, "face_plugins": "landmarks,age,calculator", "status": "True"}
    (known,) = post(desk, "recognize", pngs[0][0], params=wanted).json()["result"]
    assert [one["subject"] for one in known["subjects"]] == ["Ada"]
    assert known["subjects"][0]["similarity"] == pytest.approx(1.0, abs=1e-3)
    assert known["box"] == {"probability": 0.9, "x_min": 0, "y_min": 0, "x_max": 32, "y_max": 32}
    assert (len(known["landmarks"]), len(known["embedding"]), "age" in known) == (5, 16, False)
    strangers = [pictures[0] for pictures in pngs[1:12]]
    found = [post(desk, "recognize", one, params={"fmr": 0.05}).json()["result"][0]["subjects"] for one in strangers]
    assert found.count([]) > len(found) / 2


def test_pictures_are_compared_with_pictures_and_with_examples(desk: Desk, pngs: list[list[bytes]]) -> None:
    image = add(desk, "Ada", pngs[0][0]).json()["image_id"]
    far = min((pictures[0] for pictures in pngs[1:]), key=lambda one: desk.verify(pngs[0][0], one).json()["similarity"])
    for picture, matches in ((pngs[0][0], 1), (far, 0)):
        assert len(post(desk, f"faces/{image}/verify", picture).json()["result"]) == matches
        two = {"source_image": ("a.jpg", pngs[0][0]), "target_image": ("b.jpg", picture)}
        (answer,) = desk.client.post("/api/v1/verification/verify", files=two).json()["result"]
        assert answer["source_image_face"]["box"]["x_max"] == 32
        assert len(answer["face_matches"]) == matches


def test_what_goes_wrong_has_the_words_that_its_clients_look_for(
    desk: Desk, pngs: list[list[bytes]], blank: bytes
) -> None:
    nobody = desk.client.post("/api/v1/detection/detect", files={"file": ("a.png", blank)})
    assert (nobody.status_code, nobody.json()["code"]) == (422, 28)
    assert nobody.json()["message"] == nobody.json()["detail"]
    assert post(desk, "recognize", blank).json()["code"] == 28
    unsure = {"det_prob_threshold": 0.95}
    assert post(desk, "recognize", pngs[0][0], params=unsure).json()["code"] == 28
    assert add(desk, "Ada", pngs[0][0], params=unsure).json()["code"] == 28
    assert desk.client.delete(f"{ROOT}/faces/none-1").json()["code"] == 11
    assert desk.client.delete(f"{ROOT}/faces").status_code == 400  # not everybody for want of a name
    assert desk.client.post(f"{ROOT}/faces/delete", json={}).status_code == 400
    assert desk.client.post(f"{ROOT}/faces/delete", json=[""] * 1001).status_code == 413
    assert desk.client.get(f"{ROOT}/subjects").json() == {"subjects": []}


def test_what_is_not_kept_is_said_to_be_so(desk: Desk, pngs: list[list[bytes]]) -> None:
    image = add(desk, "Ada", pngs[0][0]).json()["image_id"]
    assert desk.client.get(f"{ROOT}/faces/{image}/img").status_code == 501
    assert desk.client.get(f"{ROOT}/faces/none-1/img").status_code == 404
    assert desk.client.post(f"{ROOT}/subjects", json={"subject": "Eve"}).status_code == 501


def test_subjects_are_renamed_merged_and_removed(desk: Desk, pngs: list[list[bytes]]) -> None:
    for name in ("Ada", "Ada/2"):
        add(desk, name, pngs[0][0])
    add(desk, "Eve", pngs[1][0])
    new = {"subject": "Ada L.", "api_endpoint": "Ada"}
    assert desk.client.put(f"{ROOT}/subjects/Ada", json=new).json() == {"updated": True}
    assert desk.client.put(f"{ROOT}/subjects/Ada%2F2", json={"subject": "Ada L."}).json() == {"updated": True}
    assert desk.client.get(f"{ROOT}/faces", params={"subject": "Ada L."}).json()["total_elements"] == 2
    assert desk.client.put(f"{ROOT}/subjects/nobody", json=new).status_code == 404
    assert desk.client.delete(f"{ROOT}/subjects/Eve").json() == {"subject": "Eve"}
    assert desk.client.delete(f"{ROOT}/subjects/").status_code in (400, 404)
    assert desk.client.delete(f"{ROOT}/subjects").json() == {"deleted": 1}


@pytest.mark.parametrize(("shows", "similarity"), [("decision", None), ("rounded", 1.0)])
def test_a_key_sees_here_what_it_sees_elsewhere(
    sit: Sat, pngs: list[list[bytes]], shows: str, similarity: float | None
) -> None:
    desk = sit(keys=True)
    bearer = desk.key("identify", "enroll", "verify", shows=shows, probes=2)
    headers = {"x-api-key": bearer["Authorization"].removeprefix("Bearer ")}
    made = add(desk, "Ada", pngs[0][0], headers=headers)
    calculator = {"face_plugins": "calculator", "fmr": 0.1}
    (known,) = post(desk, "recognize", pngs[0][1], headers=headers, params=calculator).json()["result"]
    assert "embedding" not in known
    for one in known["subjects"]:
        assert one.get("similarity") is None if similarity is None else one["similarity"] * 10 % 1 == 0
    path = f"faces/{made.json()['image_id']}/verify"
    (match,) = post(desk, path, pngs[0][0], headers=headers).json()["result"]
    assert match.get("similarity") == similarity
    assert post(desk, path, pngs[0][0], headers=headers).status_code == 429
    assert desk.client.delete(f"{ROOT}/subjects", headers=headers).status_code == 403
    assert post(desk, "recognize", pngs[0][0]).status_code == 401


def test_an_example_that_is_sent_again_is_enrolled_once(desk: Desk, pngs: list[list[bytes]]) -> None:
    again = {"headers": {"Idempotency-Key": "1"}}
    first, second = (add(desk, "Ada", pngs[0][0], **again).json() for _ in range(2))
    assert first == second
    assert desk.client.get(f"{ROOT}/faces").json()["total_elements"] == 1


@pytest.fixture
def blank() -> bytes:
    return cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()


@pytest.fixture
def address(sit: Sat) -> Iterator[tuple[str, int]]:
    """Where a service with all rights listens, until the end."""
    desk = sit()
    with socket.create_server(("127.0.0.1", 0)) as here:
        server = uvicorn.Server(uvicorn.Config(application(desk.service), log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([here],))
        thread.start()
        try:
            yield "http://127.0.0.1", here.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
def test_its_own_sdk_works_unchanged(address: tuple[str, int], pngs: list[list[bytes]], tmp_path: Path) -> None:
    sdk = pytest.importorskip("compreface", reason="compreface-sdk is not installed, or not with packages that it fits")
    host, port = address
    compreface = sdk.CompreFace(
        host, str(port), {"limit": 0, "det_prob_threshold": 0.5, "prediction_count": 1, "status": True}
    )
    recognition = compreface.init_face_recognition("any")
    faces, subjects = recognition.get_face_collection(), recognition.get_subjects()
    (tmp_path / "ada.png").write_bytes(pngs[0][0])
    ada = faces.add(image_path=str(tmp_path / "ada.png"), subject="Ada Lovelace")
    eve = faces.add(image_path=pngs[1][0], subject="Eve")
    assert faces.list()["faces"] == [ada, eve]
    assert subjects.list() == {"subjects": ["Ada Lovelace", "Eve"]}
    (seen,) = recognition.recognize(image_path=pngs[0][0])["result"]
    assert [one["subject"] for one in seen["subjects"]] == ["Ada Lovelace"]
    assert len(faces.verify(image_path=pngs[0][0], image_id=ada["image_id"])["result"]) == 1
    (pair,) = compreface.init_face_verification("any").verify(pngs[0][0], pngs[0][0])["result"]
    assert len(pair["face_matches"]) == 1
    assert len(compreface.init_face_detection("any").detect(pngs[0][0])["result"]) == 1
    assert subjects.update("Ada Lovelace", "Ada") == {"updated": True}
    assert faces.delete(eve["image_id"]) == eve
    assert "message" in subjects.add("Bob")
    assert faces.delete_all("Ada") == {"deleted": 1}
    faces.add(image_path=pngs[1][0], subject="Eve")
    assert subjects.delete("Eve") == {"subject": "Eve"}
    assert subjects.delete_all() == {"deleted": 0}


def test_our_own_client_speaks_with_the_service(address: tuple[str, int], pngs: list[list[bytes]]) -> None:
    host, port = address
    with Client(f"{host}:{port}") as client:
        assert client.live()
        assert client.ready()
        assert [one.name for one in client.collections()] == ["default", "visitors"]
        made = client.enroll("Ada", pngs[0][:1], aligned=True, consent="form 7", request="7f3c")
        again = client.enroll("Ada", pngs[0][:1], aligned=True, consent="form 7", request="7f3c")
        assert (made.repeated, again.repeated, again.template) == (False, True, made.template)
        more = client.add_template(made.id, pngs[0][0], aligned=True)
        assert client.person(made.id).template_list == (made.template, more.template)
        assert client.remove_template(made.id, more.template).templates == 1
        verified = client.verify(pngs[0][0], pngs[0][0], fmr=0.05, aligned=True)
        assert verified.match
        assert verified.similarity == pytest.approx(1.0)
        assert verified.threshold_interval is not None
        (face,) = client.identify(pngs[0][0], fmr=0.05, aligned=True).faces
        assert (face.person, face.candidates[0].person) == ("Ada", "Ada")
        assert client.detect(pngs[0][0]).faces[0].box == (0.0, 0.0, 32.0, 32.0)
        assert len(client.embed(pngs[0][:2], aligned=True).embeddings) == 2
        assert client.rename(made.id, "Ada L.").person == "Ada L."
        assert [(one.person, one.consent) for one in client.people()] == [("Ada L.", "form 7")]
        assert client.model().calibration == client.collections()[0].calibration
        receipt = client.remove(made.id)
        assert client.log(after=0, limit=1000).entries[-1].hash == receipt.entry
        assert client.expire() == ()


def test_our_own_client_is_awaited_as_well(desk: Desk, pngs: list[list[bytes]]) -> None:
    async def asked() -> tuple[bool, list[str]]:
        transport = httpx.ASGITransport(application(desk.service))
        async with AsyncClient("http://127.0.0.1", transport=transport) as client:
            made = await client.enroll("Ada", pngs[0][0], aligned=True)
            pair = await client.verify(pngs[0][0], pngs[0][0], fmr=0.05, aligned=True)
            with pytest.raises(NotFound):
                await client.person("nobody")
            return pair.match, [made.id, *[one.id async for one in client.people()]]

    match, ids = asyncio.run(asked())
    assert match
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_requests_are_json_in_base64_as_well(desk: Desk, pngs: list[list[bytes]]) -> None:
    told = {"file": base64.b64encode(pngs[0][0]).decode()}
    made = desk.client.post(
        f"{ROOT}/faces?subject=Ada", content=json.dumps(told), headers={"Content-Type": "application/json"}
    )
    assert made.status_code == 201
