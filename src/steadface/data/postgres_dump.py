"""Rows of a database that `pg_dump` wrote as plain SQL: the blocks `COPY table (columns) FROM stdin;`, line by line.

Nothing of a dump is executed, and no more of it is in memory than a line. In a block each row is a line of values with
tabs between them, `\\N` for none, and a backslash before what would be taken for something else (PostgreSQL manual,
COPY, "Text format"); a line `\\.` ends it.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from steadface.errors import InvalidInput, quoted, unreadable
from steadface.files import open_file, stand_in

LONGEST_LINE = 1 << 26
"""Bytes: a picture of 32 MiB in hexadecimal."""
PIECE = 1 << 20
COPY = re.compile(rb'COPY (?:"?\w+"?\.)?"?(\w+)"? \(([^()]*)\) FROM stdin;\s*')
INSERT = re.compile(rb'INSERT INTO (?:"?\w+"?\.)?"?(\w+)"? ')
ENCODING = re.compile(rb"SET client_encoding = '(\w+)';\s*")
READ = (b"UTF8", b"SQL_ASCII")
ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)", re.DOTALL)
NAMED = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}

Report = Callable[[int, int], object]
"""How many bytes of how many were read."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One of a `table`: values as they stand in the file, by column, and at which byte of it each begins. Of a line
    that is longer than `LONGEST_LINE` only the beginning is there, and it is not `whole`.
    """

    table: str
    values: dict[str, bytes]
    places: dict[str, int]
    whole: bool

    def text(self, column: str) -> str | None:
        """Raises InvalidInput where there is no such column, and for what is no UTF-8."""
        if column not in self.values:
            raise InvalidInput(
                f"the table {self.table} has no column {column} in this dump; is it one of CompreFace 1?"
            )
        value = self.values[column]
        try:
            return None if value == rb"\N" else ESCAPE.sub(_meant, value).decode()
        except UnicodeDecodeError:
            raise InvalidInput(
                f"the {column} {quoted(value.decode(errors='replace'))} in the table {self.table} is no UTF-8; make "
                "the dump with pg_dump --encoding=UTF8"
            ) from None


def rows_of(path: Path, tables: Collection[str], report: Report = lambda *_: None) -> Iterator[Row]:
    """Those of the `tables`, in the order of the file.

    Raises SteadfaceError for what cannot be read, is no such dump, or ends too early.
    """
    try:
        with open_file(path) as file:
            _check_kind(path, file.read(512))
            size = file.seek(0, 2)
            file.seek(0)
            yield from _rows(path, file, tables, lambda done: report(done, size))
    except OSError as error:
        raise unreadable(error, f"the dump {path} cannot be read: {error.strerror}; check the path") from None


def _rows(path: Path, file: BinaryIO, tables: Collection[str], report: Callable[[int], object]) -> Iterator[Row]:
    table, columns, at, said = "", list[str](), 0, 0
    for line, length in _lines(file):
        start, at = at, at + length
        if at - said > 16 * PIECE:
            report(said := at)
        if table:
            if line.rstrip(b"\r\n") == rb"\.":
                table = ""
            elif table in tables:
                yield _row(table, columns, line, start, whole=len(line) == length)
        elif found := COPY.fullmatch(line):
            table = found[1].decode()
            columns = [name.strip(' "') for name in found[2].decode(errors="replace").split(",")]
        else:
            _check_statement(path, line, tables)
    if table:
        raise InvalidInput(f"{path} ends within the table {table}: it is cut off; copy it again, or make it anew")
    report(at)


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line, or the beginning of one that is too long, and how long it is."""
    while line := file.readline(LONGEST_LINE):
        length = len(line)
        if length == LONGEST_LINE and not line.endswith(b"\n"):
            while more := file.readline(PIECE):
                length += len(more)
                if more.endswith(b"\n"):
                    break
        yield line, length


def _row(table: str, columns: list[str], line: bytes, start: int, *, whole: bool) -> Row:
    values, places = {}, {}
    for name, value in zip(columns, line.rstrip(b"\r\n").split(b"\t"), strict=False):
        values[name], places[name] = value, start
        start += len(value) + 1
    return Row(table=table, values=values, places=places, whole=whole)


def _meant(escape: re.Match[bytes]) -> bytes:
    one = escape[1]
    if one[:1] == b"x" and len(one) > 1:
        return bytes([int(one[1:], 16)])
    if one[:1] in b"01234567":
        return bytes([int(one, 8) & 255])
    return NAMED.get(one, one)


def _check_kind(path: Path, head: bytes) -> None:
    """Raises InvalidInput for what is often given in place of plain SQL."""
    if head.startswith(b"PGDMP") or head[257:262] == b"ustar":
        raise InvalidInput(
            f"{path} is a dump in an archive format of pg_dump; write it as SQL first: pg_restore -f dump.sql {path}"
        )
    if head.startswith(b"\x1f\x8b"):
        raise InvalidInput(f"{path} is compressed; unpack it first: gunzip -c {path} > dump.sql")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidInput(f"{path} is UTF-16, as a redirection in PowerShell writes it; use pg_dump -f dump.sql")
    if (found := stand_in(head)) is not None:
        raise InvalidInput(f"{path} is {found.what}; {found.remedy}")


def _check_statement(path: Path, line: bytes, tables: Collection[str]) -> None:
    """Raises InvalidInput for what makes the rest unreadable here."""
    if (found := INSERT.match(line)) and found[1].decode() in tables:
        raise InvalidInput(f"{path} holds its rows as INSERT statements; make the dump without --inserts")
    if (found := ENCODING.fullmatch(line)) and found[1] not in READ:
        raise InvalidInput(f"{path} is in the encoding {found[1].decode()}; make it with pg_dump --encoding=UTF8")
