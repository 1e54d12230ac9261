"""What is PostgreSQL's own: addresses, roles, tables that are not a gallery's, and servers that go away."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from steadface.errors import Conflict, InvalidInput, NotFound, SteadfaceError, Unavailable, Unsupported
from steadface.gallery.gallery import Gallery
from steadface.gallery.person import PersonId
from steadface.gallery.place import identified, storage_at
from steadface.gallery.sealing.transaction import NotEnrolled

from .conftest import MODEL, names, rows_of, unit

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'steadface[postgres]'")

from steadface.gallery.storage.postgres import PostgresStorage  # noqa: E402
from steadface.gallery.storage.postgres.layout import check_layout  # noqa: E402

from ..postgres_server import OWNER, Server  # noqa: E402


@pytest.fixture
def address(postgres: Server) -> str:
    return postgres.address()


@pytest.fixture
def gallery(address: str) -> Iterator[Gallery]:
    with Gallery.create(address, model=MODEL) as made:
        made.enroll("Ada", unit(2))
        yield made


def schema_of(gallery: Gallery) -> str:
    return gallery.name.partition("schema=")[2]


SECRET = "sesame"
WITH_PASSWORDS = [
    f"postgresql://u:{SECRET}@127.0.0.1:1/d",
    f"postgresql://u:{SECRET}@127.0.0.1:1/d?schema=s",
    f"postgresql://127.0.0.1:1/d?user=u&password={SECRET}",
    f"postgresql://u:p?{SECRET}@127.0.0.1:1/d?sslmode=disable",
    f"postgresql://u:p@{SECRET}@127.0.0.1:1/d",
    f"postgresql://u:p/{SECRET}@127.0.0.1:1/d",
    f"postgresql://u:{SECRET}/x@127.0.0.1:1/d",
    f"postgresql://u:%zz{SECRET}@127.0.0.1:1/d",
    f"postgresql://u:{SECRET}@127.0.0.1:1/d?nonsense=1",
    f"postgresql://u:{SECRET}@127.0.0.1:1/d?schema=",
    f"postgresql://u:{SECRET}@127.0.0.1:1/d?schema=pg_own",
    f"postgresql://u:{SECRET}@127.0.0.1:1/d?connect_timeout=soon",
    f"postgresql://u:{SECRET}@127.0.0.1:port/d",
    f"mysql://u:{SECRET}@127.0.0.1/d",
    f"postgre://u:{SECRET}@127.0.0.1/d",
]


@pytest.mark.parametrize("url", WITH_PASSWORDS)
def test_no_message_repeats_a_password(url: str) -> None:
    with pytest.raises(SteadfaceError) as raised:
        Gallery.open(url)
    assert SECRET not in str(raised.value)
    with suppress(SteadfaceError):
        assert SECRET not in storage_at(url).name + repr(vars(storage_at(url)))


def test_an_address_that_was_made_a_path_is_told() -> None:
    with pytest.raises(InvalidInput, match="as a str"):
        Gallery.open(Path("postgresql://host/database"))


def test_an_address_is_shown_as_libpq_takes_it() -> None:
    shown = storage_at(f"postgres://u%40x:{SECRET}@a:1,[::1]:2/d%20b?sslmode=require&schema=Two%22").name
    assert shown == "postgresql://u%40x@a:1,[::1]:2/d%20b?schema=Two%22"
    assert identified("postgresql://a/b") == identified("postgresql://a/b?schema=steadface&sslmode=disable")
    assert identified("a") == identified("./a") != identified("b")


def test_two_galleries_in_one_database_know_nothing_of_each_other(postgres: Server, gallery: Gallery) -> None:
    with Gallery.create(postgres.address(schema="With%20%22quotes%22"), model=MODEL) as other:
        assert (len(other), len(gallery)) == (0, 1)


FOREIGN = {
    "a table of that name": ("CREATE TABLE {s}.people (name text)", Conflict, NotFound),
    "a view of that name": ("CREATE VIEW {s}.gallery AS SELECT 1 AS layout", Conflict, InvalidInput),
    "other tables": ("CREATE TABLE {s}.visitors (name text)", None, NotFound),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_tables_are_left_alone(postgres: Server, what: str) -> None:
    address = postgres.address()
    schema = address.partition("schema=")[2]
    statement, making, opening = FOREIGN[what]
    postgres.sql(f"CREATE SCHEMA {schema}", statement.format(s=schema))
    with pytest.raises(opening):
        Gallery.open(address)
    if making is None:
        Gallery.create(address, model=MODEL).close()
        return
    with pytest.raises(making, match="move it away"):
        Gallery.create(address, model=MODEL)
    assert postgres.sql(f"SELECT count(*) FROM pg_class WHERE relnamespace = '{schema}'::regnamespace") == [(1,)]


CHANGED = [
    "ALTER TABLE {s}.people ADD COLUMN more text",
    "ALTER TABLE {s}.templates DROP CONSTRAINT templates_pkey",
    "ALTER TABLE {s}.journal ALTER event TYPE text",
    "ALTER TABLE {s}.people ALTER expires SET DEFAULT '2099'",
    "ALTER TABLE {s}.people ADD CHECK (octet_length(tag) > 0)",
    "ALTER TABLE {s}.templates SET UNLOGGED",
    "ALTER TABLE {s}.people ENABLE ROW LEVEL SECURITY",
    "CREATE RULE lost AS ON DELETE TO {s}.templates DO INSTEAD NOTHING",
    "CREATE INDEX own ON {s}.people (upper(id))",
    "CREATE TABLE {s}.more () INHERITS ({s}.people)",
    "CREATE TRIGGER own AFTER INSERT ON {s}.people EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "DROP TABLE {s}.numbers",
]


def test_tables_that_were_changed_are_refused(postgres: Server, gallery: Gallery, address: str) -> None:
    gallery.close()
    schema = schema_of(gallery)
    with psycopg.connect(host=postgres.folder, user=OWNER, dbname="postgres") as connection:
        connection.execute(f"SET search_path = {schema}")
        check_layout(connection, schema, "as it was made")
        for how in CHANGED:
            with connection.transaction(force_rollback=True):
                connection.execute(how.format(s=schema))
                with pytest.raises(InvalidInput, match="changed by other means"):
                    check_layout(connection, schema, how)
        connection.execute(CHANGED[0].format(s=schema))
        connection.commit()
    with pytest.raises(InvalidInput, match="changed by other means"):
        Gallery.open(address)


@pytest.mark.parametrize(
    "how",
    [
        "DELETE FROM {s}.gallery",
        "INSERT INTO {s}.gallery SELECT * FROM {s}.gallery",
        "UPDATE {s}.gallery SET model = '[]'",
    ],
)
def test_a_header_that_is_none_is_refused(postgres: Server, gallery: Gallery, address: str, how: str) -> None:
    gallery.close()
    postgres.sql(how.format(s=schema_of(gallery)))
    with pytest.raises(InvalidInput, match="changed by other means"):
        Gallery.open(address)


def test_a_newer_layout_asks_for_a_newer_version_and_further_indexes_for_nothing(
    postgres: Server, gallery: Gallery, address: str
) -> None:
    postgres.sql(f"CREATE INDEX own ON {schema_of(gallery)}.people (created)")
    Gallery.open(address).close()
    postgres.sql(f"UPDATE {schema_of(gallery)}.gallery SET layout = 99")
    with pytest.raises(Unsupported, match="upgrade Steadface"):
        Gallery.open(address)


LAYOUT_1 = (
    "DROP INDEX {s}.templates_of_person",
    "CREATE INDEX templates_of_person ON {s}.templates (person)",
    "UPDATE {s}.gallery SET layout = 1",
)


@pytest.fixture
def earlier(postgres: Server, gallery: Gallery, address: str) -> str:
    """The address of a gallery whose tables are of layout 1."""
    postgres.sql(*(statement.format(s=schema_of(gallery)) for statement in LAYOUT_1))
    return address


def ordered(postgres: Server, schema: str) -> bool:
    """Whether a person's templates are found in their order."""
    found = postgres.sql(f"SELECT indexdef FROM pg_indexes WHERE (schemaname, tablename) = ('{schema}', 'templates')")
    return any("(person, number)" in one for (one,) in found)


