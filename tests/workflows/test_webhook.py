"""Events on their way to a server on this machine: signed, in order, again where need be, and never waited for."""

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from steadface.errors import InvalidInput
from steadface.workflows.webhook import HEADER, Webhook, check_url, signature

SECRET = b"0123456789abcdef"


class Receiver:
    """A server that gives the answers it is told, then 204; `stuck`, it answers once that is set."""

    def __init__(self, *answers: int) -> None:
        self.answers, self.got = list(answers), []
        self.stuck: threading.Event | None = None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.stuck is not None:
                    receiver.stuck.wait(10)
                receiver.got.append((dict(self.headers), body))
                code = receiver.answers.pop(0) if receiver.answers else 204
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", receiver.url + "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def bodies(self) -> list[dict]:
        return [json.loads(body) for _, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


def test_events_arrive_signed_and_in_order(receiver: Receiver) -> None:
    hook = Webhook(receiver.url, SECRET)
    for number in range(3):
        hook.send({"event": "seen", "visit": number})
    hook.close()
    assert [body["visit"] for body in receiver.bodies()] == [0, 1, 2]
    assert len({body["id"] for body in receiver.bodies()}) == 3
    for headers, body in receiver.got:
        stamp, digest = headers[HEADER].split(",")
        seconds = stamp.removeprefix("t=")
        assert abs(int(seconds) - time.time()) < 60
        expected = hmac.new(SECRET, f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(digest, f"v1={expected}")
    assert (hook.delivered, hook.lost) == (3, 0)


def test_the_signature_is_of_time_and_body() -> None:
    assert len({signature(SECRET, 1, b"a"), signature(SECRET, 2, b"a"), signature(SECRET, 1, b"b")}) == 3
    assert signature(b"another one, of 16", 1, b"a") != signature(SECRET, 1, b"a")


def test_what_fails_for_a_while_is_sent_again_as_the_same_event(receiver: Receiver) -> None:
    receiver.answers = [503, 429]
    hook = Webhook(receiver.url, SECRET, first_wait=0.01)
    hook.send({"event": "seen"})
    hook.send({"event": "left"})
    wait_for(lambda: hook.delivered == 2)
    hook.close()
    assert [body["event"] for body in receiver.bodies()] == ["seen", "seen", "seen", "left"]
    assert len({body["id"] for body in receiver.bodies()}) == 2


@pytest.mark.parametrize("answer", [400, 403, 302])
def test_what_is_refused_is_not_sent_again_nor_carried_elsewhere(
    receiver: Receiver, answer: int, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [answer]
    hook = Webhook(receiver.url, SECRET)
    with caplog.at_level(logging.WARNING):
        hook.send({"event": "seen", "person": "Ada"})
        hook.send({"event": "left"})
        hook.close()
    assert [body["event"] for body in receiver.bodies()] == ["seen", "left"]
    assert (hook.delivered, hook.lost) == (1, 1)
    assert str(answer) in caplog.text
    assert "Ada" not in caplog.text


def test_nobody_waits_for_a_server_that_does_not_answer_and_what_waits_is_bounded(receiver: Receiver) -> None:
    receiver.stuck = threading.Event()
    hook = Webhook(receiver.url, SECRET, most=5)
    for number in range(50):  # returns though nothing is answered
        hook.send({"visit": number})
    assert hook.lost >= 44
    receiver.stuck.set()
    hook.close()
    assert [body["visit"] for body in receiver.bodies()][-5:] == [45, 46, 47, 48, 49]
    assert len(receiver.got) <= 6


def test_the_end_does_not_wait_for_a_server_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    receiver.close()
    hook = Webhook(receiver.url + "/secret-path", SECRET, first_wait=1000)
    hook.send({"event": "seen"})
    with caplog.at_level(logging.WARNING):
        hook.close()
    assert (hook.delivered, hook.lost) == (0, 1)
    assert receiver.url in caplog.text
    assert "secret-path" not in caplog.text


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/passwd", "host/x", "http://", "http://u:topsecret@host/",
                                 "https://host:99999/", "http://host/a b", "http://host/\n"])  # fmt: skip
def test_an_address_that_is_none_or_holds_a_password(url: str) -> None:
    with pytest.raises(InvalidInput) as error:
        check_url(url)
    assert "topsecret" not in str(error.value)


def wait_for(holds) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)
