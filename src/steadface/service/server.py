"""A service in one process: it listens, and ends once what was begun is answered."""

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from steadface.errors import InvalidInput, NotFound, Unavailable

CONNECTIONS = 512
"""At once; more are answered with 503."""
GRACE = 30
"""Seconds for what was begun, once the service is asked to stop."""

logger = logging.getLogger("steadface.service")


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
        kind = Unavailable if error.errno in (98, 48) else InvalidInput
        raise kind(f"cannot listen at {address.url}: {error.strerror}; choose another host or port") from None
    with found:
        yield found


def run(app: FastAPI, address: Address, here: socket.socket) -> None:
    """Answers until SIGINT or SIGTERM, then what was begun by then, and returns."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
        proxy_headers=False,  # whoever is on this machine could name any address and scheme
        ssl_certfile=address.certificate,
        ssl_keyfile=address.private_key,
    )
    asyncio.run(_Server(config).serve(sockets=[here]))


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but that a signal which was obeyed is not raised once more at the end."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