def test_an_earlier_layout_is_brought_forward_by_its_owner_and_used_by_nobody_before(
    postgres: Server, gallery: Gallery, earlier: str
) -> None:
    for use in (lambda: Gallery.open(earlier), gallery.people, lambda: gallery.enroll("Bob", unit(1))):
        with pytest.raises(Unsupported, match="gallery migrate"):
            use()
    schema, service = schema_of(gallery), role(postgres, "service_2")
    postgres.sql(
        f"GRANT USAGE ON SCHEMA {schema} TO service_2", f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO service_2"
    )
    with pytest.raises(Unavailable, match=f"belong to the role '{OWNER}'"):
        PostgresStorage(as_role(earlier, service)).migrate()
    assert not ordered(postgres, schema)
    assert [PostgresStorage(earlier).migrate() for _ in range(2)] == [1, 2]
    assert ordered(postgres, schema)
    gallery.enroll("Bob", unit(1))
    with Gallery.open(earlier) as again:
        assert again.verify_log().intact


def test_two_do_not_bring_a_gallery_forward_at_once(postgres: Server, gallery: Gallery, earlier: str) -> None:
    schema, before = schema_of(gallery), list[int]()
    workers = [threading.Thread(target=lambda: before.append(PostgresStorage(earlier).migrate())) for _ in range(2)]
    with psycopg.connect(host=str(postgres.folder), user=OWNER, dbname="postgres") as writer:
        writer.execute(f"LOCK TABLE {schema}.gallery IN EXCLUSIVE MODE")
        for worker in workers:
            worker.start()
        while postgres.sql("SELECT count(*) FROM pg_locks WHERE NOT granted") != [(2,)]:
            pass
    for worker in workers:
        worker.join()
    assert sorted(before) == [1, 2]


