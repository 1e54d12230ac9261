"""What a service answers: the same as the recogniser, with what it means, in whatever form pictures come."""

import base64
from typing import Any

import pytest

from steadface.service.bodies import Bounds
from steadface.service.disclosure import disclosed

from .conftest import Desk, Sat


def test_two_pictures_are_compared_at_the_threshold_of_the_rate(desk: Desk, pngs: list[list[bytes]]) -> None:
    same, other = desk.verify(pngs[0][0], pngs[0][0]).json(), desk.verify(pngs[0][0], pngs[1][0]).json()
    assert (same["match"], same["similarity"]) == (True, pytest.approx(1))
    assert other["match"] == (other["similarity"] >= other["threshold"])
    contract = desk.service.collections.get(None).recognizer.contract
    assert contract.thresholds is not None
    assert same["threshold"] == contract.thresholds.at(0.05)
    low, high = same["threshold_interval"]
    assert low <= same["threshold"] <= high
    assert same["model"]["space"] == contract.space


def test_forms_raw_bodies_and_json_are_one(desk: Desk, pngs: list[list[bytes]]) -> None:
    one, other = pngs[0][0], pngs[1][0]
    form = desk.verify(one, other).json()
    in_json = {"first": base64.b64encode(one).decode(), "second": base64.b64encode(other).decode()}
    told = desk.client.post("/v1/verify", json={**in_json, "aligned": True, "fmr": 0.05}).json()
    assert told == form
    as_url = {name: f"data:image/png;base64,{data}" for name, data in in_json.items()}
    assert desk.client.post("/v1/verify", json={**as_url, "aligned": True, "fmr": 0.05}).json() == form
    words = {"aligned": "true", "fmr": "0.05"}
    desk.enroll("Ada", one)
    raw = desk.client.post("/v1/identify", params=words, content=one, headers={"Content-Type": "image/png"}).json()
    assert raw == desk.identify(one).json()
    assert raw["faces"][0]["person"] == "Ada"


def test_whoever_is_below_the_threshold_is_nobody(desk: Desk, pngs: list[list[bytes]]) -> None:
    nobody = desk.identify(pngs[3][0]).json()
    assert (nobody["match"], nobody["faces"][0]["person"], nobody["enrolled"]) == (False, None, 0)
    desk.enroll("Ada", pngs[0][0])
    for person in pngs:
        face = desk.identify(person[0]).json()["faces"][0]
        assert (face["person"] == "Ada") == (face["similarity"] >= desk.identify(person[0]).json()["threshold"])


def test_a_rate_that_was_not_measured_is_422_and_unclear_ones_400(desk: Desk, pngs: list[list[bytes]]) -> None:
    assert desk.verify(pngs[0][0], pngs[0][1], data={"fmr": "1e-9"}).status_code == 422
    assert desk.identify(pngs[0][0], data={"fpir": "0.1"}).status_code == 400
    for wrong in ("0", "1", "nan", "inf", "-1", "x", "1e-320"):
        said = desk.verify(pngs[0][0], pngs[0][1], data={"fmr": wrong})
        assert said.status_code == 400
        assert "fmr" in said.json()["detail"].lower()
    assert desk.verify(pngs[0][0], pngs[0][1], data={"threshold": "0"}).status_code == 400


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"json": {"first": "http://127.0.0.1/a.png", "second": "/etc/passwd"}}, 400),
        ({"json": {"first": ["YQ=="] * 30, "second": "YQ=="}}, 413),
        ({"json": [1]}, 400),
        ({"content": b"{" * 100_000, "headers": {"Content-Type": "application/json"}}, 400),
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400),
        ({"files": {"first": ("a.png", b"no picture", "image/png")}}, 422),
        ({"files": {"third": ("a.png", b"", "image/png")}}, 400),
        ({"files": {"first": ("a", b"no picture"), "second": ("b", b"\x89PNG")}, "data": {"aligned": "true"}}, 422),
        ({"data": {"fmr": "0.1"}}, 415),
        ({"data": {"fmr": "0.1"}, "files": {"first": ("a", b"")}, "params": {"second": "/etc/passwd"}}, 400),
    ],
)
def test_what_is_no_picture_is_refused_in_words(desk: Desk, sent: dict[str, Any], status: int) -> None:
    said = desk.client.post("/v1/verify", **sent)
    assert said.status_code == status, said.text
    assert said.headers["content-type"] == "application/problem+json"
    told = said.json()
    assert told["status"] == status
    assert told["instance"].endswith(said.headers["x-request-id"])
    assert "passwd" not in told["detail"]


def test_bounds_hold_whatever_a_header_says(sit: Sat, pngs: list[list[bytes]]) -> None:
    desk = sit(bounds=Bounds(body=8000, pixels=1000, pictures=2))
    too_many_pixels = desk.verify(pngs[0][0], pngs[0][0])
    assert (too_many_pixels.status_code, "pixels" in too_many_pixels.json()["detail"]) == (413, True)
    long = desk.client.post("/v1/verify", content=b"x" * 9000, headers={"Content-Type": "image/png"})
    assert long.status_code == 413
    unsaid = desk.client.post(
        "/v1/verify", content=iter([b"x" * 5000, b"x" * 5000]), headers={"Content-Type": "image/png"}
    )
    assert unsaid.status_code == 413


def test_pictures_are_embedded_by_those_who_may(sit: Sat, pngs: list[list[bytes]]) -> None:
    desk = sit(keys=True)
    files = [("images", ("a.png", data, "image/png")) for data in pngs[0][:2]]
    asked = {"data": {"aligned": "true"}, "files": files}
    assert desk.client.post("/v1/embed", headers=desk.key("verify", "identify"), **asked).status_code == 403
    told = desk.client.post("/v1/embed", headers=desk.key("embed"), **asked).json()
    assert [len(vector) for vector in told["embeddings"]] == [16, 16]


def test_how_much_of_a_similarity_is_told_is_the_keys(sit: Sat, pngs: list[list[bytes]]) -> None:
    desk = sit(keys=True)
    desk.enroll("Ada", pngs[0][0], headers=desk.key("enroll"))
    full = desk.identify(pngs[5][0], headers=desk.key("identify", shows="full")).json()
    assert [one["person"] for one in full["faces"][0]["candidates"]] == ["Ada"]
    rounded = desk.identify(pngs[0][0], headers=desk.key("identify")).json()
    assert rounded["faces"][0]["similarity"] == 1.0
    decided = desk.identify(pngs[0][0], headers=desk.key("identify", shows="decision")).json()
    assert (decided["match"], decided["faces"][0]["person"]) == (True, "Ada")
    assert "similarity" not in str(decided)
    refused = desk.enroll("Ada", pngs[9][0], headers=desk.key("enroll", shows="decision"))
    assert refused.status_code in (201, 409)
    assert "0." not in refused.json().get("detail", "")


@pytest.mark.parametrize("shows", ["rounded", "decision"])
def test_nobody_below_the_threshold_is_named_to_those_who_may_not_know(shows: Any) -> None:
    face = {"match": False, "person": None, "similarity": 0.31234, "score": 0.9, "box": [1, 2, 3, 4]}
    answer = {
        "faces": [{**face, "candidates": [{"person": "Ada", "similarity": 0.31234}]}],
        "notes": ["cosine 0.31234"],
    }
    told = disclosed(answer, shows)
    assert told["faces"][0]["candidates"] == []
    assert told["faces"][0]["score"] == 0.9, "the detector's, of the caller's own picture"
    assert "0.312" not in str(told)
    assert "Ada" not in str(told)
