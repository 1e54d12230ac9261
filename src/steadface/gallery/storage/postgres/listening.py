"""Hearing of changes as they are committed (`LISTEN` and `NOTIFY`), which makes a follower quick, and is not relied on.

What a lost connection, or a pooler in between, swallows is found by who looks from time to time in any case. A
connection is lost to the server's restart, and made anew by the next wait.
"""

import time
from contextlib import suppress
from typing import Any

import psycopg

from steadface.errors import SteadfaceError
from steadface.gallery.storage.postgres.address import Address


class Listener:
    """On a connection of its own, for one thread."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._kept: psycopg.Connection[Any] | None = None

    def wait(self, seconds: float) -> None:
        """Returns when somebody has committed a change since it listens, or begins to listen; or after that time."""
        until = time.monotonic() + seconds
        try:
            if self._kept is None:
                self._begin()
            else:
                list(self._kept.notifies(timeout=seconds, stop_after=1))
        except (psycopg.Error, SteadfaceError):
            self.close()
            time.sleep(max(0.0, until - time.monotonic()))

    def close(self) -> None:
        if self._kept is not None:
            with suppress(psycopg.Error):
                self._kept.close()
        self._kept = None

    def _begin(self) -> None:
        self._kept = self._address.connected()
        self._kept.execute(f"LISTEN {self._address.channel}")
