"""A service on a port: it listens where it may, hurries those who dawdle, and ends once what was begun is answered."""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import uvicorn

from steadface.errors import InvalidInput, NotFound, Unavailable
from steadface.service import server as serving
from steadface.service.application import application
from steadface.service.server import Address, listening, server

from .conftest import Desk

Running = tuple[uvicorn.Server, threading.Thread, int]


@pytest.fixture
def running(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A server in a thread, the thread, and its port."""
    monkeypatch.setattr(serving, "HURRY", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as here:
        port = here.getsockname()[1]
        made = server(application(desk.service), Address(port=port))
        thread = threading.Thread(target=lambda: made.run(sockets=[here]))
        thread.start()
        ask(port)  # waits until it answers
        yield made, thread, port
        made.should_exit = True
        thread.join()


def ask(port: int) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", "/v1/health/live")
        with connection.getresponse() as answer:
            answer.read()
            return answer.status


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "])
@pytest.mark.parametrize("before", [b"", b"GET /v1/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"])
def test_whoever_sends_no_whole_request_is_not_waited_for(running: Running, before: bytes, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", running[2]), timeout=60) as dawdler:
        if before:
            dawdler.sendall(before)
            assert b"200" in dawdler.recv(4096)
            if not sent:
                return  # uvicorn keeps an idle connection for some seconds
        dawdler.sendall(sent)
        while dawdler.recv(4096):  # what was left of the answer, until it is closed
            pass
    assert ask(running[2]) == 200


def test_the_body_of_an_answer_does_not_wait_for_its_head_to_be_acknowledged(running: Running) -> None:
    made, _, port = running
    with socket.create_connection(("127.0.0.1", port), timeout=60) as caller:
        caller.sendall(b"GET /v1/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200" in caller.recv(4096)
        (connection,) = made.server_state.connections
        here = connection.transport.get_extra_info("socket")  # type: ignore[union-attr]
        assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_was_begun_is_answered_before_it_ends(
    running: Running, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, thread, port = running
    begun, leave = threading.Event(), threading.Event()
    freshness = type(desk.service.collections).freshness

    def slow(self: object) -> object:
        begun.set()
        assert leave.wait(60)
        return freshness(self)  # type: ignore[arg-type]

    monkeypatch.setattr(type(desk.service.collections), "freshness", slow)
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", "/v1/health/ready")
        assert begun.wait(60)
        made.should_exit = True
        leave.set()
        with connection.getresponse() as answer:
            assert answer.status == 200
    thread.join()


def test_addresses_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address(port=taken.getsockname()[1])
        with pytest.raises(Unavailable, match="choose another"), listening(address):
            pytest.fail("somebody listens there")
    with pytest.raises(InvalidInput), listening(Address(host="256.0.0.1")):
        pytest.fail("there is no such address")
    with pytest.raises(InvalidInput, match="both"):
        Address(certificate=tmp_path / "c.pem")
    with pytest.raises(NotFound):
        Address(certificate=tmp_path / "c.pem", private_key=tmp_path / "k.pem")
    assert [Address(host=host).on_loopback for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "a.example")] == [
        True,
        True,
        True,
        False,
        False,
    ]