@pytest.mark.parametrize(
    "how",
    [
        "ALTER TABLE {s}.gallery ALTER owed SET DEFAULT true",
        "CREATE INDEX templates_in_order ON {s}.templates (sealed)",
        "UPDATE {s}.gallery SET layout = 0",
    ],
)
def test_an_earlier_layout_that_is_not_as_it_was_stays_as_it_is(
    postgres: Server, gallery: Gallery, earlier: str, how: str
) -> None:
    postgres.sql(how.format(s=schema_of(gallery)))
    with pytest.raises(InvalidInput, match="changed by other means"):
        PostgresStorage(earlier).migrate()
    assert not ordered(postgres, schema_of(gallery))


@pytest.mark.parametrize("how", ["UPDATE {s}.numbers SET templates = 1", "DELETE FROM {s}.numbers"])
def test_numbers_that_were_set_back_are_told(postgres: Server, gallery: Gallery, how: str) -> None:
    postgres.sql(how.format(s=schema_of(gallery)))
    with pytest.raises(InvalidInput, match="changed by other means"):
        gallery.enroll("Bob", unit(1))
    assert len(gallery) == 1


def test_what_postgresql_has_no_text_or_number_for_is_nobodys(gallery: Gallery) -> None:
    for strange in ("\0", "\udcff", "x" * 10**6):
        with pytest.raises(NotEnrolled):
            gallery.person(PersonId(strange))
        with pytest.raises(NotFound):
            gallery.receipt(PersonId(strange))
    assert gallery.page(after=10**30) == gallery.entries(after=10**30) == []
    with pytest.raises(NotFound):
        gallery.remove_template("Ada", 10**30)


def role(postgres: Server, name: str) -> str:
    postgres.sql(f"DROP ROLE IF EXISTS {name}", f"CREATE ROLE {name} LOGIN")
    return name


def as_role(address: str, name: str) -> str:
    return address.replace(f"user={OWNER}", f"user={name}")


def test_a_role_of_a_service_does_everything_but_alter_the_log(
    postgres: Server, gallery: Gallery, address: str
) -> None:
    service = as_role(address, role(postgres, "service_1"))
    with pytest.raises(Unavailable, match="gallery grant"):
        Gallery.open(service)
    PostgresStorage(address).grant("service_1")
    with Gallery.open(service) as served:
        served.enroll("Bob", unit(2, seed=1))
        served.rename("Bob", "Eve")
        served.rotate()
        served.remove("Eve")
        assert names(served.search(unit(1))) == [["Ada"]]
        assert served.verify_log().intact
    log = f"{schema_of(gallery)}.journal"
    for statement in (f"UPDATE {log} SET event = ''", f"DELETE FROM {log}", f"TRUNCATE {log}", f"DROP TABLE {log}"):
        alone = psycopg.connect(host=postgres.folder, dbname="postgres", user="service_1")
        with closing(alone), pytest.raises(psycopg.errors.InsufficientPrivilege):
            alone.execute(statement)


def test_a_role_that_only_reads_searches_and_is_told_so(postgres: Server, gallery: Gallery, address: str) -> None:
    PostgresStorage(address).grant(role(postgres, "reader_1"), read_only=True)
    with Gallery.open(as_role(address, "reader_1")) as read:
        assert names(read.search(unit(1))) == [["Ada"]]
        with pytest.raises(Unavailable, match="may not be used so by this role"):
            read.enroll("Bob", unit(1))
    assert len(gallery) == 1


