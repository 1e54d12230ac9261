"""The audit log: what was done to a gallery, in entries of which each carries the keyed hash of the one before.

    hash_i = HMAC-SHA-256(log key, (i, time, event, person, details, hash_{i-1}))        hash_0 = 0

An entry is written in the transaction of what it reports. It names people by their random ids, and holds neither names
nor vectors, so that it may stay when a person is removed. Those who can write to the file but lack the key can change
no entry unseen, nor add one; that entries were cut off at the end shows against a head noted earlier, and against the
rows, since `added` and `removed` name templates by number. Searching follows the same two to keep its index in step.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from steadface.errors import InvalidInput, quoted, short
from steadface.gallery.sealing.keys import Unsealable
from steadface.gallery.sealing.vault import stamp
from steadface.gallery.storage import Entry

ORIGIN = bytes(32)
SHOWN = 5
MOST = 1000
"""Findings in single entries: where nothing is right there is no end of them."""

Ranges = list[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong with the log, at which entry (None: with the whole)."""

    sequence: int | None
    what: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The number of `entries`, the hash of the last, and what is wrong."""

    entries: int
    head: str
    findings: tuple[Finding, ...]

    @property
    def intact(self) -> bool:
        return not self.findings


def following(
    last: Entry | None, log_key: bytes, event: str, *, now: datetime, person: str | None = None, **details: Any
) -> Entry:
    """The entry behind `last` (None: the first), with its hash."""
    sequence, previous = (1, ORIGIN) if last is None else (last.sequence + 1, last.hash)
    time, text = stamp(now), json.dumps(details)
    return Entry(
        sequence=sequence,
        time=time,
        event=event,
        person=person,
        details=text,
        previous=previous,
        hash=_keyed_hash(log_key, [sequence, time, event, person, text, previous.hex()]),
    )


def expected_hash(entry: Entry, log_key: bytes) -> bytes:
    """What the hash of an entry is unless somebody changed it."""
    content = [entry.sequence, entry.time, entry.event, entry.person, entry.details, entry.previous.hex()]
    return _keyed_hash(log_key, content)


def authentic(entries: Iterable[Entry], log_key: bytes) -> Iterator[Entry]:
    """The same. Raises `Unsealable` at one that was edited, moved or forged, before anything is made of it."""
    for entry in entries:
        if not hmac.compare_digest(entry.hash, expected_hash(entry, log_key)):
            raise Unsealable(f"entry {entry.sequence} of the log")
        yield entry


def highest(entries: Iterable[Entry], log_key: bytes) -> int:
    """Of the numbers of all templates that were ever added. Raises `Unsealable` as `authentic` does."""
    added = (json.loads(entry.details).get("added", []) for entry in authentic(entries, log_key))
    return max((last for runs in added for _, last in runs), default=0)


def _keyed_hash(log_key: bytes, content: list[Any]) -> bytes:
    return hmac.new(log_key, json.dumps(content).encode(), hashlib.sha256).digest()


def verify(
    log: Iterable[Entry], log_key: bytes, *, templates: Mapping[int, str], people: set[str], head: str | None = None
) -> Verification:
    """Checks the chain; that it reached `head` (hex), a hash noted earlier; and that it leads to the rows there are:
    `templates` (number to the person's id) and `people` (ids).
    """
    findings: list[Finding] = []
    left: dict[int, str] = {}
    known: set[str] = set()
    last, seen, count = (0, ORIGIN), head is None, 0
    for entry in log:
        count += 1
        genuine = hmac.compare_digest(entry.hash, expected_hash(entry, log_key))
        if len(findings) < MOST:
            findings += _broken(entry, last, genuine)
        if genuine:  # else it may hold anything, such as numbers without end
            _follow(entry, left, known)
        last = (entry.sequence, entry.hash)
        seen = seen or entry.hash.hex() == head
    if not count:
        findings.append(Finding(sequence=None, what="the log is empty: all of its entries were removed"))
    if not seen:
        findings.append(
            Finding(sequence=None, what=f"no entry has the hash {head}: entries were cut off at the end, or replaced")
        )
    findings += _differences("people", known, people)
    findings += _differences("templates", set(left.items()), set(templates.items()))
    return Verification(entries=count, head=last[1].hex(), findings=tuple(findings))


def checked_head(head: str) -> str:
    """A noted hash as the log writes it. Raises `InvalidInput` for what is none: a typing error is no lost entry."""
    if not re.fullmatch(r"[0-9a-f]{64}", found := head.strip().lower()):
        raise InvalidInput(
            f"{quoted(head)} is no head of a log: give the 64 hexadecimal digits that `gallery info` shows"
        )
    return found


def _broken(entry: Entry, last: tuple[int, bytes], genuine: bool) -> Iterator[Finding]:
    """What is wrong with an entry that follows the one of that sequence number and hash."""
    sequence, digest = last
    if entry.sequence > sequence + 1:
        gone = _those(sequence + 1, entry.sequence - 1)
        yield Finding(sequence=sequence + 1, what=f"{gone} removed")
    elif entry.previous != digest:
        yield Finding(
            sequence=entry.sequence,
            what=f"entry {entry.sequence} does not follow the one before it: one of them was replaced or moved",
        )
    if not genuine:
        event = entry.event if entry.event.isalpha() else quoted(entry.event)  # such as a terminal would obey
        yield Finding(
            sequence=entry.sequence, what=f"entry {entry.sequence} ({short(event)}) was edited, moved or forged"
        )


def _those(first: int, last: int) -> str:
    return f"entry {first} was" if first == last else f"entries {first} to {last} were"


def _follow(entry: Entry, templates: dict[int, str], people: set[str]) -> None:
    """What an entry does to the rows."""
    details = json.loads(entry.details)
    for number in numbers(details.get("removed", [])):
        templates.pop(number, None)
    if entry.person is not None:
        templates.update(dict.fromkeys(numbers(details.get("added", [])), entry.person))
        (people.discard if details.get("gone") else people.add)(entry.person)


def _differences(what: str, logged: set[Any], there: set[Any]) -> Iterator[Finding]:
    if lost := logged - there:
        yield Finding(
            sequence=None,
            what=f"{len(lost)} {what} of the log are not in the gallery ({_named(lost)}): rows were removed by other "
            "means, or the entries that removed them were",
        )
    if added := there - logged:
        yield Finding(
            sequence=None,
            what=f"{len(added)} {what} of the gallery are not in the log ({_named(added)}): rows were added by other "
            "means, or the entries that added them were removed",
        )


def _named(some: set[Any]) -> str:
    named = [short(ascii(one[0] if isinstance(one, tuple) else one).strip("'")) for one in sorted(some)[:SHOWN]]
    return ", ".join([*named, "..."] if len(some) > SHOWN else named)


def ranges(ordered: Iterable[int]) -> Ranges:
    """Ascending numbers as first and last of each run."""
    runs: Ranges = []
    for number in ordered:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def numbers(runs: Iterable[tuple[int, int]]) -> Iterator[int]:
    """What `ranges` were made of."""
    for first, last in runs:
        yield from range(first, last + 1)


def named(entry: Entry, what: Literal["added", "removed"]) -> Iterator[int]:
    """The numbers of the templates that an entry says were added or removed."""
    return numbers(json.loads(entry.details).get(what, []))
