"""What every storage keeps of its promises, and that a gallery can be kept in any of them.

Another implementation is one more line of `STORAGES`.
"""

import json
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Event, Thread, current_thread

import pytest
from numpy.typing import ArrayLike

from steadface.errors import Conflict, NotFound, SteadfaceError, Unavailable
from steadface.gallery.gallery import Gallery
from steadface.gallery.index.exact import FlatIndex
from steadface.gallery.place import storage_at
from steadface.gallery.sealing.log import following, verify
from steadface.gallery.storage import (
    Contents,
    Header,
    Numbers,
    PersonRow,
    Storage,
    TemplateRow,
    Transaction,
    contents_of,
)
from steadface.gallery.storage.sqlite import SQLiteStorage

from .conftest import MODEL, Clock, names, start, unit
from .memory_storage import MemoryStorage

STORAGES: dict[str, Callable[[pytest.FixtureRequest], Storage]] = {
    "sqlite": lambda request: SQLiteStorage(request.getfixturevalue("path")),
    "memory": lambda _: MemoryStorage(),
    "postgres": lambda request: storage_at(request.getfixturevalue("postgres").address()),
}

KEY = bytes(range(32))
NOW = datetime(2031, 5, 2, tzinfo=UTC)
HEADER = Header(id="g", created="2031", model=MODEL, key="k", secret=b"sealed", owed=False)
FIRST = following(None, KEY, "create", now=NOW)
EMPTY = Contents(header=HEADER, entries=[FIRST])


@pytest.fixture(params=STORAGES)
def free(request: pytest.FixtureRequest) -> Storage:
    """A storage with nothing in it."""
    return STORAGES[request.param](request)


@pytest.fixture
def storage(free: Storage) -> "Storage":  # type: ignore[misc]
    free.create(EMPTY)
    free.open()
    with closing(free):
        yield free


def person(identity: str, expires: str | None = None) -> PersonRow:
    return PersonRow(
        number=0,
        id=identity,
        tag=f"tag {identity}".encode(),
        created="2031",
        expires=expires,
        sealed=f"sealed {identity}".encode(),
        templates=0,
    )


def add(rows: Transaction, row: PersonRow, templates: int = 0) -> int:
    number = rows.put_person(row)
    first = rows.numbers().templates + 1
    rows.add_templates(
        TemplateRow(number=first + n, person=number, owner=row.id, sealed=f"t{first + n}".encode())
        for n in range(templates)
    )
    return number


def ids(storage: Storage, **asked: object) -> list[str]:
    with storage.reading() as rows:
        return [row.id for row in rows.people(**asked)]  # type: ignore[arg-type]


def test_a_new_storage_holds_its_header_and_the_first_entry(storage: Storage) -> None:
    with storage.reading() as rows:
        assert rows.header() == HEADER
        assert list(rows.entries()) == [rows.last_entry()] == [FIRST]
        assert (rows.count_people(), rows.count_templates(), rows.next_expiry("")) == (0, 0, None)
        rows.check()
        assert rows.size() >= 0


def test_nothing_is_opened_where_there_is_nothing_and_nothing_made_twice(free: Storage) -> None:
    with pytest.raises(NotFound):
        free.open()
    free.check_free()
    free.create(EMPTY)
    for attempt in (free.check_free, lambda: free.create(EMPTY)):
        with pytest.raises(Conflict):
            attempt()


def test_only_what_nobody_else_has_used_is_taken_away_again(free: Storage) -> None:
    free.create(EMPTY)
    with pytest.raises(Conflict):
        free.destroy("00" * 32)
    assert free.exists()
    free.destroy(FIRST.hash.hex())
    assert not free.exists()
    free.check_free()


def test_people_come_by_every_question_in_the_order_of_their_numbers(storage: Storage) -> None:
    with storage.writing() as rows:
        numbers = [add(rows, person(one, expires), 2) for one, expires in (("a", None), ("b", "2032"), ("c", "2033"))]
    assert ids(storage) == ["a", "b", "c"]
    assert ids(storage, after=numbers[0]) == ["b", "c"]
    assert ids(storage, tags=[b"tag c", b"tag b", b"tag z"]) == ["b", "c"]
    assert ids(storage, tags=[b"tag z"]) == ids(storage, tags=[]) == []
    assert ids(storage, ids={"c", "a", "z"}) == ["a", "c"]
    assert ids(storage, numbers=[numbers[2], 99]) == ["c"]
    assert ids(storage, numbers=[]) == ids(storage, ids=[]) == []
    assert ids(storage, expired_by="2032") == ["b"]
    assert ids(storage, expired_by="2033", after=numbers[1]) == ["c"]
    with storage.reading() as rows:
        assert next(rows.people(tags=[b"tag b"])) == person("b", "2032")._replace(number=numbers[1], templates=2)
        assert (rows.count_people(), rows.count_people(expired_by="2032")) == (3, 1)
        assert [rows.next_expiry(when) for when in ("2031", "2032", "2033")] == ["2032", "2033", None]


