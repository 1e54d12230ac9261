import itertools
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from steadface.gallery.sealing.log import Verification, following, numbers, ranges, verify
from steadface.gallery.storage.sqlite.rows import SCHEMA, Rows

KEY = bytes(range(32))
NOW = datetime(2031, 5, 2, tzinfo=UTC)
PEOPLE = {"a", "c"}
TEMPLATES = {1: "a", 2: "a", 4: "c"}
"""What the log below leads to."""


def append(log: sqlite3.Connection, key: bytes, event: str, **details: object) -> None:
    rows = Rows(log, "g")
    rows.append(following(rows.last_entry(), key, event, now=NOW, **details))  # type: ignore[arg-type]


@pytest.fixture
def log() -> Iterator[sqlite3.Connection]:
    """Five entries: a made gallery, three people, of whom one is removed."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    append(connection, KEY, "create")
    for person, added in (("a", [(1, 2)]), ("b", [(3, 3)]), ("c", [(4, 4)])):
        append(connection, KEY, "enroll", person=person, added=added)
    append(connection, KEY, "remove", person="b", removed=[(3, 3)], gone=True)
    yield connection
    connection.close()


def judged(log: sqlite3.Connection, head: str | None = None, key: bytes = KEY) -> Verification:
    return verify(Rows(log, "g").entries(), key, templates=TEMPLATES, people=PEOPLE, head=head)


def where(found: Verification) -> list[int | None]:
    return [finding.sequence for finding in found.findings]


def test_what_nobody_touched_is_intact(log: sqlite3.Connection) -> None:
    found = judged(log)
    assert (found.intact, found.entries) == (True, 5)
    assert judged(log, head=found.head).intact


def test_an_earlier_head_is_still_there_when_the_log_goes_on(log: sqlite3.Connection) -> None:
    head = judged(log).head
    append(log, KEY, "search")
    assert judged(log, head=head).intact
    assert judged(log).head != head


@pytest.mark.parametrize(
    ("column", "value"),
    [("time", "2031-05-03"), ("event", "create"), ("person", "z"), ("details", "{}"), ("hash", bytes(32))],
)
def test_an_edited_entry_is_found(log: sqlite3.Connection, column: str, value: object) -> None:
    log.execute(f"UPDATE journal SET {column} = ? WHERE sequence = 3", (value,))
    found = judged(log)
    assert 3 in where(found)
    assert any("entry 3" in finding.what and "edited" in finding.what for finding in found.findings)


@pytest.mark.parametrize(("gone", "said"), [((2,), "entry 2 was removed"), ((2, 3), "entries 2 to 3 were removed")])
def test_removed_entries_are_found(log: sqlite3.Connection, gone: tuple[int, ...], said: str) -> None:
    log.executemany("DELETE FROM journal WHERE sequence = ?", ((sequence,) for sequence in gone))
    assert said in [finding.what for finding in judged(log).findings]


def test_entries_removed_at_the_start_are_found(log: sqlite3.Connection) -> None:
    log.execute("DELETE FROM journal WHERE sequence = 1")
    assert "entry 1 was removed" in [finding.what for finding in judged(log).findings]


def test_entries_that_changed_places_are_found(log: sqlite3.Connection) -> None:
    for one, other in ((2, 99), (3, 2), (99, 3)):
        log.execute("UPDATE journal SET sequence = ? WHERE sequence = ?", (other, one))
    assert {2, 3} <= set(where(judged(log)))


def test_a_removed_entry_shows_though_the_rest_is_numbered_anew(log: sqlite3.Connection) -> None:
    log.execute("DELETE FROM journal WHERE sequence = 3")
    for sequence in (4, 5):
        log.execute("UPDATE journal SET sequence = ? WHERE sequence = ?", (sequence - 1, sequence))
    assert {3, 4} <= set(where(judged(log)))


def test_a_cut_off_end_shows_against_the_rows(log: sqlite3.Connection) -> None:
    log.execute("DELETE FROM journal WHERE sequence > 3")
    said = " ".join(finding.what for finding in judged(log).findings)
    assert "1 people of the log are not in the gallery (b)" in said
    assert "1 people of the gallery are not in the log (c)" in said
    assert "1 templates of the gallery are not in the log (4)" in said


def test_a_cut_off_end_that_left_no_rows_shows_against_the_head(log: sqlite3.Connection) -> None:
    append(log, KEY, "search")
    head = judged(log).head
    log.execute("DELETE FROM journal WHERE sequence = 6")
    assert judged(log).intact
    (finding,) = judged(log, head=head).findings
    assert finding.what == f"no entry has the hash {head}: entries were cut off at the end, or replaced"


def test_an_empty_log_is_no_log(log: sqlite3.Connection) -> None:
    log.execute("DELETE FROM journal")
    assert any("the log is empty" in finding.what for finding in judged(log).findings)


def test_nobody_without_the_key_can_write_an_entry(log: sqlite3.Connection) -> None:
    append(log, bytes(32), "search")
    assert where(judged(log)) == [6]


def test_a_template_that_changed_hands_shows(log: sqlite3.Connection) -> None:
    found = verify(Rows(log, "g").entries(), KEY, templates=TEMPLATES | {1: "c"}, people=PEOPLE)
    assert len(found.findings) == 2


def test_ranges_are_the_runs_of_numbers() -> None:
    assert ranges([]) == []
    assert ranges([3]) == [(3, 3)]
    assert ranges([1, 2, 3, 7, 9, 10]) == [(1, 3), (7, 7), (9, 10)]
    for chosen in itertools.product((0, 1), repeat=6):
        some = [n for n, there in enumerate(chosen) if there]
        assert list(numbers(ranges(some))) == some
