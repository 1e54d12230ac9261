"""Who can write to a gallery's file and lacks the key: what they plant or edit is found, or changes nothing."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from steadface.errors import Conflict, InvalidInput, SteadfaceError
from steadface.gallery.gallery import Gallery
from steadface.gallery.storage.sqlite import PAGE
from steadface.gallery.storage.sqlite.rows import VERSION

from .conftest import MODEL, OTHER, Clock, names, unit

VECTORS = np.eye(16, dtype=np.float32)


def edit(path: Path, *statements: str, words: tuple[object, ...] = ()) -> None:
    """As somebody does it who has SQLite and no key; `words` go to the last one."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA writable_schema = ON")
        for statement in statements[:-1]:
            connection.execute(statement)
        connection.execute(statements[-1], words)


@pytest.fixture
def full(path: Path, clock: Clock) -> Path:
    """A closed gallery: Ada with two templates until 2033, Bob with one, and Cid, who was removed."""
    with Gallery.create(path, model=MODEL, clock=clock) as made:
        made.enroll("Ada", VECTORS[:2], consent="form 7", expires="2033-01-01")
        made.enroll("Cid", VECTORS[4:5])
        made.enroll("Bob", VECTORS[2:3], notes="n")
        made.remove("Cid")
    return path


def seen(gallery: Gallery) -> object:
    """All that a gallery answers."""
    return (
        gallery.search(VECTORS[:5], 2),
        gallery.people(),
        gallery.templates("Ada"),
        gallery.person("Bob"),
        gallery.findable(),
        replace(gallery.info(), size=0),
        gallery.confusable("Ada"),
    )


def found(path: Path, clock: Clock, before: object) -> bool:
    """Whether opening, reading or `verify_log` tells of an edit; where none does the answers are what they were."""
    try:
        with Gallery.open(path, clock=clock) as gallery:
            if not gallery.verify_log().intact:
                return True
            assert seen(gallery) == before
    except SteadfaceError:
        return True
    return False


