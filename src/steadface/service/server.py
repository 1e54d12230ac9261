"""A service in one process: it listens, and ends once what was begun is answered."""

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from steadface.errors import InvalidInput, NotFound, Unavailable

CONNECTIONS = 512
"""At once; more are answered with 503."""
HURRY = 10.0
"""Seconds for the head of a request."""
GRACE = 30
"""Seconds for what was begun, once the service is asked to stop."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the service listens, and with which certificate. Raises NotFound where there is no such file, and
    InvalidInput where one of the two is missing.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    private_key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise InvalidInput("TLS takes both a certificate and its private key; give the other one as well")
        for file in (self.certificate, self.private_key):
            if file is not None and not file.is_file():
                raise NotFound(f"there is no file {file} for TLS; check the path")

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.certificate is None else 'https'}://{host}:{self.port}"


@contextmanager
def listening(address: Address) -> Iterator[socket.socket]:
    """Raises Unavailable where somebody else listens there, and InvalidInput where nobody can."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        found = socket.create_server((address.host, address.port), family=family, backlog=2 * CONNECTIONS)
    except OSError as error:
        kind = Unavailable if error.errno == errno.EADDRINUSE else InvalidInput
        raise kind(f"cannot listen at {address.url}: {error.strerror}; choose another host or port") from None
    with found:
        yield found


def run(app: FastAPI, address: Address, here: socket.socket) -> None:
    """Answers until SIGINT or SIGTERM, then what was begun by then, and returns."""
    asyncio.run(server(app, address).serve(sockets=[here]))


def server(app: FastAPI, address: Address) -> uvicorn.Server:
    """One that answers once it is told to `serve`, until it `should_exit`."""
    config = uvicorn.Config(
        app,
        http=HurriedProtocol,
        log_config=None,
        access_log=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
        proxy_headers=False,  # whoever is on this machine could name any address and scheme
        ssl_certfile=address.certificate,
        ssl_keyfile=address.private_key,
    )
    return _Server(config)


class HurriedProtocol(H11Protocol):
    """Closes a connection on which no request has come, head and all, within `HURRY` seconds: whoever opens many and
    sends nothing, or a byte now and then, keeps nobody out for long.
    """

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does so only where the listening socket names TCP by number. Without, the body of every answer waits
        # some 40 ms for the caller to acknowledge its head.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._called_off()
        super().connection_lost(exc)

    def _look(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._called_off()
        elif self._due is None:
            self._due = self.loop.call_later(HURRY, self.transport.close)

    def _called_off(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but that a signal which was obeyed is not raised once more at the end."""
        if threading.current_thread() is not threading.main_thread():  # which alone hears of signals
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