@pytest.mark.usefixtures("gallery")
def test_a_role_that_could_alter_the_log_all_the_same_is_refused(postgres: Server, address: str) -> None:
    role(postgres, "almighty_1")
    for gift in ("ALTER ROLE almighty_1 SUPERUSER", f"ALTER ROLE almighty_1 NOSUPERUSER; GRANT {OWNER} TO almighty_1"):
        postgres.sql(gift)
        with pytest.raises(Conflict, match="alter the log"):
            PostgresStorage(address).grant("almighty_1")
    with pytest.raises(NotFound, match="CREATE ROLE"):
        PostgresStorage(address).grant("nobody_of_that_name")


def test_where_it_can_only_be_read_people_are_found_and_nothing_is_changed(gallery: Gallery, address: str) -> None:
    with Gallery.open(f"{address}&options=-c%20default_transaction_read_only%3Don") as read:
        assert names(read.search(unit(1))) == [["Ada"]]
        with pytest.raises(Unavailable, match="can only be read there"):
            read.enroll("Bob", unit(1))
    assert len(gallery) == 1


def test_a_writer_that_holds_the_lock_is_waited_for_and_told(gallery: Gallery, address: str) -> None:
    storage = storage_at(address)
    storage.open()
    with closing(storage), Gallery.open(address, timeout=0.05) as other:
        with storage.writing(), pytest.raises(Unavailable, match="locked"):
            other.enroll("Bob", unit(1))
        assert names(other.search(unit(1))) == [["Ada"]]
        other.enroll("Bob", unit(1))
    assert len(gallery) == 2


def test_deleted_rows_are_cleared_from_the_tables(postgres: Server, gallery: Gallery) -> None:
    if postgres.sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'pgstattuple'") == [(0,)]:
        pytest.skip("the server was installed without PostgreSQL's own extensions (pgstattuple)")
    schema = schema_of(gallery)
    postgres.sql("CREATE EXTENSION IF NOT EXISTS pgstattuple")
    gallery.enroll("Bob", unit(3))
    gallery.remove("Ada")
    for table in ("people", "templates"):
        assert postgres.sql(f"SELECT dead_tuple_count FROM pgstattuple('{schema}.{table}')") == [(0,)]
    assert postgres.sql(f"SELECT owed FROM {schema}.gallery") == [(False,)]
    assert "write-ahead log" in gallery.remains


def test_a_server_that_was_restarted_is_found_again(postgres: Server, gallery: Gallery) -> None:
    """At once and without a checkpoint, as after a fault."""
    gallery.enroll("Bob", unit(1, seed=1))
    postgres.stop()
    with pytest.raises(Unavailable, match="cannot be reached"):
        gallery.people()
    postgres.start()
    assert [person.name for person in gallery.people()] == ["Ada", "Bob"]
    gallery.enroll("Eve", unit(1, seed=2))
    assert gallery.verify_log().intact


def test_what_a_standby_holds_is_of_no_known_age(postgres: Server, gallery: Gallery) -> None:
    """A role that may only read looks like one to libpq."""
    postgres.sql("DROP ROLE IF EXISTS looker", "CREATE ROLE looker LOGIN", "ALTER ROLE looker SUPERUSER")
    postgres.sql("ALTER ROLE looker SET default_transaction_read_only = on")
    address = postgres.address(user="looker", schema=schema_of(gallery))
    with pytest.raises(Unavailable, match="staleness 0"):
        Gallery.open(address, staleness=1)
    with pytest.raises(InvalidInput, match="prefer-standby"):
        Gallery.open(f"{address}&target_session_attrs=prefer-standby", staleness=1)
    with Gallery.open(address) as opened:
        assert names(opened.search(unit(1))) == [["Ada"]]


def test_a_connection_cut_within_a_change_leaves_nothing_of_it(postgres: Server, gallery: Gallery) -> None:
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'steadface'"
    with pytest.raises(Unavailable, match="nothing was written"), gallery._storage.writing() as rows:  # noqa: PT012
        rows.delete_templates([1])
        postgres.sql(cut)
        rows.delete_templates([2])
    assert gallery.info().templates == 2
    postgres.sql(cut)
    gallery.enroll("Bob", unit(1))
    assert gallery.verify_log().intact


