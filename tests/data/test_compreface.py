"""A dump of a CompreFace says who is enrolled and where their pictures lie, and what is none is said to be that."""

import gzip
from pathlib import Path

import pytest

from steadface.data import compreface, postgres_dump
from steadface.data.compreface import chosen, read_services
from steadface.data.faces import UnreadableImage
from steadface.errors import InvalidInput, NotFound

from .dumps import dump

PEOPLE = {
    "doors": {"Ada": [b"one", b"\x00\xff\n\t\\"], "Eve\\tvon \\\\ Émile": [b"three", None]},
    "demo": {"Bob": [b"x"]},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "dump.sql"
    path.write_text(dump(PEOPLE), encoding="utf-8")
    return path


def test_subjects_have_their_pictures_and_names_as_they_were(file: Path) -> None:
    doors, demo = read_services(file)
    assert (doors.name, demo.name) == ("doors", "demo")
    ada, eve = doors.subjects
    assert (ada.name, eve.name) == ("Ada", "Eve\tvon \\ Émile")
    assert [one.data() for one in ada.pictures] == [b"one", b"\x00\xff\n\t\\"]
    assert ([one.opened().read() for one in eve.pictures], eve.missing) == ([b"three"], 1)
    stream = ada.pictures[0].opened()
    assert (stream.read(3), stream.read(3)) == (b"one", b"")


def test_lines_may_end_as_windows_writes_them(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert [one.data() for one in read_services(file)[0].subjects[0].pictures] == [b"one", b"\x00\xff\n\t\\"]


def test_the_order_of_tables_and_columns_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "dump.sql"
    path.write_text(
        'COPY "subject" (subject_name, id, api_key) FROM stdin;\nAda\t1\tk\n\\.\n'
        "COPY other.img (content, id) FROM stdin;\n\\\\x6f6e65\t7\n\\.\n"
        "COPY public.embedding (img_id, subject_id) FROM stdin;\n7\t1\n7\t1\n8\t1\n\\.\n"
    )
    (service,) = read_services(path)
    (ada,) = service.subjects
    assert ([one.data() for one in ada.pictures], ada.missing) == ([b"one"], 1)


def test_a_service_is_chosen_by_name_where_there_are_several(file: Path) -> None:
    services = read_services(file)
    assert chosen(services, "demo").subjects[0].name == "Bob"
    assert chosen(services[:1], None) is services[0]
    with pytest.raises(InvalidInput, match=r"'doors' \(2 subjects\), 'demo' \(1 subjects\)") as raised:
        chosen(services, None)
    assert "key-" not in str(raised.value)
    with pytest.raises(NotFound, match="'windows'"):
        chosen(services, "windows")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"PGDMP\x01\x0e", "pg_restore -f"),
        (b"toc.dat" + bytes(250) + b"ustar", "pg_restore -f"),
        (gzip.compress(b"-- dump"), "gunzip"),
        ("-- dump".encode("utf-16"), "UTF-16"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"hello\n", "no table `subject`"),
        (b"", "no table `subject`"),
        (b"SET client_encoding = 'LATIN1';\n", "--encoding=UTF8"),
        (b"INSERT INTO public.img VALUES ('1', '\\x00');\n", "--inserts"),
        (b"COPY public.face (id, face_name, api_key) FROM stdin;\n1\tAda\tk\n\\.\n", "before 0.6"),
        (b"COPY public.img (id, content) FROM stdin;\n1\t\\\\x00\n", "cut off"),
        (b"COPY public.subject (id, name) FROM stdin;\n1\tAda\n\\.\n", "no column api_key"),
        (b"COPY public.subject (id, api_key, subject_name) FROM stdin;\n1\tk\t\xff\n\\.\n", "no UTF-8"),
    ],
)
def test_what_is_no_such_dump_is_named_with_the_remedy(tmp_path: Path, head: bytes, words: str) -> None:
    path = tmp_path / "dump.sql"
    path.write_bytes(head)
    with pytest.raises(InvalidInput, match=words):
        read_services(path)


def test_there_has_to_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_services(tmp_path / "dump.sql")


def test_a_picture_that_is_too_long_or_damaged_stands_in_nobodys_way(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_dump, "LONGEST_LINE", 1000)
    monkeypatch.setattr(postgres_dump, "PIECE", 64)
    monkeypatch.setattr(compreface, "LONGEST_LINE", 1000)
    people = {"doors": {"Ada": [bytes(3000), b"one"], "Eve": [b"two"]}}
    file.write_text(dump(people).replace("\\\\x" + b"two".hex(), "\\\\xtw"))
    ada, eve = read_services(file)[0].subjects
    for damaged in (ada.pictures[0], eve.pictures[0]):
        with pytest.raises(UnreadableImage, match=damaged.name):
            damaged.data()
    assert ada.pictures[1].data() == b"one"


def test_it_says_how_far_it_is(file: Path) -> None:
    told: list[tuple[int, int]] = []
    read_services(file, lambda done, total: told.append((done, total)))
    assert told[-1] == (file.stat().st_size, file.stat().st_size)
