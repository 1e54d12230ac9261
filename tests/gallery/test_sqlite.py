import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from steadface.errors import Conflict, InvalidInput, NotFound, SteadfaceError, Unavailable
from steadface.gallery.sealing.keys import new_key
from steadface.gallery.sealing.log import following
from steadface.gallery.sealing.vault import trace
from steadface.gallery.storage import TIMEOUT, Contents, Header
from steadface.gallery.storage.sqlite import PAGE, SQLiteStorage
from steadface.gallery.storage.sqlite.rows import VERSION

from .conftest import MODEL

HEADER = Header(id="g", created="2031", model=MODEL, key="k", secret=b"sealed", owed=False)
FIRST = following(None, bytes(32), "create", now=datetime(2031, 5, 2, tzinfo=UTC))
EMPTY = Contents(header=HEADER, entries=[FIRST])


@pytest.fixture
def empty(path: Path) -> Path:
    SQLiteStorage(path).create(EMPTY)
    return path


def opened(path: Path, timeout: float = TIMEOUT) -> SQLiteStorage:
    storage = SQLiteStorage(path, timeout=timeout)
    storage.open()
    return storage


def people(store: SQLiteStorage, *names: str) -> None:
    """Adds a row for each name, of which nothing is sealed."""
    with store.writing() as rows:
        for name in names:
            rows.connection.execute(
                "INSERT INTO people (id, tag, created, sealed) VALUES (?, ?, '2031', ?)",
                (name, name.encode(), name.encode()),
            )


def count(store: SQLiteStorage) -> int:
    with store.reading() as rows:
        return rows.count_people()


def test_a_new_file_is_its_owners_alone_in_wal_mode_with_full_sync(empty: Path) -> None:
    assert empty.stat().st_mode & 0o777 == 0o600
    with closing(opened(empty)) as store, store.reading() as rows:
        found = [
            rows.connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "secure_delete", "page_size", "foreign_keys")
        ]
        assert found == ["wal", 2, 1, PAGE, 1]
        assert rows.header() == HEADER


def test_a_file_that_is_there_is_never_made_anew(empty: Path) -> None:
    before = empty.read_bytes()
    with pytest.raises(Conflict, match="there is a file"):
        SQLiteStorage(empty).create(EMPTY)
    assert empty.read_bytes() == before


def test_a_making_that_fails_leaves_nothing(path: Path) -> None:
    with pytest.raises(TypeError):
        SQLiteStorage(path).create(replace(EMPTY, entries=[None]))  # type: ignore[list-item]
    assert not list(path.parent.iterdir())


def test_what_was_committed_is_there_and_what_failed_is_not(empty: Path) -> None:
    with closing(opened(empty)) as store:
        people(store, "a", "b")
        with pytest.raises(sqlite3.IntegrityError):
            people(store, "c", "a")
        assert count(store) == 2
        people(store, "c")
    with closing(opened(empty)) as store:
        assert count(store) == 3


def test_a_reader_sees_one_state_throughout(empty: Path) -> None:
    with closing(opened(empty)) as one, closing(opened(empty)) as other:
        with one.reading() as rows:
            assert rows.connection.execute("SELECT count(*) FROM people").fetchone() == (0,)
            people(other, "a")
            assert rows.connection.execute("SELECT count(*) FROM people").fetchone() == (0,)
        assert count(one) == 1


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda path: path.write_text("a letter, long enough to have a header" * 30), InvalidInput),
        (other_database, InvalidInput),
        (lambda path: path.write_bytes(b""), InvalidInput),
        (lambda path: path.mkdir(), NotFound),
        (lambda _: None, NotFound),
    ],
)
def test_what_is_no_gallery_is_told(path: Path, make: object, kind: type[SteadfaceError]) -> None:
    make(path)  # type: ignore[operator]
    with pytest.raises(kind, match=f"{path}.*check the path"):
        opened(path)


