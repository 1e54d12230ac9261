"""People come and go through the service: once for each request, with receipts, each collection apart."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steadface.errors import Unavailable
from steadface.gallery.person import PersonId
from steadface.gallery.storage.sqlite import SQLiteStorage
from steadface.service.collections import DEFAULT, Place, opened
from steadface.service.observation import Metrics

from .conftest import Desk, Sat


def test_somebody_is_enrolled_shown_renamed_and_removed(desk: Desk, pngs: list[list[bytes]]) -> None:
    made = desk.enroll("Ada", pngs[0][0], data={"consent": "form 7"})
    assert made.status_code == 201
    person = made.json()["id"]
    at = f"/v1/people/{person}"
    shown = desk.client.get(at).json()
    assert (shown["person"], shown["consent"], len(shown["template_list"])) == ("Ada", "form 7", 1)
    assert desk.client.patch(at, json={"name": "Ada Lovelace"}).json()["person"] == "Ada Lovelace"
    more = desk.client.post(
        f"{at}/templates", data={"aligned": "true"}, files=[("images", ("a.png", pngs[0][0], "image/png"))]
    )
    assert more.status_code == 201, more.text
    assert more.json()["templates"] == 2
    assert desk.client.delete(f"{at}/templates/{more.json()['template']}").json()["templates"] == 1
    receipt = desk.client.delete(at).json()["receipt"]
    gallery = desk.service.collections.get(DEFAULT).gallery
    assert gallery.verify_log(head=receipt["entry"]).intact
    for gone in (desk.client.get(at), desk.client.delete(at), desk.client.patch(at, json={"name": "x"})):
        assert gone.status_code == 404


def test_a_removal_is_acknowledged_though_the_gallery_is_lost_behind_it(
    desk: Desk, pngs: list[list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: SQLiteStorage) -> None:
        raise Unavailable("the gallery cannot be reached; nothing was written")

    person = desk.enroll("Ada", pngs[0][0]).json()["id"]
    with monkeypatch.context() as broken:
        broken.setattr(SQLiteStorage, "reading", lost)
        answer = desk.client.delete(f"/v1/people/{person}")
    assert answer.status_code == 200, answer.text
    gallery = desk.service.collections.get(DEFAULT).gallery
    assert answer.json()["receipt"] == vars(gallery.receipt(PersonId(person)))


def test_a_request_that_is_made_again_is_done_once(desk: Desk, pngs: list[list[bytes]]) -> None:
    again = {"headers": {"Idempotency-Key": "e7e1-1"}}
    first, second = (desk.enroll("Ada", pngs[0][0], **again) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["idempotent-replayed"] == "true"
    told = {name: first.json()[name] for name in ("person", "id", "template", "templates")}
    assert second.json() == {**told, "repeated": True}
    assert desk.client.get("/v1/people").json()["people"][0]["templates"] == 1
    other = desk.enroll("Eve", pngs[1][0], **again)
    assert other.status_code == 422
    assert desk.enroll("Ada", pngs[0][0], headers={"Idempotency-Key": " "}).status_code == 400
    desk.client.delete(f"/v1/people/{told['id']}")
    assert desk.enroll("Ada", pngs[0][0], **again).status_code == 404
    assert desk.client.get("/v1/people").json()["count"] == 0


def test_the_key_of_a_request_is_that_of_its_caller(sit: Sat, pngs: list[list[bytes]]) -> None:
    desk = sit(keys=True)
    one, other = ({**desk.key("enroll"), "Idempotency-Key": "1"} for _ in range(2))
    assert "idempotent-replayed" not in desk.enroll("Ada", pngs[0][0], headers=one).headers
    assert "idempotent-replayed" not in desk.enroll("Ada", pngs[0][0], headers=other).headers


def test_people_are_listed_page_by_page_and_searched(desk: Desk, pngs: list[list[bytes]]) -> None:
    for name, pictures in zip(("Ada", "Eve", "Adam", "Bob", "ADAMA"), pngs[:5], strict=True):
        assert desk.enroll(name, pictures[0], data={"check": "false"}).status_code == 201
    seen, after = [], 0
    while after is not None:
        page = desk.client.get("/v1/people", params={"limit": 2, "after": after}).json()
        assert page["count"] == 5
        seen += [one["person"] for one in page["people"]]
        after = page["next"]
    assert seen == ["Ada", "Eve", "Adam", "Bob", "ADAMA"]
    found = desk.client.get("/v1/people", params={"search": "adam", "limit": 1}).json()
    assert [one["person"] for one in found["people"]] == ["Adam"]
    rest = desk.client.get("/v1/people", params={"search": "adam", "after": found["next"]}).json()
    assert [one["person"] for one in rest["people"]] == ["ADAMA"]
    assert desk.client.get("/v1/people", params={"after": "x"}).status_code == 422


def test_collections_are_apart(desk: Desk, pngs: list[list[bytes]]) -> None:
    desk.enroll("Ada", pngs[0][0], data={"collection": "visitors"})
    assert desk.identify(pngs[0][0]).json()["enrolled"] == 0
    assert desk.identify(pngs[0][0], data={"collection": "visitors"}).json()["match"]
    assert desk.client.get("/v1/people").json()["count"] == 0
    assert desk.client.get("/v1/people", params={"collection": "nowhere"}).status_code == 404
    assert [(one["name"], one["people"]) for one in desk.client.get("/v1/collections").json()] == [
        (DEFAULT, 0),
        ("visitors", 1),
    ]


def test_who_has_expired_is_not_found_and_goes(desk: Desk, pngs: list[list[bytes]]) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    desk.enroll("Ada", pngs[0][0], data={"expires": soon.isoformat()})
    while datetime.now(UTC) <= soon:
        time.sleep(0.01)
    assert desk.identify(pngs[0][0]).json()["enrolled"] == 0
    (receipt,) = desk.client.post("/v1/expire").json()["receipts"]
    assert receipt["event"] == "expire"
    assert desk.client.get("/v1/people").json()["count"] == 0
    assert desk.enroll("Eve", pngs[0][0], data={"expires": "yesterday"}).status_code == 400


def test_who_is_not_met_for_too_long_goes(model: Path, tmp_path: Path, pngs: list[list[bytes]]) -> None:
    place = Place(model=str(model), gallery=tmp_path / "g.db", key=tmp_path / "g.key", aligned=True, idle_days=1e-9)
    with opened({DEFAULT: place}, Metrics()) as found:
        collection = found.get(None)
        for name, pictures in zip(("Ada", "Eve"), pngs, strict=False):
            collection.recognizer.enroll(name, pictures[0], check=False)
        between = datetime.now(UTC)
        for _ in range(2):
            collection.note_matches(collection.recognizer.identify(pngs[0][0], fmr=0.05))
        events = [one.event for one in collection.gallery.entries(most=9)]
        assert events == ["create", "enroll", "enroll", "match"], "of each once in a while"
        assert [person.name for person in collection.gallery.idle(between)] == ["Eve"]
        time.sleep(0.001)
        assert [person.name for person in collection.forget()] == ["Ada", "Eve"]


def test_the_log_says_what_was_done_and_to_whom(desk: Desk, pngs: list[list[bytes]]) -> None:
    person = desk.enroll("Ada", pngs[0][0]).json()["id"]
    log = desk.client.get("/v1/log", params={"limit": 1000}).json()
    last = log["entries"][-1]
    assert log["last"] == last["entry"]
    assert (last["event"], last["person"], last["hash"]) == ("enroll", person, log["head"])
    assert "Ada" not in str(log)
    page = desk.client.get("/v1/log", params={"limit": 1}).json()
    assert [one["entry"] for one in page["entries"]] == [1] == [page["next"]]


def test_somebody_is_told_of_strangers_and_of_who_is_gone(sit: Sat, pngs: list[list[bytes]]) -> None:
    told: list[dict[str, Any]] = []
    desk = sit(webhook=SimpleNamespace(send=told.append))
    person = desk.enroll("Ada", pngs[0][0]).json()["id"]
    assert desk.identify(pngs[0][0]).json()["match"]
    assert told == [], "who is known is nobody's business"
    desk.client.delete(f"/v1/people/{person}")
    desk.identify(pngs[0][0])
    assert [(one["event"], one["collection"]) for one in told] == [("deleted", DEFAULT), ("unknown", DEFAULT)]
    assert told[0]["receipt"]["person"] == person
    assert "Ada" not in str(told)