def test_templates_name_their_owner_and_are_never_numbered_twice(storage: Storage) -> None:
    with storage.writing() as rows:
        a, b = (add(rows, person(one), 2) for one in "ab")
        assert [(row.number, row.person, row.owner, row.sealed) for row in rows.templates()] == [
            (1, a, "a", b"t1"),
            (2, a, "a", b"t2"),
            (3, b, "b", b"t3"),
            (4, b, "b", b"t4"),
        ]
        assert [row.number for row in rows.templates(after=2)] == [3, 4]
        assert [row.number for row in rows.templates(person=a)] == [1, 2]
        rows.reseal_templates([row._replace(sealed=b"new") for row in rows.templates(person=b)])
        assert [row.sealed for row in rows.templates()] == [b"t1", b"t2", b"new", b"new"]
        rows.delete_templates([2, 3, 4])
        rows.delete_person(b)
        assert (rows.count_templates(), rows.numbers()) == (1, Numbers(2, 4))
        assert add(rows, person("c"), 1) > b
        assert [row.number for row in rows.templates()] == [1, 5]


def test_a_row_is_replaced_under_its_number_and_nobody_has_anothers_id_or_tag(storage: Storage) -> None:
    with storage.writing() as rows:
        number = add(rows, person("a"))
        add(rows, person("b"))
        assert rows.put_person(person("a", "2040")._replace(number=number, tag=b"new")) == number
        assert [row.expires for row in rows.people(tags=[b"new"])] == ["2040"]
    for clash in (person("a"), person("z")._replace(tag=b"new"), person("b")._replace(number=number)):
        with pytest.raises(Exception), storage.writing() as rows:  # noqa: B017, PT011  # each database has its own
            rows.put_person(clash)
    assert ids(storage) == ["a", "b"]


def test_the_log_is_read_by_event_person_and_place_as_it_was_written(storage: Storage) -> None:
    entries = [FIRST]
    with storage.writing() as rows:
        for event, who in (("enroll", "a"), ("search", None), ("enroll", "b"), ("remove", "a")):
            entries.append(following(rows.last_entry(), KEY, event, now=NOW, person=who, added=[(1, 2)]))
            rows.append(entries[-1])
    with storage.reading() as rows:
        assert list(rows.entries()) == entries
        assert rows.last_entry() == entries[-1]
        assert list(rows.entries(after=2, events=("enroll", "remove"))) == entries[3:]
        assert list(rows.entries(person="a")) == [entries[1], entries[4]]
        verified = verify(rows.entries(), KEY, templates={1: "a", 2: "a"}, people={"a", "b"})
    assert (verified.entries, verified.findings) == (5, ())


def test_a_transaction_is_whole_or_has_no_effect(storage: Storage) -> None:
    with storage.writing() as rows:
        add(rows, person("a"), 1)
    with suppress(KeyboardInterrupt), storage.writing() as rows:
        add(rows, person("b"), 3)
        rows.delete_templates([1])
        rows.append(following(rows.last_entry(), KEY, "enroll", now=NOW))
        rows.write_header(replace(HEADER, key="other"))
        raise KeyboardInterrupt
    with storage.reading() as rows:
        assert (rows.header(), rows.last_entry()) == (HEADER, FIRST)
        assert [row.number for row in rows.templates()] == [1]
        assert rows.count_people() == 1


def test_a_reader_sees_one_state_while_somebody_writes(storage: Storage) -> None:
    with storage.reading() as rows:
        assert rows.count_people() == 0
        with storage.writing() as writing:
            add(writing, person("a"))
            assert writing.count_people() == 1
            assert rows.count_people() == 0
        assert rows.count_people() == 0
    assert ids(storage) == ["a"]


def test_readers_and_writers_wait_for_a_thread_that_is_alone(storage: Storage) -> None:
    order, go = list[str](), Event()

    def write() -> None:
        go.wait()
        with storage.writing() as rows:
            order.append("writer")
            add(rows, person("b"))

    def read() -> None:
        go.wait()
        with storage.reading():
            order.append("reader")

    others = [Thread(target=write), Thread(target=read)]
    for other in others:
        other.start()
    with storage.exclusive():
        go.set()
        with storage.writing() as rows:
            add(rows, person("a"))
        assert ids(storage) == ["a"]
        order.append("alone")
    for other in others:
        other.join()
    assert (order[0], sorted(order[1:])) == ("alone", ["reader", "writer"])
    assert ids(storage) == ["a", "b"]


def test_what_is_owed_is_owed_until_it_was_scrubbed(storage: Storage) -> None:
    with storage.writing() as rows:
        rows.write_header(replace(HEADER, owed=True))
    with storage.reading() as rows:
        assert rows.header().owed
    storage.scrub([b"a trace"])
    with storage.reading() as rows:
        assert rows.header() == HEADER