PLANTED = {
    "a trigger that ignores removals": [
        "CREATE TRIGGER t BEFORE DELETE ON templates BEGIN SELECT RAISE(IGNORE); END",
    ],
    "a trigger that ignores enrolments": [
        "CREATE TRIGGER t BEFORE INSERT ON templates BEGIN SELECT RAISE(IGNORE); END",
    ],
    "a trigger that copies": [
        "CREATE TABLE kept (sealed)",
        "CREATE TRIGGER t BEFORE DELETE ON templates BEGIN INSERT INTO kept VALUES (OLD.sealed); END",
    ],
    "a table": ["CREATE TABLE kept (sealed)"],
    "a virtual table": ["CREATE VIRTUAL TABLE kept USING fts5(sealed)"],
    "a view": ["CREATE VIEW v AS SELECT 1"],
    "a view in place of a table": [
        "ALTER TABLE templates RENAME TO kept",
        "CREATE VIEW templates AS SELECT * FROM kept WHERE number > 1",
    ],
    "a view called sqlite_schema": [
        "CREATE VIEW v AS SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master WHERE type != 'trigger'",
        "CREATE TRIGGER t BEFORE DELETE ON templates BEGIN SELECT RAISE(IGNORE); END",
        "UPDATE sqlite_master SET name = 'sqlite_schema', tbl_name = 'sqlite_schema', "
        "sql = replace(sql, 'VIEW v', 'VIEW sqlite_schema') WHERE name = 'v'",
    ],
    "an index": ["CREATE INDEX i ON people (created)"],
    "an index of an expression": ["CREATE INDEX i ON templates (abs(number))"],
    "an index that is missing": ["DROP INDEX templates_of_person"],
    "an index of fewer rows": [
        "DROP INDEX people_expiring",
        "CREATE INDEX people_expiring ON people (expires) WHERE expires IS NOT NULL AND number > 1",
    ],
    "another collation": [
        "DROP INDEX people_expiring",
        "CREATE INDEX people_expiring ON people (expires COLLATE NOCASE) WHERE expires IS NOT NULL",
    ],
    "one more column": ["ALTER TABLE templates ADD COLUMN more TEXT"],
    "a generated column": ["ALTER TABLE people ADD COLUMN more TEXT GENERATED ALWAYS AS (hex(sealed))"],
    "a column with a check": ["ALTER TABLE templates ADD COLUMN more INTEGER CHECK (number > 0)"],
    "a table without the check of types": [
        "UPDATE sqlite_master SET sql = replace(sql, ') STRICT', ')') WHERE name = 'people'",
    ],
    "a table without rowids": [
        "ALTER TABLE journal RENAME TO old",
        "CREATE TABLE journal (sequence INTEGER PRIMARY KEY, time TEXT NOT NULL, event TEXT NOT NULL, person TEXT, "
        "details TEXT NOT NULL, previous BLOB NOT NULL, hash BLOB NOT NULL) STRICT, WITHOUT ROWID",
        "INSERT INTO journal SELECT * FROM old",
        "DROP TABLE old",
    ],
    "a default": [
        "UPDATE sqlite_master SET sql = replace(sql, 'expires TEXT', \"expires TEXT DEFAULT '2099'\") "
        "WHERE name = 'people'",
    ],
    "a comment that hides half of a table": [
        "UPDATE sqlite_master SET sql = replace(sql, 'sealed BLOB', '/* sealed */ other BLOB') WHERE name = 'people'",
    ],
    "statistics": ["ANALYZE"],
    "two tables in one place": [
        "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'people') "
        "WHERE name = 'templates'",
    ],
    "a table listed twice": ["INSERT INTO sqlite_master SELECT * FROM sqlite_master WHERE name = 'journal'"],
    "a table that is not listed": ["DELETE FROM sqlite_master WHERE name = 'journal'"],
    "nonsense in the list": ["UPDATE sqlite_master SET sql = 'CREATE TABLE journal (' WHERE name = 'journal'"],
    "a name that is no text": ["UPDATE sqlite_master SET name = CAST(x'ff1b5b' AS TEXT) WHERE name = 'journal'"],
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_in_a_file_is_refused_before_anything_is_done(full: Path, what: str) -> None:
    with Gallery.open(full) as gallery:
        edit(full, *PLANTED[what])
        for use in (
            lambda: gallery.remove("Ada"),
            lambda: gallery.enroll("Dan", VECTORS[5:6]),
            lambda: gallery.search(VECTORS[:1]),
            lambda: gallery.verify_log(),
            lambda: gallery.backup(full.with_name("b.db")),
            lambda: gallery.rotate(),
            lambda: gallery.export(full.with_name("e.parquet")),
            lambda: Gallery.open(full),
        ):
            with pytest.raises(InvalidInput, match="changed by other means"):
                use()
    assert not full.with_name("b.db").exists()


def test_a_trigger_that_was_there_for_a_moment_is_not_remembered(full: Path) -> None:
    """SQLite keeps what it learned of tables as long as a number in the file stays the same."""
    with Gallery.open(full) as gallery:
        with closing(sqlite3.connect(full)) as connection:
            (number,) = connection.execute("PRAGMA schema_version").fetchone()
        edit(full, "CREATE TRIGGER t BEFORE DELETE ON templates BEGIN SELECT RAISE(IGNORE); END")
        with pytest.raises(InvalidInput, match="trigger"):
            gallery.remove("Bob")
        edit(full, "DELETE FROM sqlite_master WHERE type = 'trigger'", f"PRAGMA schema_version = {number + 1}")
        gallery.remove("Bob")
        assert [person.name for person in gallery.people()] == ["Ada"]
        assert gallery.info().templates == 2


EDITS = {
    "gallery": ("id", "created", "model", "key", "secret", "owed"),
    "people": ("number", "id", "tag", "created", "expires", "sealed"),
    "templates": ("number", "person", "sealed"),
    "journal": ("sequence", "time", "event", "person", "details", "previous", "hash"),
    "sqlite_sequence": ("name", "seq"),
}
VALUES: dict[str, object] = {
    "another row's": None,
    "nothing": "NULL",
    "zero": "0",
    "negative": "-1",
    "huge": "9223372036854775807",
    "2e9": "2000000000",
    "empty text": "''",
    "text": "'2032-01-01T00:00:00.000000+00:00'",
    "a terminal's command": "char(27) || '[31m'",
    "long text": "printf('%.*c', 100000, 'x')",
    "not UTF-8": "CAST(x'ff80' AS TEXT)",
    "deep JSON": "printf('%.*c', 100000, '[')",
    "many numbers": """'{"added": [[1, 200000000]], "removed": [[1, 200000000]]}'""",
    "bytes": "x'00'",
    "zeros": "zeroblob(28)",
    "many bytes": "zeroblob(5000000)",
}


@pytest.mark.parametrize("table", EDITS)
def test_every_edit_of_every_column_is_found_or_harmless(full: Path, clock: Clock, table: str) -> None:
    with Gallery.open(full, clock=clock) as gallery:
        before = seen(gallery)
    whole, found_ones, tried = full.read_bytes(), 0, 0
    for column, value in product(EDITS[table], VALUES.values()):
        full.write_bytes(whole)
        other = f"(SELECT {column} FROM {table} AS o WHERE o.rowid != {table}.rowid LIMIT 1)"
        which = ("min", "max")[tried % 2]
        where = f"rowid = (SELECT {which}(rowid) FROM {table})"
        try:
            edit(full, f"UPDATE {table} SET {column} = {value or other} WHERE {where}")
        except sqlite3.IntegrityError:  # not to be had without changing the tables
            continue
        tried += 1
        found_ones += found(full, clock, before)
        for companion in full.parent.glob(f"{full.name}-*"):
            companion.unlink()
    assert tried > 10
    assert found_ones >= tried // 3


@pytest.mark.parametrize(
    "statement",
    [
        *(f"DELETE FROM {table} WHERE rowid = (SELECT {which}(rowid) FROM {table})"
          for table in EDITS for which in ("min", "max")),
        *(f"DELETE FROM {table}" for table in EDITS),
        "INSERT INTO gallery SELECT * FROM gallery",
        "INSERT INTO gallery VALUES ('0', '', '{}', '', x'00', 0)",
        "INSERT INTO people SELECT 99, 'x', x'00', created, expires, sealed FROM people LIMIT 1",
        "INSERT INTO templates SELECT 99, person, sealed FROM templates LIMIT 1",
        "INSERT INTO templates SELECT number + 1, person, sealed FROM templates ORDER BY number DESC LIMIT 1",
        "INSERT INTO templates VALUES (-5, 1, x'00')",
        "INSERT INTO journal SELECT sequence + 1, time, event, person, details, hash, hash FROM journal "
        "ORDER BY sequence DESC LIMIT 1",
        "INSERT INTO journal SELECT -5, time, event, person, details, previous, hash FROM journal LIMIT 1",
        "INSERT INTO journal VALUES (9223372036854775807, '', 'enroll', 'a', '{}', x'00', x'00')",
        "INSERT INTO sqlite_sequence VALUES ('templates', 2000000000)",
        "INSERT INTO sqlite_sequence VALUES ('other', 1)",
        "UPDATE people SET number = number + 10",
        "UPDATE journal SET sequence = sequence + 1 WHERE sequence > 2",
    ],
)  # fmt: skip
def test_rows_that_come_and_go_by_other_means_are_found_or_harmless(full: Path, clock: Clock, statement: str) -> None:
    with Gallery.open(full, clock=clock) as gallery:
        before = seen(gallery)
    try:
        edit(full, statement)
    except sqlite3.DatabaseError:
        edit(full, *(f"UPDATE {t} SET {c} = -{c} WHERE {c} > 2"
                     for t, c in (("people", "number"), ("journal", "sequence"))))  # fmt: skip
    found(full, clock, before)


@pytest.mark.parametrize("table", ["people", "templates", "journal", "gallery", "sqlite_sequence"])
def test_rows_that_are_taken_from_under_an_open_gallery_end_no_use_in_confusion(
    full: Path, clock: Clock, table: str
) -> None:
    """Everything is done or refused, in a moment."""
    whole = full.read_bytes()
    for name, do in USES.items():
        for companion in full.parent.glob(f"{full.name}?*"):
            companion.unlink()
        full.write_bytes(whole)
        with Gallery.open(full, clock=clock) as gallery:
            gallery.search(VECTORS[:1])
            edit(full, f"DELETE FROM {table} WHERE rowid > 0")
            with suppress(SteadfaceError):
                do(gallery, full.with_name(f"of {name}"))
                assert name in HARMLESS or table == "sqlite_sequence" or not gallery.verify_log().intact


HARMLESS = {"backup", "findable", "info"}
USES: dict[str, Callable[[Gallery, Path], object]] = {
    "search": lambda gallery, _: gallery.search(VECTORS[:3], 2),
    "enroll": lambda gallery, _: gallery.enroll("Dan", VECTORS[5:6]),
    "enroll more": lambda gallery, _: gallery.enroll("Ada", VECTORS[5:6]),
    "remove": lambda gallery, _: gallery.remove("Ada"),
    "remove_template": lambda gallery, _: gallery.remove_template("Ada", 1),
    "rename": lambda gallery, _: gallery.rename("Ada", "Zoe"),
    "merge": lambda gallery, _: gallery.merge("Ada", "Bob"),
    "expire": lambda gallery, _: gallery.expire(),
    "rotate": lambda gallery, _: gallery.rotate(),
    "re_embed": lambda gallery, _: gallery.re_embed(MODEL, {}, drop_missing=True),
    "templates": lambda gallery, _: gallery.templates("Ada"),
    "people": lambda gallery, _: gallery.people(),
    "findable": lambda gallery, _: gallery.findable(),
    "info": lambda gallery, _: gallery.info(),
    "confusable": lambda gallery, _: gallery.confusable("Ada"),
    "export": lambda gallery, target: gallery.export(target, plain=True),
    "backup": lambda gallery, target: gallery.backup(target),
}


MODELS = {
    "another model": OTHER,
    "another fingerprint": replace(MODEL, fingerprint="cd" * 32),
    "another name": replace(MODEL, name="theirs"),
    "without mirror images": replace(MODEL, mirror=False),
    "another dimension": replace(MODEL, dimension=8),
    "a huge dimension": replace(MODEL, dimension=2**36),
}


@pytest.mark.parametrize("how", MODELS)
def test_a_gallery_does_not_become_one_of_another_model_by_its_header(full: Path, how: str) -> None:
    model = MODELS[how]
    with Gallery.open(full) as gallery:
        edit(full, "UPDATE gallery SET model = ?", words=(json.dumps(asdict(model)),))
        for use in (lambda: gallery.search(VECTORS[:1]), lambda: gallery.enroll("Dan", VECTORS[5:6]), gallery.people):
            with pytest.raises(InvalidInput, match="changed by other means"):
                use()
    for asked in (None, model, MODEL):
        with pytest.raises(InvalidInput, match="changed by other means"):
            Gallery.open(full, model=asked)


@pytest.mark.parametrize(
    "model",
    [
        *('[]', '{}', '"x"', "1", "null", "{", "[" * 5000, '{"fingerprint": 1}', "x" * 10**6),
        json.dumps({**asdict(MODEL), "dimension": True}),
        json.dumps({**asdict(MODEL), "dimension": -1}),
        json.dumps({**asdict(MODEL), "mirror": "false"}),
        json.dumps({**asdict(MODEL), "name": None}),
        json.dumps({**asdict(MODEL), "fingerprint": "\x1b[2J"}),
        json.dumps({**asdict(MODEL), "more": 1}),
    ],
)  # fmt: skip
def test_a_header_that_tells_of_no_model_is_told(full: Path, model: str) -> None:
    edit(full, "UPDATE gallery SET model = ?", words=(model,))
    with pytest.raises(InvalidInput, match="its header tells of no model") as told:
        Gallery.open(full)
    assert str(told.value).isprintable()


def test_what_is_owed_stays_owed_though_the_header_says_otherwise(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Gallery.open(full) as gallery:
        with monkeypatch.context() as patch:
            patch.setattr("steadface.gallery.storage.sqlite.SQLiteStorage.scrub", lambda *_: None)
            gallery.remove("Bob")
        edit(full, "UPDATE gallery SET owed = 0")
        scrubbed = []
        with monkeypatch.context() as patch:
            patch.setattr("steadface.gallery.storage.sqlite.SQLiteStorage.scrub", lambda *_: scrubbed.append(True))
            gallery.enroll("Dan", VECTORS[5:6])
        assert scrubbed == [True]
        gallery.enroll("Eve", VECTORS[6:7])
        assert gallery.verify_log().intact


@pytest.mark.parametrize("how", ["DELETE FROM journal", "UPDATE journal SET details = '{}'"])
def test_a_log_that_does_not_end_as_it_did_is_found(full: Path, how: str) -> None:
    edit(full, f"{how} WHERE sequence = (SELECT max(sequence) FROM journal)")
    with Gallery.open(full) as gallery:
        with pytest.raises(InvalidInput, match="the end of the log"):
            gallery.search(VECTORS[:1])
        assert any("the end of the log" in finding.what for finding in gallery.verify_log().findings)


@pytest.mark.parametrize("gone", ["people", "templates"])
def test_who_was_taken_out_by_other_means_is_missed_by_a_search_and_a_list(full: Path, gone: str) -> None:
    """Bob, who is looked for, with all that is kept of him; or one template of Ada's."""
    edit(full, "DELETE FROM templates WHERE number IN (2, 4)" if gone == "templates" else "DELETE FROM people "
         "WHERE number = 3", "DELETE FROM templates WHERE person = 3")  # fmt: skip
    with Gallery.open(full) as gallery:
        with pytest.raises(InvalidInput, match="the number of templates"):
            gallery.search(VECTORS[:3])
        if gone == "people":
            for do in (gallery.people, lambda: gallery.confusable("Ada")):
                with pytest.raises(InvalidInput, match="the number of people"):
                    do()
        assert not gallery.verify_log().intact


def test_a_removal_that_the_log_does_not_tell_of_hides_nobody(full: Path) -> None:
    """Somebody searches while an entry is edited so that templates seem to be removed."""
    with Gallery.open(full) as gallery, Gallery.open(full) as other:
        gallery.search(VECTORS[:1])
        other.remove("Bob")
        other.enroll("Dan", VECTORS[5:6])
        edit(full, """UPDATE journal SET details = '{"removed": [[1, 2000000000]]}' WHERE event = 'remove'""")
        with pytest.raises(InvalidInput, match=r"entry \d+ of the log"):
            gallery.search(VECTORS[:1])


def test_nobody_is_left_out_for_a_day_that_was_edited(full: Path, clock: Clock) -> None:
    edit(full, "UPDATE people SET expires = '2001' WHERE number = 1")
    with Gallery.open(full, clock=clock) as gallery, pytest.raises(InvalidInput, match="person 1 does not unseal"):
        gallery.search(VECTORS[:1])


def test_nobody_is_found_beyond_their_day_though_the_index_of_days_was_edited(full: Path, clock: Clock) -> None:
    """The index has an entry for a later day; the row is as it was."""
    with closing(sqlite3.connect(full)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'people_expiring'").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = full.read_bytes()
    day = content.index(b"2033-01-01T23", (root - 1) * PAGE)
    full.write_bytes(content[:day] + b"2093" + content[day + 4 :])
    clock.pass_days(5000)
    with Gallery.open(full, clock=clock) as gallery:
        assert names(gallery.search(VECTORS[:3], 2)) == [["Bob"]] * 3
        with pytest.raises(InvalidInput, match="is damaged"):
            gallery.verify_log()


@pytest.mark.parametrize("value", ["0", "1", "NULL", "'x'", "2000000000", "9223372036854775807", "-1"])
@pytest.mark.parametrize("table", ["people", "templates"])
def test_a_numbering_that_was_set_back_or_forth_numbers_nothing_twice(full: Path, table: str, value: str) -> None:
    edit(full, f"UPDATE sqlite_sequence SET seq = {value} WHERE name = '{table}'")
    with Gallery.open(full) as gallery:
        try:
            gallery.enroll("Dan", VECTORS[5:6])
        except SteadfaceError:
            assert len(gallery) == 2
            return
        assert names(gallery.search(VECTORS[:6])) == [["Ada"], ["Ada"], ["Bob"], *names(gallery.search(VECTORS[3:6]))]
        assert gallery.templates("Dan")[0].number > 4
        assert gallery.verify_log().intact


def test_a_template_of_a_high_number_takes_no_more_room(full: Path) -> None:
    edit(full, "UPDATE sqlite_sequence SET seq = 4000000000000 WHERE name = 'templates'")
    with Gallery.open(full) as gallery:
        gallery.enroll("Dan", VECTORS[5:6])
        assert names(gallery.search(VECTORS[5:6])) == [["Dan"]]
        gallery.remove("Dan")
        assert "Dan" not in names(gallery.search(VECTORS[5:6], 5))[0]


def as_layout_1(path: Path) -> None:
    """As the first version left a gallery: its secret sealed alone."""
    with Gallery.open(path) as gallery:
        vault = gallery._vault
        secret = vault.key.seal(vault.secret, f"secret of gallery {vault.gallery} under key {vault.key.id}")
    edit(path, "PRAGMA user_version = 1", "UPDATE gallery SET secret = ?", words=(secret,))


def test_a_gallery_of_the_first_layout_opens_and_is_sealed_when_it_is_written(
    full: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with Gallery.open(full, clock=clock) as gallery:
        before = seen(gallery)
    as_layout_1(full)
    old = full.read_bytes()
    with Gallery.open(full, clock=clock) as gallery:
        assert seen(gallery) == before
        assert gallery.verify_log().intact
        assert caplog.text.count("is sealed when it is next written into") == 1
        gallery.enroll("Dan", VECTORS[5:6])
    with closing(sqlite3.connect(full)) as connection:
        (secret,) = connection.execute("SELECT secret FROM gallery").fetchone()
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    with Gallery.open(full, clock=clock) as gallery:
        assert gallery.templates("Dan")[0].number == 5
        assert gallery.verify_log().intact
        before = seen(gallery)
    full.with_name("old.db").write_bytes(old)
    with closing(sqlite3.connect(full.with_name("old.db"))) as connection:
        (first,) = connection.execute("SELECT secret FROM gallery").fetchone()
    assert first != secret
    edit(full, "UPDATE gallery SET secret = ?", words=(first,))
    with pytest.raises(InvalidInput, match="the header, of an earlier time"):
        Gallery.open(full)


@pytest.mark.parametrize("column", ["model", "created"])
def test_the_header_of_the_first_layout_is_held_against_the_log(full: Path, column: str) -> None:
    as_layout_1(full)
    value = json.dumps(asdict(OTHER)) if column == "model" else "2031-05-03T12:00:00.000000+00:00"
    edit(full, f"UPDATE gallery SET {column} = ?", words=(value,))
    with pytest.raises(InvalidInput, match="the header does not unseal"):
        Gallery.open(full)


def test_re_embedding_and_rotation_are_sealed_too(full: Path) -> None:
    with Gallery.open(full) as gallery:
        gallery.re_embed(OTHER, {"Ada": unit(1, dimension=24), "Bob": unit(1, seed=1, dimension=24)})
        gallery.rotate()
        gallery.enroll("Dan", unit(1, seed=2, dimension=24))
    with Gallery.open(full, model=OTHER) as gallery:
        assert gallery.verify_log().intact
    edit(full, "UPDATE gallery SET model = ?", words=(json.dumps(asdict(MODEL)),))
    with pytest.raises(InvalidInput, match="changed by other means"):
        Gallery.open(full, model=MODEL)


def test_any_byte_of_the_files_first_hundred_may_be_anything(full: Path, clock: Clock) -> None:
    with Gallery.open(full, clock=clock) as gallery:
        before = seen(gallery)
    whole = full.read_bytes()
    for place in range(100):
        for value in {whole[place] ^ 255, 0 if 16 <= place < 60 else 255} - {whole[place]}:
            full.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            found(full, clock, before)
            for companion in full.parent.glob(f"{full.name}-*"):
                companion.unlink()


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("plant", [link, hard_link, lambda path, _: path.mkdir()])
def test_nothing_is_written_through_what_is_planted_beside(
    full: Path, suffix: str, plant: Callable[[Path, Path], None]
) -> None:
    victim = full.with_name("letter.txt")
    victim.write_bytes(b"dear all" * 1000)
    plant(full.with_name(full.name + suffix), victim)
    with pytest.raises(InvalidInput, match=f"{full.name}{suffix}, beside the gallery"):
        Gallery.open(full)
    assert victim.read_bytes() == b"dear all" * 1000


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("plant", [link, hard_link])
def test_nothing_is_written_through_what_is_planted_where_a_gallery_or_a_backup_is_to_be(
    full: Path, suffix: str, plant: Callable[[Path, Path], None]
) -> None:
    victim = full.with_name("letter.txt")
    victim.write_bytes(b"dear all" * 1000)
    for name in ("new.db", ".backup.db.partial", "other.db"):
        plant(full.with_name(name + suffix), victim)
    with pytest.raises(Conflict, match=f"new.db{suffix}"):
        Gallery.create(full.with_name("new.db"), model=MODEL)
    with Gallery.open(full) as gallery:
        gallery.backup(full.with_name("backup.db"))
        for target in ("other.db", f"g.db{suffix}"):
            with pytest.raises(Conflict, match=target):
                gallery.backup(full.with_name(target))
    with Gallery.open(full.with_name("backup.db")) as gallery:
        assert gallery.verify_log().intact
    assert victim.read_bytes() == b"dear all" * 1000


def test_the_last_changes_of_a_gallery_that_was_moved_away_are_not_deleted_by_a_new_one(full: Path) -> None:
    changes = full.with_name("g.db-wal")
    full.rename(full.with_name("elsewhere.db"))
    changes.write_bytes(b"acknowledged")
    with pytest.raises(Conflict, match=r"g\.db-wal"):
        Gallery.create(full, model=MODEL)
    assert changes.read_bytes() == b"acknowledged"
    assert not full.exists()


def test_a_journal_that_names_another_file_deletes_nothing(full: Path) -> None:
    victim = full.with_name("letter.txt")
    victim.write_bytes(b"dear all")
    name = str(victim).encode()
    head = bytes.fromhex("d9d505f920a163d7") + (1).to_bytes(4) + bytes(4) + (9).to_bytes(4) + (512).to_bytes(4)
    page = full.read_bytes()[:PAGE]
    end = (2).to_bytes(4) + name + len(name).to_bytes(4) + (sum(name)).to_bytes(4) + bytes.fromhex("d9d505f920a163d7")
    planted = (head + PAGE.to_bytes(4)).ljust(512, b"\0") + (1).to_bytes(4) + page + bytes(4) + end
    full.with_name(f"{full.name}-journal").write_bytes(planted)
    with pytest.raises(InvalidInput, match="names another file"):
        Gallery.open(full)
    assert victim.read_bytes() == b"dear all"


def test_a_file_that_says_that_it_is_larger_than_it_is_is_damaged(full: Path) -> None:
    """A log beside it, as SQLite writes one, which says that four thousand million pages are there."""
    with closing(sqlite3.connect(full, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("UPDATE sqlite_sequence SET seq = seq + 1")
        log = bytearray(full.with_name(f"{full.name}-wal").read_bytes())
    pages = (2**32 - 2).to_bytes(4)
    first = full.read_bytes()[:PAGE]
    log[32:40] = (1).to_bytes(4) + pages
    log[56 : 56 + PAGE] = first[:28] + pages + first[32:]
    log[48:56] = checksum(bytes(log[24:32]), bytes(log[32:40] + log[56 : 56 + PAGE]), log[3] & 1)
    full.with_name(f"{full.name}-wal").write_bytes(log)
    with pytest.raises(InvalidInput, match=f"it says that it has {(2**32 - 2) * PAGE} bytes"):
        Gallery.open(full)


def checksum(start: bytes, content: bytes, big: int) -> bytes:
    """Of SQLite's write-ahead log (file format, section 4.2)."""
    order = ">" if big else "<"
    one, two = (int(x) for x in np.frombuffer(start, ">u4"))
    numbers = np.frombuffer(content, f"{order}u4").tolist()
    for first, second in zip(numbers[::2], numbers[1::2], strict=True):
        one = (one + first + two) % 2**32
        two = (two + second + one) % 2**32
    return one.to_bytes(4) + two.to_bytes(4)


def without_end(path: Path, name: str) -> None:
    """Five levels of pages, each of which leads to the one below a hundred times, in front of a table or an index."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    content = bytearray(path.read_bytes())
    place = (root - 1) * PAGE
    leaf = bytes(content[place : place + PAGE])
    kind = {13: 5, 10: 2}[leaf[0]]
    first = int.from_bytes(leaf[8:10])
    key = b"\x01" if kind == 5 else leaf[first : first + 1 + leaf[first]]
    below = len(content) // PAGE + 1
    content += leaf
    for _ in range(5):
        page = level(kind, below, key)
        below = len(content) // PAGE + 1
        content += page
    content[place : place + PAGE] = level(kind, below, key)
    content[28:32] = (len(content) // PAGE).to_bytes(4)
    path.write_bytes(content)


def level(kind: int, below: int, key: bytes) -> bytes:
    cell = below.to_bytes(4) + key
    count, size = 100, len(cell)
    start = PAGE - count * size
    head = bytes([kind, 0, 0]) + count.to_bytes(2) + start.to_bytes(2) + b"\0" + below.to_bytes(4)
    pointers = b"".join((start + place * size).to_bytes(2) for place in range(count))
    return (head + pointers).ljust(start, b"\0") + cell * count


@pytest.mark.parametrize("name", ["people", "templates", "journal", "people_expiring", "templates_of_person"])
def test_pages_that_lead_to_each_other_without_end_come_to_one(
    full: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("steadface.gallery.storage.sqlite.connection.STEPS", 2 * 10**6)
    without_end(full, name)
    clock.pass_days(5000)  # so that it matters who has expired
    with Gallery.open(full, clock=clock) as gallery:
        for do in (lambda: gallery.search(VECTORS[:1]), gallery.people, gallery.verify_log):
            with suppress(SteadfaceError):
                do()
        with pytest.raises(SteadfaceError):
            gallery.verify_log()
        gallery.info()
        clock.pass_days(-6000)  # or that nobody has, which takes a look at everybody
        with suppress(SteadfaceError):
            gallery.expire()
        for use in ("findable", "confusable", "templates", "remove", "expire", "rename", "export"):
            with suppress(SteadfaceError):
                USES[use](gallery, full.with_name("target"))


@pytest.mark.parametrize("how", ["a name", "a consent", "a template of a copy"])
def test_rows_that_were_in_their_place_once_or_in_a_copy_are_found(full: Path, clock: Clock, how: str) -> None:
    """Each of them unseals, and is the right person's under the right number."""
    (person,) = taken(full, "SELECT tag, created, expires, sealed FROM people WHERE number = 1")
    with Gallery.open(full, clock=clock) as gallery:
        gallery.backup(copy := full.with_name("copy.db"))
        if how == "a name":
            gallery.rename("Ada", "Eve")
        gallery.enroll("Eve" if how == "a name" else "Ada", VECTORS[7:8], consent="less", expires="2032-01-01")
        assert gallery.verify_log().intact
    if "template" in how:
        with Gallery.open(copy, clock=clock) as gallery:
            gallery.enroll("Ada", VECTORS[8:9])
        edit(full, "UPDATE templates SET sealed = ? WHERE number = 5",
             words=taken(copy, "SELECT sealed FROM templates WHERE number = 5")[0])  # fmt: skip
    else:
        edit(full, "UPDATE people SET tag = ?, created = ?, expires = ?, sealed = ? WHERE number = 1", words=person)
    with Gallery.open(full, clock=clock) as gallery:
        assert not gallery.verify_log().intact
        gallery.rotate()
        gallery.remove("Bob")
        assert not gallery.verify_log().intact  # whatever is done after it


def taken(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.parametrize("others", [0, 1, 2], ids=["and left", "and as long again", "and longer"])
def test_an_open_gallery_that_is_put_back_answers_no_more(full: Path, others: int) -> None:
    """Within the same file: another one in its place would be noticed by that. Others may have gone on meanwhile."""
    with Gallery.open(full) as gallery:
        gallery.backup(earlier := full.with_name("earlier.db"))
        gallery.enroll("Dan", VECTORS[5:6])
        with Gallery.open(earlier) as other:
            for number in range(others):
                other.enroll(f"other {number}", VECTORS[7 + number : 8 + number])
        with closing(sqlite3.connect(earlier)) as source, closing(sqlite3.connect(full)) as target:
            source.backup(target)
        for use in (lambda: gallery.search(VECTORS[:1]), lambda: gallery.enroll("Eve", VECTORS[6:7]), gallery.people):
            with pytest.raises(Conflict, match="put back"):
                use()
    with Gallery.open(full) as gallery:
        assert [person.name for person in gallery.people()][:2] == ["Ada", "Bob"]
        assert len(gallery) == 2 + others


def test_holes_in_a_file_allow_no_more_steps(full: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steadface.gallery.storage.sqlite.connection.STEPS", 2 * 10**6)
    without_end(full, "people_expiring")
    with full.open("r+b") as file:
        file.truncate(2**36)
        file.seek(28)
        file.write((2**36 // PAGE).to_bytes(4))
    clock.pass_days(30_000)
    with Gallery.open(full, clock=clock) as gallery, pytest.raises(InvalidInput, match="interrupted"):
        gallery.findable()


def test_a_copy_that_somebody_kept_is_told_of(full: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The sealed template lies in another row too, where no table is out of order."""
    with Gallery.open(full) as gallery:
        with closing(sqlite3.connect(full, isolation_level=None)) as connection:
            (sealed,) = connection.execute("SELECT sealed FROM templates WHERE number = 4").fetchone()
        edit(full, "INSERT INTO templates VALUES (99, 1, ?)", words=(sealed,))
        gallery.remove("Bob")
        assert "copies of what was deleted remain" in caplog.text
        assert not gallery.verify_log().intact


def test_a_gallery_is_made_for_no_model_that_it_would_not_open(full: Path) -> None:
    for wrong in ({"dimension": 0}, {"dimension": 2**36}, {"fingerprint": ""}, {"name": "x" * 2**16}):
        model = replace(MODEL, **wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="model"):
            Gallery.create(full.with_name("new.db"), model=model)
        with Gallery.open(full) as gallery, pytest.raises(InvalidInput, match="model"):
            gallery.re_embed(model, {"Ada": VECTORS[:1], "Bob": VECTORS[1:2]})
    assert not list(full.parent.glob("new.db*"))
    with Gallery.open(full) as gallery:
        assert names(gallery.search(VECTORS[:1])) == [["Ada"]]
    Gallery.create(full.with_name("new.db"), model=replace(MODEL, name="\U0001f600" * 4096)).close()


@pytest.mark.parametrize("table", ["gallery", "people", "templates", "journal"])
def test_a_value_of_any_other_type_is_told(full: Path, clock: Clock, table: str) -> None:
    """SQLite looks at types where it writes, which somebody who edits bytes, or takes the check away, goes round."""
    whole = full.read_bytes()
    for column, value in product(EDITS[table], ("NULL", "7", "1.5", "'x'", "x'00'")):
        full.write_bytes(whole)
        with closing(sqlite3.connect(full, isolation_level=None)) as connection:
            (declared,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        loose = declared.replace(" STRICT", "").replace(" NOT NULL", "")
        renamed = "UPDATE sqlite_master SET sql = ? WHERE name = ?"
        edit(full, renamed, words=(loose, table))
        with suppress(sqlite3.IntegrityError):
            edit(full, f"UPDATE {table} SET {column} = {value}")
        edit(full, renamed, words=(declared, table))
        with suppress(SteadfaceError), Gallery.open(full, clock=clock) as gallery:
            for use in ("search", "people", "confusable", "templates", "info", "findable", "export", "remove"):
                with suppress(SteadfaceError):
                    USES[use](gallery, full.with_name("target"))
            gallery.verify_log()
        for companion in full.parent.glob(f"{full.name}-*"):
            companion.unlink()