def test_a_writer_who_falls_silent_loses_the_turn(
    address: str, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stands still, or is cut off without a word, would keep everybody else from writing."""
    with pytest.raises(Unavailable, match="nothing was written"), ExitStack() as turn:  # noqa: PT012
        with monkeypatch.context() as here:
            here.setattr("steadface.gallery.storage.postgres.connection.SILENCE", 0.5)
            rows = turn.enter_context(gallery._storage.writing())
        with Gallery.open(address) as other:
            other.enroll("Bob", unit(1))
        rows.delete_templates([1])
    assert gallery.info().templates == 3
    assert gallery.verify_log().intact


class Way:
    """A way to the server that can be cut where a `COMMIT` is on it: `before` it is there, or `behind` it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.folder, self.cut, self.closed = folder, "", False
        self._server = str(server.folder / ".s.PGSQL.5432")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / ".s.PGSQL.5432"))
        self._listening.listen()
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listening.accept()
                if self.closed:
                    here.close()
                    continue
                threading.Thread(target=self._carry, args=(here,), daemon=True).start()

    def _carry(self, here: socket.socket) -> None:
        with here, socket.socket(socket.AF_UNIX) as there, suppress(OSError):
            there.connect(self._server)
            answers = threading.Thread(target=self._answer, args=(there, here), daemon=True)
            answers.start()
            while said := here.recv(2**16):
                cut = self.cut if b"COMMIT" in said else ""
                if cut:
                    self.cut, self.closed = "", self.closed or "and closed" in cut
                if cut.startswith("before"):
                    break
                if cut.startswith("behind"):
                    here.shutdown(socket.SHUT_WR)  # the answer does not come
                there.sendall(said)
            there.shutdown(socket.SHUT_WR)  # what was sent is still done
            answers.join()

    def _answer(self, there: socket.socket, here: socket.socket) -> None:
        with suppress(OSError):
            while said := there.recv(2**16):
                with suppress(OSError):
                    here.sendall(said)
        with suppress(OSError):
            here.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def way(postgres: Server, tmp_path: Path) -> Iterator[Way]:
    with closing(Way(postgres, tmp_path)) as way:
        yield way


def test_a_commit_without_an_answer_is_found_out(postgres: Server, gallery: Gallery, address: str, way: Way) -> None:
    with Gallery.open(address.replace(str(postgres.folder), str(way.folder)), timeout=1) as remote:
        way.cut = "behind"
        remote.enroll("there", unit(1, seed=1))
        assert [person.name for person in gallery.people()] == ["Ada", "there"]
        way.cut = "before"
        with pytest.raises(Unavailable, match="nothing was written"):
            remote.enroll("not there", unit(1, seed=2))
        assert [person.name for person in gallery.people()] == ["Ada", "there"]
        way.cut = "behind and closed"
        with pytest.raises(Unavailable, match="is not known"):
            remote.enroll("who knows", unit(1, seed=3))
        way.closed = False
        assert [person.name for person in remote.people()] == ["Ada", "there", "who knows"]
        assert remote.verify_log().intact


def test_a_gallery_is_copied_from_file_to_server_and_back_or_not_at_all(
    postgres: Server, path: Path, tmp_path: Path, address: str
) -> None:
    with Gallery.create(path, model=MODEL) as gallery:
        for name in ("Ada", "Bob", "Eve"):
            gallery.enroll(name, unit(3, seed=len(name)), consent="form 7")
        gallery.remove("Eve")
        head = gallery.info().head
        assert gallery.copy(address).head == head
        for taken in (address, tmp_path / "g.db"):
            with pytest.raises(Conflict):
                gallery.copy(taken)
    with Gallery.open(address) as server:
        server.copy(tmp_path / "back.db")
        server.backup(tmp_path / "backup.db")
        assert server.enroll("Max", unit(1)).templates == (10,), "numbers go on"
    for copied in ("back.db", "backup.db"):
        with Gallery.open(tmp_path / copied) as back:
            assert back.info().head == head
            assert [person.number for person in back.people()] == [1, 2]
            assert back.enroll("Max", unit(1)).person.number == 4
            assert back.verify_log(head=head).intact
    other = postgres.address()
    with Gallery.open(tmp_path / "back.db") as broken:
        with rows_of(broken) as rows:
            rows.connection.execute("DELETE FROM templates WHERE number = 2")
        with pytest.raises(InvalidInput, match="not in order"):
            broken.copy(other)
    with pytest.raises(NotFound):
        Gallery.open(other)
