"""Who is enrolled in a CompreFace, from a dump of its PostgreSQL database: subjects, and the pictures of them.

Its schema, from version 0.6 on: `subject` (id, api_key, subject_name), `embedding` (id, subject_id, img_id, ...), `img`
(id, content) and `model` (name, api_key, ...), which is what it calls a service. A dump is in the order of the names of
tables, so that pictures come before the names of whom they show: it is gone through once to learn where what lies, and
pictures are read when they are needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from steadface.data.faces import UnreadableImage
from steadface.data.postgres_dump import LONGEST_LINE, Report, Row, rows_of
from steadface.errors import InvalidInput, NotFound, quoted, unreadable
from steadface.files import open_file

TABLES = ("subject", "embedding", "img", "model", "face")
MOST_ROWS = 5_000_000
"""Of pictures, or of their places: each takes a few hundred bytes of memory."""
HEX = rb"\\x"


@dataclass(frozen=True, kw_only=True)
class StoredPicture:
    """A picture in a dump, read when it is needed."""

    name: str
    path: Path
    place: int
    length: int

    def opened(self) -> IO[bytes]:
        """As a file opened with `"rb"`, which reads the picture when it is read."""
        return cast(IO[bytes], _Stream(self))

    def data(self) -> bytes:
        """The picture's file. Raises UnreadableImage."""
        if self.length > LONGEST_LINE:
            raise UnreadableImage(
                f"{self.name} is longer than {LONGEST_LINE // 2:,} bytes; enrol it by itself, smaller"
            )
        try:
            with open_file(self.path) as file:
                file.seek(self.place)
                text = file.read(self.length)
        except OSError as error:
            raise unreadable(error, f"the dump {self.path} cannot be read: {error.strerror}") from None
        try:
            if not text.startswith(HEX):
                raise ValueError
            return bytes.fromhex(text[len(HEX) :].decode("ascii"))
        except ValueError:
            raise UnreadableImage(f"{self.name} does not stand in the dump in hexadecimal; dump it anew") from None


class _Stream:
    """As much of a file as is needed for a picture."""

    def __init__(self, picture: StoredPicture) -> None:
        self.name = picture.name
        self._left: StoredPicture | None = picture

    def read(self, _: int = -1) -> bytes:
        left, self._left = self._left, None
        return b"" if left is None else left.data()


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Somebody enrolled. `missing` counts examples of which the dump has no picture: CompreFace need not keep them."""

    name: str
    pictures: tuple[StoredPicture, ...]
    missing: int = 0


@dataclass(frozen=True, kw_only=True)
class Service:
    """A face collection of a CompreFace, with its name there."""

    name: str
    subjects: tuple[Subject, ...]


@dataclass
class _Found:
    """What the tables say, by ids."""

    services: dict[str, str] = field(default_factory=dict)
    subjects: dict[str, tuple[str, str]] = field(default_factory=dict)
    examples: dict[str, list[str | None]] = field(default_factory=dict)
    pictures: dict[str, tuple[int, int]] = field(default_factory=dict)


def read_services(path: Path, report: Report = lambda *_: None) -> list[Service]:
    """Those of the dump with anybody in them. Raises SteadfaceError for what is no dump of a CompreFace."""
    found, tables = _Found(), set()
    for row in rows_of(path, TABLES, report):
        tables.add(row.table)
        _take(row, found)
        if len(found.pictures) > MOST_ROWS or len(found.subjects) > MOST_ROWS:
            raise InvalidInput(f"{path} holds more than {MOST_ROWS:,} pictures or subjects; dump services one by one")
    if not found.subjects:
        if "face" in tables:
            raise InvalidInput(
                f"{path} is of a CompreFace before 0.6; start a newer one once, which moves its database"
            )
        raise InvalidInput(f"{path} has no table `subject` with anybody in it; make a dump of CompreFace's database")
    by_service: dict[str, list[Subject]] = {}
    for identity, (api_key, name) in found.subjects.items():
        by_service.setdefault(api_key, []).append(
            _subject(path, name, found.examples.get(identity, []), found.pictures)
        )
    return [
        Service(name=found.services.get(api_key, "(deleted)"), subjects=tuple(subjects))
        for api_key, subjects in by_service.items()
    ]


def chosen(services: list[Service], name: str | None) -> Service:
    """The service of that name, or the only one. Raises SteadfaceError, which names those that there are."""
    there = ", ".join(f"{quoted(one.name)} ({len(one.subjects)} subjects)" for one in services[:20])
    named = services if name is None else [one for one in services if one.name == name]
    if len(named) == 1:
        return named[0]
    if not named:
        raise NotFound(f"the dump has no service {quoted(name)} with subjects; there are {there}")
    if name is None:
        raise InvalidInput(f"the dump has several services; say which with --service: {there}")
    raise InvalidInput(f"the dump has {len(named)} services {quoted(name)}; rename one in CompreFace, and dump anew")


def _take(row: Row, found: _Found) -> None:
    match row.table:
        case "model":
            found.services[row.text("api_key") or ""] = row.text("name") or ""
        case "subject":
            found.subjects[row.text("id") or ""] = row.text("api_key") or "", row.text("subject_name") or ""
        case "embedding":
            found.examples.setdefault(row.text("subject_id") or "", []).append(row.text("img_id"))
        case "img":
            length = len(row.values.get("content", b"")) if row.whole else LONGEST_LINE + 1
            found.pictures[row.text("id") or ""] = row.places.get("content", 0), length


def _subject(path: Path, name: str, examples: list[str | None], pictures: Mapping[str, tuple[int, int]]) -> Subject:
    """Its pictures, each once: one that several calculators embedded has as many rows."""
    there = dict.fromkeys(one for one in examples if one is not None and one in pictures)
    kept = (
        StoredPicture(name=f"picture {one}", path=path, place=place, length=length)
        for one, (place, length) in ((one, pictures[one]) for one in there)
    )
    return Subject(
        name=name,
        pictures=tuple(kept),
        missing=sum(one not in pictures for one in examples if one) + examples.count(None),
    )