def test_a_storage_is_used_while_it_is_open_and_by_one_at_a_time(free: Storage) -> None:
    uses = (free.check_open, lambda: ids(free), lambda: free.writing().__enter__())
    free.close()
    for use in uses:
        with pytest.raises(Unavailable):
            use()
    free.create(EMPTY)
    for _ in range(2):
        free.open()
        with pytest.raises(Conflict):
            free.open()
        assert ids(free) == []
        free.close()
        free.close()
        for use in uses:
            with pytest.raises(Unavailable, match="closed"):
                use()


def test_what_is_copied_is_there_and_counts_on(storage: Storage, tmp_path: Path) -> None:
    with storage.writing() as rows:
        _, b = (add(rows, person(one, "2040"), 2) for one in "ab")
        rows.delete_templates([3, 4])
        rows.delete_person(b)
        rows.append(following(FIRST, KEY, "enroll", now=NOW))
    with storage.reading() as rows, closing(SQLiteStorage(tmp_path / "copy.db")) as copied:
        copied.create(contents_of(rows))
        copied.open()
        with copied.reading() as there:
            for each in ("header", "numbers", "people", "templates", "entries"):
                one, other = getattr(rows, each)(), getattr(there, each)()
                assert (one == other) if each in ("header", "numbers") else (list(one) == list(other)), each
            assert there.numbers() == Numbers(b, 4)


def test_a_gallery_is_kept_in_it(free: Storage, clock: Clock) -> None:
    """Everything that a gallery does, through the storage alone."""
    vectors = unit(6)
    with Gallery.create(free, model=MODEL, clock=clock, log_searches=True) as gallery:
        gallery.enroll("Ada", vectors[:2], consent="form 7", expires=clock.now + timedelta(days=3))
        gallery.enroll("Bob", vectors[2:3])
        gallery.enroll("B\u043eb", vectors[3:4])
        assert names(gallery.search(vectors[:4])) == [["Ada"], ["Ada"], ["Bob"], ["B\u043eb"]]
        assert gallery.confusable("Bob") == ["B\u043eb"]
        gallery.merge("B\u043eb", "Bob")
        gallery.remove_template("Bob", 3)
        gallery.rename("Bob", "Eve")
        head = gallery.info().head
        gallery.rotate()
        assert [one.number for one in gallery.templates("Eve")] == [5]
        assert (len(gallery), gallery.findable(), gallery.info().templates) == (2, 2, 3)
        clock.pass_days(4)
        assert names(gallery.search(vectors[:1])) == [["Eve"]]
        assert [one.name for one in gallery.expire()] == ["Ada"]
        gallery.remove("Eve")
        assert gallery.search(vectors[:1]) == [[]]
    with Gallery.open(free) as again:
        verified = again.verify_log(head=head)
        assert verified.intact
        assert again.people() == []
        with pytest.raises(SteadfaceError):
            Gallery.create(free, model=MODEL)


def test_threads_search_while_others_enrol_and_remove(free: Storage) -> None:
    with Gallery.create(free, model=MODEL) as gallery:
        vectors = unit(40)
        gallery.enroll("steady", vectors[:1])
        stop, wrong = Event(), list[object]()

        def search() -> None:
            try:
                while not stop.is_set():
                    best = gallery.search(vectors[:2], 2)
                    if best[0][0].person.name != "steady":
                        wrong.append(best)
            except BaseException as error:
                wrong.append(error)

        searchers = [Thread(target=search) for _ in range(3)]
        for thread in searchers:
            thread.start()
        for number in range(1, 40):
            gallery.enroll(f"p{number}", vectors[number : number + 1])
            assert names(gallery.search(vectors[number : number + 1])) == [[f"p{number}"]], "what was enrolled is found"
            if number % 5 == 0:
                gallery.remove(f"p{number}")
            if number == 20:
                gallery.rotate()
        stop.set()
        for thread in searchers:
            thread.join()
        assert wrong == []
        assert gallery.verify_log().intact


def test_one_thread_at_a_time_fills_the_index(free: Storage) -> None:
    both = Barrier(2)

    class Watched(FlatIndex):
        def add(self, keys: ArrayLike, vectors: ArrayLike) -> None:
            with suppress(BrokenBarrierError):
                both.wait(timeout=0.1)
                together.append(current_thread())
            super().add(keys, vectors)

    together = list[Thread]()
    with Gallery.create(free, model=MODEL, index=Watched) as gallery:
        gallery.enroll("Ada", unit(1))
        searchers = [Thread(target=gallery.search, args=(unit(1),)) for _ in range(2)]
        for thread in searchers:
            thread.start()
        for thread in searchers:
            thread.join()
    assert together == []


HEAVY = ("torch", "matplotlib", "onnxruntime", "pyarrow", "usearch", "numkong", "pymilvus", "cv2", "scipy", "psycopg")


def test_a_gallery_is_opened_and_read_without_what_it_does_not_need(gallery: Gallery, path: Path) -> None:
    gallery.enroll("Ada", unit(1))
    code = f"""
import json
from steadface.gallery.gallery import Gallery
with Gallery.open(sys.argv[1]) as gallery:
    gallery.people(), gallery.info(), gallery.verify_log()
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""
    with start(code, path) as process:
        said, _ = process.communicate()
    assert json.loads(said) == []
