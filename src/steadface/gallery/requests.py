"""What was asked for once is done once: a caller who heard no answer asks again, and nothing is enrolled twice.

A request has a key of the caller's choice. The log's entry of what was done carries keyed digests of that and of what
was asked, so that both are on the disk together or neither is, and nobody can read, forge or take out one of them. For
a day (`REMEMBERED`) an equal request is answered with what was done.
"""

import hashlib
import hmac
import json
import threading
from dataclasses import dataclass
from datetime import timedelta

from steadface.errors import Conflict
from steadface.gallery.person import Person
from steadface.gallery.sealing import log
from steadface.gallery.sealing.transaction import Reader
from steadface.gallery.sealing.vault import Vault, moment
from steadface.gallery.storage import Entry

REMEMBERED = timedelta(days=1)
HALF = 16
"""Bytes of a digest that are kept: two of 2^64 requests have one in common."""


class RequestReused(Conflict):
    """The key of a request was used for another one before."""

    http_status = 422


@dataclass(frozen=True, kw_only=True)
class Request:
    """Something asked for under a `key`; `content` stands for all that was asked."""

    key: str
    content: str

    def digests(self, vault: Vault) -> tuple[str, str]:
        """Of key and content, as the log has them."""
        key, content = (
            hmac.new(vault.requests_key, part.encode(), hashlib.sha256).digest()[:HALF].hex()
            for part in (f"key {self.key}", f"content {self.content}")
        )
        return key, content


@dataclass(frozen=True, kw_only=True)
class Done:
    """What was done for a request: who was enrolled, with which templates. None is who is enrolled no more."""

    person: Person | None
    templates: tuple[int, ...]


class Requests:
    """The requests of the last day that a gallery's log tells of, for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: int | None = None
        self._entries: dict[str, Entry] = {}

    def done(self, reader: Reader, request: Request) -> Done | None:
        """None where it was not done in the last day. Raises `RequestReused` where something else was asked for under
        its key, and `Unsealable` where the log was changed.
        """
        key, content = request.digests(reader.vault)
        with self._lock:
            entry = self._catch_up(reader).get(key, self._entries.get(key))
        if entry is None or moment(entry.time) < reader.now - REMEMBERED:
            return None
        if json.loads(entry.details)["request"][1] != content:
            raise RequestReused(
                "this key of a request was used before, for a request that asked for something else; make a new key "
                "for each request, and use it again only to repeat that one"
            )
        person = next(reader.people(ids=[entry.person or ""]), None)
        return Done(person=person, templates=tuple(log.named(entry, "added")))

    def _catch_up(self, reader: Reader) -> dict[str, Entry]:
        """Those of the change that is being made, if it is one, which are not remembered: it may come to nothing."""
        written, unwritten = reader.state.sequence or reader.last_sequence(), dict[str, Entry]()
        if self._read is None:
            self._read = min(written, _before(reader))
        for entry in reader.entries(after=self._read, events=("enroll",)):
            if (request := json.loads(entry.details).get("request")) is not None:
                (self._entries if entry.sequence <= written else unwritten)[request[0]] = entry
        self._read = max(self._read, written)
        old = reader.now - REMEMBERED
        for key, entry in list(self._entries.items()):  # by age, as they came
            if moment(entry.time) >= old:
                break
            del self._entries[key]
        return unwritten


def _before(reader: Reader) -> int:
    """The last entry that is older than a request that is remembered: the log is in the order of time."""
    low, high, old = 0, reader.last_sequence(), reader.now - REMEMBERED
    while low < high:
        middle = (low + high) // 2
        entry = next(iter(reader.entries(after=middle)), None)
        if entry is None or moment(entry.time) >= old:
            high = middle
        else:
            low = middle + 1
    return low