def test_a_newer_layout_asks_for_a_newer_version(empty: Path) -> None:
    with closing(sqlite3.connect(empty)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(SteadfaceError, match=r"newer Steadface"):
        opened(empty)


def test_a_locked_gallery_is_told_and_nothing_lost(empty: Path) -> None:
    with closing(opened(empty)) as holder, closing(opened(empty, timeout=0.05)) as store:
        with holder.writing(), pytest.raises(Unavailable, match="locked"):
            people(store, "a")
        assert count(store) == 0
        people(store, "a")
        assert count(store) == 1


def test_a_full_disk_is_told_and_nothing_lost(empty: Path) -> None:
    with closing(opened(empty)) as store:
        people(store, "a")
        with store.writing() as rows:
            (pages,) = rows.connection.execute("PRAGMA page_count").fetchone()
            rows.connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        with pytest.raises(Unavailable, match="the disk is full"):
            people(store, *(f"{number:0200}" for number in range(1000)))
        assert count(store) == 1
        with store.writing() as rows:
            rows.connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
        people(store, "b")
        assert count(store) == 2


def test_a_gallery_that_can_only_be_read_is_read(empty: Path) -> None:
    with closing(opened(empty)) as store:
        people(store, "a")
        with store.writing() as rows:
            rows.connection.execute("PRAGMA query_only = 1")
        assert count(store) == 1
        with pytest.raises(Unavailable, match="can only be read"):
            people(store, "b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_without_permission_is_told(empty: Path) -> None:
    empty.chmod(0o400)
    with closing(opened(empty)) as store, pytest.raises(Unavailable, match="can only be read"):
        people(store, "b")


def test_a_damaged_page_is_told(empty: Path) -> None:
    with closing(opened(empty)) as store:
        people(store, *(f"{number:0200}" for number in range(500)))
    content = bytearray(empty.read_bytes())
    for page in range(4, len(content) // PAGE):
        content[page * PAGE : page * PAGE + 200] = b"\xff" * 200
    empty.write_bytes(content)
    with closing(opened(empty)) as store, store.reading() as rows, pytest.raises(InvalidInput, match="is damaged"):
        rows.check()
    with closing(opened(empty)) as store, pytest.raises(InvalidInput, match="is damaged"):
        people(store, *(f"{number:0201}" for number in range(500)))


def test_deleted_rows_leave_no_trace_though_pages_were_rebalanced(empty: Path) -> None:
    """Rows of many sizes, added and deleted at random: pages split and merge, with copies of cells left in gaps."""
    key, random = new_key(), np.random.default_rng(0)
    with closing(opened(empty)) as store:
        with store.writing() as rows:
            for _ in range(300):
                sealed = key.seal(bytes(int(random.integers(10, 3000))), "")
                rows.connection.execute(
                    "INSERT INTO people (id, tag, created, sealed) VALUES (?, ?, '', ?)",
                    (f"{random.integers(2**40)}", random.bytes(32), sealed),
                )
        with store.writing() as rows:
            there = rows.connection.execute("SELECT number, sealed FROM people").fetchall()
            gone = [there[place] for place in random.permutation(300)[:200]]
            for number, _ in gone:
                rows.connection.execute("DELETE FROM people WHERE number = ?", (number,))
        traces = [trace(sealed) for _, sealed in gone]
        for start in range(0, 200, 8):  # few enough to be looked for
            store.scrub(traces[start : start + 8])
        kept = b"".join(file.read_bytes() for file in empty.parent.iterdir())
        assert not [one for one in traces if one in kept]
        assert count(store) == 100


def test_a_trace_that_is_found_makes_the_file_anew(empty: Path) -> None:
    """A trace is planted where SQLite would not look: behind the cells of a page that is in use."""
    planted = b"of a row gone"
    with closing(opened(empty)) as store:
        people(store, "a")
        store.scrub([planted])
    content = bytearray(empty.read_bytes())
    last = len(content) - PAGE  # an index without entries: all of its page is a gap
    content[last + 100 : last + 100 + len(planted)] = planted
    empty.write_bytes(content)
    with closing(opened(empty)) as store:
        store.scrub([b"another row that is long gone"])
        assert planted in empty.read_bytes()
        store.scrub([planted])
        assert planted not in empty.read_bytes()
        assert count(store) == 1


def test_a_scrub_that_fails_is_owed(empty: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(opened(empty)) as other, closing(opened(empty, timeout=0.05)) as store:
        with store.writing() as rows:
            rows.write_header(replace(HEADER, owed=True))
        with other.reading() as rows:
            rows.connection.execute("SELECT count(*) FROM people").fetchone()
            store.scrub()
        assert "traces may remain in the file" in caplog.text
        with store.reading() as rows:
            assert rows.header().owed
        store.scrub()
        with store.reading() as rows:
            assert not rows.header().owed


def test_a_backup_is_one_file_of_what_was_committed(empty: Path, tmp_path: Path) -> None:
    target = tmp_path / "kept" / "b.db"
    with closing(opened(empty)) as store, closing(opened(empty)) as writer:
        people(store, "a")
        with writer.writing() as rows:
            rows.connection.execute("INSERT INTO people (id, tag, created, sealed) VALUES ('b', x'00', '', x'00')")
            store.backup(target)
    assert [file.name for file in target.parent.iterdir()] == ["b.db"]
    assert target.stat().st_mode & 0o777 == 0o600
    with closing(opened(target)) as copy:
        assert count(copy) == 1
    for taken in (target, Path("/"), Path()):
        with closing(opened(empty)) as store, pytest.raises(Conflict, match="there is a file"):
            store.backup(taken)
