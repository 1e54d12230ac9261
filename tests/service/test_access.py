"""Who gets in: with which key, where, how often, and from which page."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from steadface.errors import Conflict, InvalidInput, NotFound, SteadfaceError, Unsupported
from steadface.service.collections import Place, opened
from steadface.service.keys import SCOPES, Keys, Scope
from steadface.service.observation import Metrics

from .conftest import Desk, Sat

if TYPE_CHECKING:
    from ..postgres_server import Server

ASKED: dict[Scope, list[tuple[str, str]]] = {
    "verify": [("POST", "/v1/verify")],
    "identify": [("POST", "/v1/identify")],
    "enroll": [("POST", "/v1/people"), ("GET", "/v1/people"), ("PATCH", "/v1/people/0")],
    "embed": [("POST", "/v1/embed")],
    "delete": [("DELETE", "/v1/people/0"), ("DELETE", "/v1/people/0/templates/1"), ("POST", "/v1/expire")],
    "audit": [("GET", "/v1/log")],
    "shard": [("POST", "/v1/shard")],
    "admin": [("GET", "/v1/keys"), ("POST", "/v1/keys"), ("DELETE", "/v1/keys/0"), ("POST", "/v1/keys/0/rotate")],
}


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_opens_what_it_is_for_and_nothing_else(sit: Sat, scope: Scope) -> None:
    desk = sit(keys=True)
    headers = desk.key(scope)
    for other, routes in ASKED.items():
        for method, route in routes:
            status = desk.client.request(method, route, headers=headers).status_code
            asks = route in ("/v1/people", "/v1/people/0", "/v1/keys", "/v1/shard") and method in ("POST", "PATCH")
            if scope in (other, "admin"):
                assert status not in (401, 403), (route, status)
            else:
                assert status == 403 or (asks and status == 400), (route, status)


def test_without_a_key_only_health_and_the_description_are_told(sit: Sat) -> None:
    desk = sit(keys=True)
    described = desk.client.get("/v1/openapi.json").json()
    free = {"/v1/health/live", "/v1/health/ready"}
    for path, methods in described["paths"].items():
        for method in methods:
            status = desk.client.request(method.upper(), path.replace("{", "").replace("}", "")).status_code
            assert (status == 200) == (path in free)
            assert path in free or status == 401, (path, status)


@pytest.mark.parametrize("wrong", ["", "x", "sf_", "sf_00000000_", "sf_00000000_" + "A" * 43, "\xff", "A" * 9000])
def test_what_is_no_key_opens_nothing(sit: Sat, wrong: str) -> None:
    desk = sit(keys=True)
    _, token = desk.keys.make("somebody", ["admin"])  # type: ignore[union-attr]
    identity = token.split("_")[1]
    for given in (wrong, f"sf_{identity}_{wrong}", token[:-1], token + "A", token.swapcase(), token[::-1]):
        bearer = {"Authorization": b"Bearer " + given.encode("latin-1")}
        for headers in (bearer, {"X-API-Key": given.encode("latin-1")}):
            said = desk.client.get("/v1/keys", headers=headers)
            assert said.status_code == 401
            assert "www-authenticate" in said.headers
    assert desk.client.get("/v1/keys", headers={"X-API-Key": token}).status_code == 200
    for name in ("key", "api_key", "token", "access_token", "x-api-key"):
        assert desk.client.get("/v1/keys", params={name: token}).status_code == 401, "never in an address"


def test_a_key_counts_while_it_is_there(sit: Sat, tmp_path: Path) -> None:
    desk = sit(keys=True)
    assert desk.keys is not None
    other = Keys(tmp_path / "keys.json")  # as the command line has it
    key, token = other.make("door 3", ["audit"])

    def status(given: str) -> int:
        return desk.client.get("/v1/log", headers={"Authorization": f"Bearer {given}"}).status_code

    assert status(token) == 200
    _, turned = other.rotate(key.id)
    assert (status(token), status(turned)) == (401, 200)
    other.revoke(key.id)
    assert status(turned) == 401
    with pytest.raises(NotFound):
        other.revoke(key.id)


def test_keys_are_made_and_taken_away_by_admins_and_shown_once(sit: Sat) -> None:
    desk = sit(keys=True)
    admin = desk.key("admin")
    made = desk.client.post("/v1/keys", headers=admin, json={"name": "door 3", "scopes": ["audit"]}).json()
    assert desk.client.get("/v1/log", headers={"X-API-Key": made["key"]}).status_code == 200
    listed = desk.client.get("/v1/keys", headers=admin)
    assert made["id"] in listed.text
    assert made["key"] not in listed.text
    assert "digest" not in listed.text
    assert desk.client.delete(f"/v1/keys/{made['id']}", headers=admin).status_code == 200
    assert desk.client.get("/v1/log", headers={"X-API-Key": made["key"]}).status_code == 401


def test_a_key_of_one_collection_opens_no_other(sit: Sat, pngs: list[list[bytes]]) -> None:
    desk = sit(keys=True)
    headers = desk.key("enroll", "admin", collections=["visitors"])
    assert desk.enroll("Ada", pngs[0][0], headers=headers).status_code == 403
    assert desk.enroll("Ada", pngs[0][0], headers=headers, data={"collection": "visitors"}).status_code == 201
    for there in ("default", "nowhere"):
        assert desk.client.get("/v1/people", params={"collection": there}, headers=headers).status_code == 403
    assert desk.client.get("/v1/keys", headers=headers).status_code == 403, "an admin of one collection"
    assert [one["name"] for one in desk.client.get("/v1/collections", headers=headers).json()] == ["visitors"]


def test_a_key_expires(tmp_path: Path) -> None:
    now = datetime(2031, 5, 2, tzinfo=UTC)
    keys = Keys.create(tmp_path / "keys.json", clock=lambda: now)
    _, token = keys.make("somebody", ["verify"], expires=now + timedelta(days=1))
    assert keys.find(token) is not None
    now += timedelta(days=1)
    assert keys.find(token) is None
    with pytest.raises(InvalidInput, match="expired already"):
        keys.make("somebody", ["verify"], expires=now)


def test_who_reads_the_file_can_use_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = Keys.create(path)
    _, token = keys.make("somebody", ["verify"])
    text = path.read_text()
    assert token.split("_", 2)[2] not in text
    assert path.stat().st_mode & 0o077 == 0
    digest = json.loads(text)["keys"][0]["digest"]
    assert keys.find(f"sf_{keys.listed()[0].id}_{digest}") is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda told: told["keys"][0].update(scopes=["everything"]),
        lambda told: told["keys"][0].update(rate=0),
        lambda told: told["keys"][0].update(digest="00"),
        lambda told: told["keys"][0].update(more=1),
        lambda told: told.update(secret=""),
        lambda told: told.update(keys=None),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, spoil) -> None:
    path = tmp_path / "keys.json"
    Keys.create(path).make("somebody", ["verify"])
    told = json.loads(path.read_text())
    spoil(told)
    path.write_text(json.dumps(told))
    with pytest.raises(InvalidInput, match="not a file of API keys"):
        Keys(path)
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="open to other users"):
        Keys(path)
    with pytest.raises(NotFound):
        Keys(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "scopes", "more"),
    [("", ["verify"], {}), ("a\nb", ["verify"], {}), ("a", [], {}), ("a", ["x"], {}), ("a", ["verify"], {"rate": 0})],
)
def test_keys_that_cannot_be_are_not_made(tmp_path: Path, name: str, scopes, more) -> None:
    keys = Keys.create(tmp_path / "keys.json")
    with pytest.raises(SteadfaceError):
        keys.make(name, scopes, **more)
    assert not keys.listed()


def test_requests_a_minute_are_counted_and_told(sit: Sat) -> None:
    desk = sit(keys=True)
    headers = desk.key("audit", rate=3)
    first = desk.client.get("/v1/log", headers=headers)
    assert (first.status_code, first.headers["ratelimit-policy"]) == (200, '"minute";q=3;w=60')
    assert ";r=2;" in first.headers["ratelimit"]
    said = [desk.client.get("/v1/log", headers=headers) for _ in range(5)]
    codes = [one.status_code for one in said]
    assert codes[:2] == [200, 200]
    refused = said[-1]
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert desk.client.get("/v1/log", headers=desk.key("audit")).status_code == 200, "another key is not concerned"


def test_nobody_is_probed_again_and_again(sit: Sat, pngs: list[list[bytes]]) -> None:
    desk = sit(keys=True)
    desk.enroll("Ada", pngs[0][0], headers=desk.key("enroll"))
    climber = desk.key("identify", probes=4, shows="full")
    status = [desk.identify(pngs[5][0], headers=climber).status_code for _ in range(7)]
    assert status[:4] == [200] * 4
    assert status[-1] == 429, "at the turn of the hour one more may pass"
    assert desk.identify(pngs[5][0], headers=desk.key("identify")).status_code == 200


def test_more_than_may_wait_are_told_to_come_back(sit: Sat, pngs: list[list[bytes]]) -> None:
    desk = sit(workers=1, waiting=1)
    desk.service.doors.inside = 2
    busy = desk.verify(pngs[0][0], pngs[0][1])
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
    assert desk.client.get("/v1/health/ready").status_code == 503
    assert desk.client.get("/v1/health/live").status_code == 200
    desk.service.doors.inside = 0
    assert desk.verify(pngs[0][0], pngs[0][1]).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
    ],
)
def test_without_keys_no_page_from_elsewhere_may_ask(desk: Desk, headers: dict[str, str]) -> None:
    assert desk.client.get("/v1/people", headers=headers).status_code == 403
    own = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    assert desk.client.get("/v1/people", headers=own).status_code == 200
    assert "access-control-allow-origin" not in desk.client.get("/v1/people", headers=own).headers


def test_metrics_and_logs_hold_no_name_and_no_similarity(
    sit: Sat, pngs: list[list[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    desk = sit(keys=True)
    admin = desk.key("admin", shows="full")
    with caplog.at_level("INFO", logger="steadface.service"):
        desk.enroll("Ada Lovelace", pngs[0][0], headers=admin)
        told = desk.identify(pngs[7][0], headers=admin).json()
        desk.client.get("/v1/people/Ada Lovelace/x", headers=admin)
        metrics = desk.client.get("/metrics", headers=admin).text
    facts = [record.__dict__.get("facts", {}) for record in caplog.records]
    assert {"/v1/people", "/v1/identify"} <= {fact.get("route") for fact in facts}
    token = admin["Authorization"].split()[1]
    for said in (metrics, str(facts), caplog.text):
        assert "Ada" not in said
        assert token not in said
        assert str(told["faces"][0]["similarity"]) not in said
    assert 'steadface_people{collection="default"} 1.0' in metrics
    assert 'steadface_requests_total{method="POST",route="/v1/identify",status="200"} 1.0' in metrics
    assert "steadface_batch_faces_bucket" in metrics


def test_what_nobody_foresaw_tells_nothing_of_what_was_sent(
    sit: Sat, pngs: list[list[bytes]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = sit()

    def fail(*_: object, **__: object) -> None:
        raise ValueError("Ada Lovelace 0.31234")

    monkeypatch.setattr(desk.service.collections.get(None).recognizer, "verify", fail)
    with caplog.at_level("INFO"):
        said = desk.verify(pngs[0][0], pngs[0][1])
    assert (said.status_code, said.headers["content-type"]) == (500, "application/problem+json")
    (told,) = [record.__dict__["facts"] for record in caplog.records if record.message == "unforeseen"]
    assert told["error"] == "ValueError"
    assert told["request"] == said.headers["x-request-id"]
    for text in (said.text, caplog.text, str(told)):
        assert "Ada" not in text
        assert "0.31234" not in text
    assert desk.identify(pngs[0][0]).status_code == 200


def test_without_a_detector_aligned_faces_are_taken_and_photographs_refused(
    model: Path, pngs: list[list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise NotFound("no face detector")

    monkeypatch.setattr("steadface.recognition.face_finder.open_detector", none)
    with opened({"default": Place(model=str(model))}, Metrics()) as found:
        recognizer = found.get(None).recognizer
        assert recognizer.verify(pngs[0][0], pngs[0][0], fmr=0.05, aligned=True).match
        with pytest.raises(Unsupported, match="no face detector"):
            recognizer.verify(pngs[0][0], pngs[0][0], fmr=0.05)


def test_collections_lie_in_a_database_each_in_a_schema_of_its_own(
    model: Path, tmp_path: Path, postgres: "Server"
) -> None:
    address, vector = postgres.address(), np.eye(1, 16, dtype=np.float32)
    place = Place(model=str(model), gallery=address, key=tmp_path / "k")
    with opened({"default": place}, Metrics()) as found:
        found.get(None).gallery.enroll("Ada", vector)
    with opened({"default": place}, Metrics()) as found:
        assert found.counts() == {"default": (1, 1)}
    same = place.model_copy(update={"gallery": f"{address}&connect_timeout=9"})
    with pytest.raises(Conflict, match="one and two have one gallery"), opened({"one": place, "two": same}, Metrics()):
        pass
