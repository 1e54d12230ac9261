"""The clients of the service: what is sent, what is sent again, what an answer and a refusal become."""

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from steadface.client import AsyncClient, Client, Refused, Retries, TooOften
from steadface.client.problems import seconds_of
from steadface.errors import Conflict, InvalidInput, NotFound, SteadfaceError, Unavailable, Unsupported

KEY = "sf_0123abcd_secretsecretsecret"
ENROLLED = {"person": "Ada", "id": "a1", "template": 3, "templates": 1, "repeated": False}
AT_ONCE = Retries(times=3, first=0.0)

Seen = list[httpx.Request]


def problem(status: int, detail: str = "no", **headers: str) -> httpx.Response:
    told = {"title": "x", "status": status, "detail": detail, "instance": "urn:request:77aa"}
    return httpx.Response(status, json=told, headers=headers)


def scripted(*answers: httpx.Response | Exception) -> tuple[httpx.MockTransport, Seen]:
    """A service that gives these answers one after the other, and what it was asked."""
    left, seen = list(answers), Seen()

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    return httpx.MockTransport(answer), seen


Ask = Callable[..., Any]


@pytest.fixture(params=[Client, AsyncClient])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Makes a client with a transport, calls one of its methods, and gives the answer of either kind alike."""

    def asked(transport: Any, method: str, *args: Any, retries: Retries = AT_ONCE, **kwargs: Any) -> Any:
        client = request.param("http://127.0.0.1:8000", key=KEY, retries=retries, transport=transport)
        found = getattr(client, method)(*args, **kwargs)
        return asyncio.run(found) if asyncio.iscoroutine(found) else found

    return asked


def test_it_imports_nothing_heavy() -> None:
    code = "import sys, steadface.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "cv2", "fastapi", "pydantic", "PIL"} & set(loaded)


def test_an_enrolment_is_one_request_however_often_it_is_sent(ask: Ask, tmp_path: Path) -> None:
    broken = httpx.ReadError("connection reset")
    transport, seen = scripted(
        broken, problem(503), problem(429, **{"Retry-After": "0"}), httpx.Response(201, json=ENROLLED)
    )
    (tmp_path / "a.jpg").write_bytes(b"one")
    pictures = [tmp_path / "a.jpg", b"two", io.BytesIO(b"three")]
    done = ask(transport, "enroll", "Ada", pictures, consent="form 7", expires=datetime(2031, 5, 2, tzinfo=UTC))
    assert (done.person, done.template, done.repeated, done.raw) == ("Ada", 3, False, ENROLLED)
    assert len(seen) == 4
    assert len({one.headers["Idempotency-Key"] for one in seen}) == 1
    for one in seen:
        assert all(part in one.content for part in (b"one", b"two", b"three", b"form 7", b"2031-05-02T00:00:00+00:00"))
    other, more = scripted(httpx.Response(201, json=ENROLLED))
    ask(other, "enroll", "Ada", [b"one"])
    assert more[0].headers["Idempotency-Key"] != seen[0].headers["Idempotency-Key"]


def test_what_may_have_been_done_is_not_done_again(ask: Ask) -> None:
    receipt = {"receipt": {"person": "a1", "event": "remove", "time": "t", "entry": "ff"}}
    for broken in (httpx.ReadTimeout("late"), problem(502)):
        transport, seen = scripted(broken, httpx.Response(200, json=receipt))
        with pytest.raises(Unavailable):
            ask(transport, "remove", "a1")
        assert len(seen) == 1
    for nothing_done in (httpx.ConnectError("refused"), problem(503), problem(429, **{"Retry-After": "0"})):
        transport, seen = scripted(nothing_done, httpx.Response(200, json=receipt))
        assert ask(transport, "remove", "a1").entry == "ff"
        assert (seen[-1].method, seen[-1].url.path, len(seen)) == ("DELETE", "/v1/people/a1", 2)


def test_who_has_expired_is_told_by_receipts(ask: Ask) -> None:
    receipt = {"person": "a1", "event": "expire", "time": "t", "entry": "ff"}
    transport, seen = scripted(httpx.Response(200, json={"receipts": [receipt]}))
    (gone,) = ask(transport, "expire", collection="staff")
    assert (gone.person, gone.entry) == ("a1", "ff")
    assert seen[0].url.params["collection"] == "staff"


def test_after_the_last_try_the_reason_is_raised(ask: Ask) -> None:
    transport, seen = scripted(*[problem(503, "busy") for _ in range(4)])
    with pytest.raises(Unavailable, match="busy"):
        ask(transport, "live")
    assert len(seen) == 4
    with pytest.raises(Unavailable, match="does not answer"):
        ask(scripted(*[httpx.ConnectError("refused")] * 4)[0], "live")


def test_waits_grow_with_jitter_and_begin_once_the_service_allows_it() -> None:
    retries = Retries(times=10, first=1.0, most=8.0)
    for tried, most in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (9, 8.0)):
        drawn = [retries.wait(tried, None) for _ in range(50)]
        assert all(wait is not None and 0 <= wait <= most for wait in drawn)
        assert len(set(drawn)) > 1
    wait = retries.wait(1, 5.0)
    assert wait is not None
    assert 5.0 <= wait <= 6.0
    assert retries.wait(11, None) is None
    assert retries.wait(1, 9.0) is None
    with pytest.raises(InvalidInput):
        Retries(first=2.0, most=1.0)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), (None, None), ("soon", None), ("inf", None)]
)
def test_how_long_the_service_says(header: str | None, seconds: float | None) -> None:
    assert seconds_of(header) == seconds


def test_a_date_may_stand_in_retry_after() -> None:
    far = seconds_of("Fri, 01 Jan 2100 00:00:00 GMT")
    assert far is not None
    assert far > 10**8
    assert seconds_of("Sat, 01 Jan 2000 00:00:00 GMT") == 0.0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (401, Refused),
        (403, Refused),
        (404, NotFound),
        (409, Conflict),
        (413, InvalidInput),
        (422, InvalidInput),
        (429, TooOften),
        (500, SteadfaceError),
        (501, Unsupported),
        (503, Unavailable),
    ],
)
def test_a_problem_is_the_librarys_exception(ask: Ask, status: int, kind: type[SteadfaceError]) -> None:
    with pytest.raises(kind, match="Ada is nobody") as raised:
        ask(scripted(problem(status, "Ada is nobody", **{"Retry-After": "90"}))[0], "person", "a1")
    assert type(raised.value) is kind
    assert any("77aa" in note for note in raised.value.__notes__)
    if isinstance(raised.value, TooOften):
        assert raised.value.after == 90.0


@pytest.mark.parametrize(("status", "more"), [(502, {"text": "<html>"}), (307, {"headers": {"Location": "http://e/"}})])
def test_what_is_no_problem_of_the_service_is_one_all_the_same(ask: Ask, status: int, more: dict[str, Any]) -> None:
    with pytest.raises(SteadfaceError, match=str(status)):
        ask(scripted(httpx.Response(status, **more))[0], "person", "a1", retries=Retries(times=0))


@pytest.mark.parametrize("told", ["hello", "[1]", "{}"])
def test_another_programs_answer_is_said_to_be_that(ask: Ask, told: str) -> None:
    with pytest.raises(Unavailable, match="no service of this kind"):
        ask(scripted(httpx.Response(200, text=told))[0], "person", "a1")


def test_the_key_stays_out_of_sight(ask: Ask) -> None:
    for kind in (Client, AsyncClient):
        assert KEY not in repr(kind("http://127.0.0.1:8000", key=KEY, transport=scripted()[0]))
    transport, seen = scripted(httpx.Response(200, json=[]), *[httpx.ReadError("x")] * 4)
    ask(transport, "collections")
    assert seen[0].headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(seen[0].url)
    with pytest.raises(Unavailable) as raised:
        ask(transport, "collections")
    assert KEY not in str(raised.value)
    assert KEY not in repr(raised.value.__cause__)


@pytest.mark.parametrize(
    "url",
    ["faces.example.org", "ftp://faces", f"https://{KEY}@faces", f"https://faces/?key={KEY}", "http://[", "http://a:x"],
)
def test_what_is_no_address_is_refused_and_not_repeated_where_it_holds_a_key(url: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Client(url)
    assert KEY not in str(raised.value)


def test_a_key_that_is_none_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InvalidInput) as raised:
        Client("http://127.0.0.1", key="sf_\n1")
    assert "sf_" not in str(raised.value)


def test_pictures_that_cannot_be_read_are_named(ask: Ask, tmp_path: Path) -> None:
    transport, seen = scripted()
    with pytest.raises(NotFound, match=r"nowhere\.jpg"):
        ask(transport, "detect", tmp_path / "nowhere.jpg")
    with pytest.raises(InvalidInput, match="int"):
        ask(transport, "detect", 3)
    with pytest.raises(InvalidInput, match="StringIO"):
        ask(transport, "detect", io.StringIO("text"))
    assert not seen


def test_an_id_is_a_part_of_the_path_and_nothing_more(ask: Ask) -> None:
    person = {"person": "Ada", "id": "a1", "templates": 1, "enrolled": "2031-05-02T00:00:00+00:00", "expires": None}
    transport, seen = scripted(httpx.Response(200, json=person))
    shown = ask(transport, "person", "../log?after=1")
    assert seen[0].url.raw_path == b"/v1/people/..%2Flog%3Fafter%3D1"
    assert (shown.enrolled, shown.expires, shown.template_list) == (datetime(2031, 5, 2, tzinfo=UTC), None, ())
    with pytest.raises(InvalidInput):
        ask(transport, "person", "..")


def test_everybody_is_gone_through_page_by_page() -> None:
    def page(name: str, after: int | None) -> httpx.Response:
        person = {"person": name, "id": name, "templates": 1, "enrolled": "2031-05-02T00:00:00+00:00"}
        return httpx.Response(200, json={"people": [person], "next": after, "count": 2})

    transport, seen = scripted(page("Ada", 7), page("Eve", None))
    with Client(collection="staff", transport=transport) as client:
        people = client.people(search="a")
        assert not seen
        assert [one.person for one in people] == ["Ada", "Eve"]
    assert [dict(one.url.params).get("after") for one in seen] == [None, "7"]
    assert {one.url.params["collection"] for one in seen} == {"staff"}

    async def names() -> list[str]:
        async with AsyncClient(transport=scripted(page("Ada", 7), page("Eve", None))[0]) as client:
            return [one.person async for one in client.people()]

    assert asyncio.run(names()) == ["Ada", "Eve"]


def test_a_new_key_is_told_and_not_shown(ask: Ask) -> None:
    told = {
        **{"id": "0a", "name": "door", "scopes": ["identify"], "collections": ["*"], "shows": "rounded", "rate": 5},
        **{"probes": 6, "created": "2031-05-02T00:00:00Z", "expires": None, "expired": False, "key": KEY},
    }
    transport, seen = scripted(httpx.Response(201, json=told))
    made = ask(transport, "make_key", "door", ["identify"], rate=5)
    assert json.loads(seen[0].content) == {"name": "door", "scopes": ["identify"], "rate": 5}
    assert made.key == KEY
    assert KEY not in repr(made)
