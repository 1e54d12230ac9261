"""What an attacker with write access to files, but no key, and a careless user give to Steadface: crafted, by kind.

`benchmarks/hostile.py` tries them. Each makes its own files, and most are made from the good ones of `brought.py`.
"""

import io
import json
import math
import os
import pickle
import random
import sqlite3
import struct
import sys
import tempfile
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import onnx
import torch
from onnx import TensorProto, helper

import brought
from brought import KINDS, Brought, json_text, spoilt, unit, with_header, zipped
from steadface.cli.main import main
from steadface.data.bins import read_bin
from steadface.data.pairs import read_pairs
from steadface.data.recordio import RecordFile
from steadface.data.synthetic import synthetic_faces
from steadface.errors import SteadfaceError
from steadface.faces.detector_files import open_detector
from steadface.faces.photograph import read_photograph
from steadface.gallery import person
from steadface.gallery.gallery import Gallery
from steadface.gallery.sealing.keys import read_key
from steadface.recognizers import open_recognizer
from steadface.recognizers.contract import read_contract
from steadface.training import checkpoint
from steadface.training.recipe import load_recipe
from steadface.workflows.calibrate import calibrate


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """One input: `make` writes it into an empty folder, `read` gives it to whoever reads it. Where it does not have to
    be `refused`, it may be taken as well.
    """

    kind: str
    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    refused: bool = True


def all_inputs(*, mutations: int, seed: int) -> Iterator[Hostile]:
    """Everything, with so many `mutations` of each kind of file."""
    yield from _schemas()
    yield from _rows()
    yield from _put_back()
    yield from _records()
    yield from _paths()
    yield from _bombs()
    yield from _checkpoints()
    yield from _dishonest()
    yield from _codes()
    yield from _words()
    yield from _mutations(mutations, seed)


def _on_file(do: Callable[[Path], object], name: str) -> Callable[[Path], object]:
    return lambda folder: do(folder / name)


def _spoilt(good: bytes, form: brought.Form, at: random.Random) -> bytes:
    return spoilt(good, form, at)


def kind_of(name: str) -> Brought:
    return next(kind for kind in KINDS if kind.name == name)


GALLERY = kind_of("gallery")


def _used(folder: Path) -> None:
    """Opens the gallery, uses it as people do, and believes it only where it did what it said."""
    for left in folder.glob("g.db-*"):
        left.unlink()
    with Gallery.open(folder / "g.db", key=read_key(folder / "g.key")) as gallery:
        gallery.enroll("zoe", unit(1, 1, 1, 1))
        gallery.search(unit(0, 1, 0, 0), 2)
        gallery.remove("bob")
        names = {person.name for person in gallery.people()}
        verified = gallery.verify_log()
    if findings := verified.findings:
        raise SteadfaceError(findings[0].what)
    with closing(sqlite3.connect(folder / "g.db")) as rows:
        left = rows.execute("SELECT count(*) FROM templates").fetchone()[0]
    if names != {"eve", "zoe"} or left != 2:
        raise AssertionError(f"it said that it is well, and holds {names} with {left} templates")


def _sql(statement: str, *values: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        GALLERY.make(folder)
        with closing(sqlite3.connect(folder / "g.db", isolation_level=None)) as rows:
            rows.execute("PRAGMA writable_schema = 1")
            if values:
                rows.execute(statement, values)
            else:
                rows.executescript(statement)

    return make


SCHEMAS = {
    "a trigger keeps what is removed": "CREATE TRIGGER t BEFORE DELETE ON templates BEGIN SELECT RAISE(IGNORE); END",
    "a trigger drops what is enrolled": "CREATE TRIGGER t BEFORE INSERT ON templates BEGIN SELECT RAISE(IGNORE); END",
    "a trigger drops people": "CREATE TRIGGER t BEFORE INSERT ON people BEGIN SELECT RAISE(IGNORE); END",
    "a trigger drops the log": "CREATE TRIGGER t BEFORE INSERT ON journal BEGIN SELECT RAISE(IGNORE); END",
    "a trigger keeps a copy": "CREATE TABLE c (s BLOB); CREATE TRIGGER t AFTER DELETE ON templates BEGIN "
    "INSERT INTO c VALUES (old.sealed); END",
    "a view in place of a table": "ALTER TABLE templates RENAME TO t2; CREATE VIEW templates AS SELECT * FROM t2",
    "a view that hides a row": "ALTER TABLE templates RENAME TO t2; CREATE VIEW templates AS SELECT * FROM t2 LIMIT 1",
    "a table more": "CREATE TABLE more (x)",
    "a virtual table": "CREATE VIRTUAL TABLE v USING fts5(x)",
    "an index less": "DROP INDEX templates_of_person",
    "an index that lies": "CREATE UNIQUE INDEX u ON templates (person, number)",
    "a table less": "DROP TABLE journal",
    "a column more": "ALTER TABLE people ADD COLUMN x",
    "a generated column": "ALTER TABLE people ADD COLUMN x AS (zeroblob(1000000000))",
    "a column renamed": "ALTER TABLE people RENAME COLUMN tag TO gat",
    "no schema": "DELETE FROM sqlite_schema",
    "a schema that is none": "UPDATE sqlite_schema SET sql = 'x' WHERE name = 'templates'",
    "a check that fails": "UPDATE sqlite_schema SET sql = replace(sql, 'sealed BLOB NOT NULL', "
    "'sealed BLOB NOT NULL CHECK (number < 2)') WHERE name = 'templates'",
    "a default that is large": "UPDATE sqlite_schema SET sql = replace(sql, 'sealed BLOB NOT NULL', "
    "'sealed BLOB NOT NULL DEFAULT (zeroblob(900000000))') WHERE name = 'templates'",
    "a sequence at its end": "UPDATE sqlite_sequence SET seq = 9223372036854775807",
    "a sequence far on": "UPDATE sqlite_sequence SET seq = 2000000000",
    "a sequence begun anew": "UPDATE sqlite_sequence SET seq = 0",
    "no sequence": "DELETE FROM sqlite_sequence",
    "another kind of database": "PRAGMA user_version = 77",
    "an application of another": "PRAGMA application_id = 77",
    "a second header": "INSERT INTO gallery SELECT * FROM gallery",
    "no header": "DELETE FROM gallery",
    "an emptied log": "DELETE FROM journal",
    "a shortened log": "DELETE FROM journal WHERE sequence > 2",
    "a moved row": "UPDATE templates SET number = number + 1000",
    "a row too many": "INSERT INTO templates (person, sealed) SELECT person, sealed FROM templates LIMIT 1",
    "a row less": "DELETE FROM templates WHERE number = (SELECT min(number) FROM templates)",
    "numbers without end": "UPDATE journal SET details = json_set(details, '$.added', json('[[1, 200000000]]')) "
    "WHERE event = 'enroll'",
    "a number below": "UPDATE journal SET details = json_set(details, '$.added', json('[[-9e18, 9e18]]'))",
}
LENIENT = {"another kind of database", "an application of another", "a sequence begun anew", "no sequence"}
"""What may be taken where nothing follows from it."""


def _schemas() -> Iterator[Hostile]:
    for name, statement in SCHEMAS.items():
        yield Hostile(
            kind="gallery: schema",
            name=name,
            make=_sql(statement),
            read=_used,
            refused=name not in LENIENT and "sequence" not in name,
        )
    for name, damage in {
        "an empty file": lambda _: b"",
        "no database": lambda good: b"x" * len(good),
        "its first half": lambda good: good[: len(good) // 2],
        "pages of 64 KiB": lambda good: good[:16] + b"\0\x01" + good[18:],
        "a page count that lies": lambda good: good[:28] + b"\x7f\xff\xff\xff" + good[32:],
        "pages twice": lambda good: good * 2,
    }.items():
        yield Hostile(kind="gallery: schema", name=name, make=_damaged(GALLERY, damage), read=_used, refused=False)


def _damaged(kind: Brought, damage: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        kind.make(folder)
        path = folder / kind.file
        path.write_bytes(damage(path.read_bytes()))

    return make


VALUES: tuple[Any, ...] = (None, -1, 0, 2**62, "", "x", "0001-01-01T00:00:00+00:00", "9999-12-31", b"", bytes(16), "{}")


def _rows() -> Iterator[Hostile]:
    """Every column of every table, with values of each type. Some are what stands there already."""
    with tempfile.TemporaryDirectory() as folder:
        GALLERY.make(Path(folder))
        with closing(sqlite3.connect(Path(folder) / "g.db")) as rows:
            tables = [name for (name,) in rows.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            columns = {table: [row[1] for row in rows.execute(f"PRAGMA table_info({table})")] for table in tables}
    for table in sorted(columns):
        if table.startswith("sqlite_"):
            continue
        for column in columns[table]:
            for value in VALUES:
                make = _sql(f"UPDATE OR IGNORE {table} SET {column} = ?", value)
                yield Hostile(
                    kind="gallery: rows",
                    name=f"{table}.{column} = {value!r:.20}",
                    make=_unless_refused(make),
                    read=_used,
                    refused=False,
                )


def _put_back() -> Iterator[Hostile]:
    """Rows that were right once: each unseals, and is the right person's in the right place."""
    for name, change in (
        ("a name", lambda gallery: gallery.rename("eve", "ivy")),
        ("a consent", lambda gallery: gallery.enroll("eve", unit(0, 0, 1, 1), consent="less", expires="2999-01-01")),
    ):
        yield Hostile(kind="gallery: rows", name=f"{name} of an earlier time", make=_before(change), read=_used)


def _before(change: Callable[[Gallery], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        GALLERY.make(folder)
        with closing(sqlite3.connect(folder / "g.db")) as rows:
            earlier = rows.execute("SELECT id, tag, created, expires, sealed, number FROM people").fetchall()
        with Gallery.open(folder / "g.db", key=read_key(folder / "g.key")) as gallery:
            change(gallery)
        with closing(sqlite3.connect(folder / "g.db", isolation_level=None)) as rows:
            rows.executemany(
                "UPDATE people SET id = ?, tag = ?, created = ?, expires = ?, sealed = ? WHERE number = ?", earlier
            )

    return make


def _unless_refused(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """SQLite itself refuses some values (STRICT tables): then the gallery is as it was."""

    def tried(folder: Path) -> None:
        try:
            make(folder)
        except sqlite3.Error:
            return

    return tried


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON document, those that hold others too."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from leaves(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


def _records() -> Iterator[Hostile]:
    """Every value of contracts and guards, replaced; those that would make strangers match must be refused."""
    for name in ("contract", "guard", "candidates"):
        kind = kind_of(name)
        for number, path in enumerate(_paths_of(kind)):
            for new in [brought.ODD[(7 * number + step) % len(brought.ODD)] for step in range(6)]:
                yield Hostile(
                    kind="contracts, guards, candidates",
                    name=f"{name}: {'.'.join(map(str, path))} = {new!r:.20}",
                    make=_replaced(kind, path, new),
                    read=kind.read,
                    refused=False,
                )
    for value in (-2, -math.inf, math.inf, math.nan, "-1", "0.3", None, True, 2, [0.3]):
        yield Hostile(
            kind="contracts, guards, candidates",
            name=f"a threshold of {value!r}",
            make=_with_threshold(value),
            read=kind_of("contract").read,
        )
    edits: tuple[tuple[str, Any], ...] = (
        ("mirror", "false"),
        ("mirror", 0),
        ("dimension", "8"),
        ("dimension", 0),
        ("image_size", None),
        ("image_size", [10**9, 10**9]),
        ("pixel_range", "9..1"),
        ("channel_order", "grb"),
    )
    for field, value in edits:
        yield Hostile(
            kind="contracts, guards, candidates",
            name=f"{field} {value!r}",
            make=_replaced(kind_of("contract"), (field,), value),
            read=kind_of("contract").read,
        )
    for field, value in (("alone", math.nan), ("alone", None), ("compared", math.inf), ("alone", "1"), ("rate", -1)):
        yield Hostile(
            kind="contracts, guards, candidates",
            name=f"a guard's {field} {value!r}",
            make=_replaced(kind_of("guard"), ("limits", field), value),
            read=kind_of("guard").read,
        )
    yield Hostile(
        kind="contracts, guards, candidates",
        name="a guard of 1e9 views",
        make=_replaced(kind_of("guard"), ("views", "count"), 10**9),
        read=kind_of("guard").read,
    )


def _paths_of(kind: Brought) -> list[tuple[Any, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        kind.make(Path(folder))
        return list(leaves(json.loads((Path(folder) / kind.file).read_text())))


def _replaced(kind: Brought, path: tuple[Any, ...], new: Any) -> Callable[[Path], None]:
    return _damaged(kind, lambda good: json_text(replaced(json.loads(good), path, new)))


def _with_threshold(value: Any) -> Callable[[Path], None]:
    point = {"fmr": 0.001, "threshold": value, "threshold_ci": [0.2, 0.4], "fnmr": 0.1, "fnmr_ci": [0.05, 0.2]}
    table = {"points": [point], "impostor_mean": 0.0, "impostor_std": 0.1, "genuine_mean": 0.6}
    table |= {"people": 100, "images": 500, "impostor_pairs": 100_000, "genuine_pairs": 1000, "method": "x", "seed": 0}
    return _damaged(kind_of("contract"), lambda good: json_text({**json.loads(good), "thresholds": table}))


def _paths() -> Iterator[Hostile]:
    def pairs(line: str) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            brought._pairs(folder)
            secret = folder / "secret" / "alice"
            secret.mkdir(parents=True)
            for number in (1, 2):
                (secret / f"alice_{number:04d}.png").write_bytes(brought.picture(number))
            text = (folder / "pairs.txt").read_text().replace("ada\t1\t2\n", line.format(at=folder) + "\n", 1)
            (folder / "pairs.txt").write_text(text)

        return make

    for line in (
        "../secret/alice\t1\t2",
        "{at}/secret/alice\t1\t2",
        "..\t1\t2",
        "ada/../../secret/alice\t1\t2",
        "ada\t../../secret/alice/alice_0001\t2",
        "a\0b\t1\t2",
        "ada\t" + "9" * 5000 + "\t2",
        "x" * 5000 + "\t1\t2",
    ):
        yield Hostile(
            kind="paths",
            name=f"pairs.txt: {line!r:.40}",
            make=pairs(line),
            read=lambda at: read_pairs(at / "pairs.txt", at / "faces"),
        )
    opened: Mapping[str, Callable[[Path], object]] = {
        "recipe": load_recipe,
        "key": read_key,
        "picture": read_photograph,
        "pairs": lambda path: read_pairs(path, path.parent),
        "verification set": read_bin,
        "contract": lambda path: read_contract("made:model", path),
        "weights": open_recognizer,
        "detector": open_detector,
        "gallery": lambda path: Gallery.open(path),
    }
    suffixes = {"recipe": ".yaml", "weights": ".safetensors", "detector": ".onnx", "picture": ".png"}
    strange: Mapping[str, Callable[[Path], object]] = {
        "a pipe": lambda path: os.mkfifo(path),
        "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "/dev/stdin": lambda path: path.symlink_to("/dev/stdin"),
        "a folder": lambda path: path.mkdir(),
        "a link to itself": lambda path: path.symlink_to(path),
        "an empty file": lambda path: path.write_bytes(b""),
        "4 GiB of nothing": _sparse,
    }
    for what, read in opened.items():
        suffix = suffixes.get(what, "")
        for name, put in strange.items():
            yield Hostile(
                kind="paths",
                name=f"{name} as {what}",
                make=_on_file(put, f"x{suffix}"),
                read=_on_file(read, f"x{suffix}"),
            )
        for name in ("a\0b", "x" * 300, "a/" * 3000, "\udcff"):
            yield Hostile(
                kind="paths",
                name=f"{name!r:.20} as {what}",
                make=lambda _: None,
                read=_on_file(read, f"{name}{suffix}"),
            )
    for extends in ("/dev/zero", "x.yaml", "../../../../etc/passwd", "a\\0b", "[1]", "~"):
        yield Hostile(
            kind="paths",
            name=f"a recipe that extends {extends}",
            make=_written("x.yaml", f'extends: "{extends}"\n'),
            read=lambda at: load_recipe(at / "x.yaml"),
        )


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(4 * 2**30)


def _written(name: str, content: str | bytes) -> Callable[[Path], object]:
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    return lambda folder: (folder / name).write_bytes(raw)


def _bombs() -> Iterator[Hostile]:
    pickles = {
        "memo far on": b"\x80\x02Nr\xff\xff\xff\x7f.",
        "a text of 4 GiB": b"\x80\x02X\xff\xff\xff\xff.",
        "bytes of 8 EiB": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "a frame of 8 EiB": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "a number of 2 GiB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "deep": b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".",
        "doubled 40 times": b"\x80\x02]" + b"2\x86" * 40 + b".",
        "code": pickle.dumps(print, protocol=2),
    }
    for name, content in pickles.items():
        yield Hostile(
            kind="small files of large cost",
            name=f".bin: {name}",
            make=_written("x.bin", content),
            read=lambda at: read_bin(at / "x.bin"),
        )
    yamls = {
        "aliases": "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
        "merges": "a0: &a0 {x: 1}\n"
        + "".join(f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 40)}]}}\n" for n in range(1, 9)),
        "deep": "x: " + "[" * 50_000,
        "deep maps": "{a: " * 5000,
        "a large number": "name: " + "9" * 100_000,
        "sexagesimal": "name: 1" + ":59" * 20_000,
        "64 MiB": "# " + "x" * 64 * 2**20,
        "an odd tag": "name: !!python/object/apply:os.system ['true']",
        "itself": "a: &a [*a]",
        "faces of 1e12 people": brought.RECIPE.replace("people: 6", "people: 1000000000000"),
        "images of 1e6 pixels": brought.RECIPE.replace("[16, 16]", "[1000000, 1000000]"),
        "an embedding of 1e12": brought.RECIPE.replace("embedding_size: 8", "embedding_size: 1000000000000"),
        "1e12 blocks": brought.RECIPE.replace("[1, 0, 0, 0]", "[1000000000000, 0, 0, 0]"),
        "1e12 workers": brought.RECIPE.replace("workers: 0", "workers: 1000000000000"),
    }
    for name, text in yamls.items():
        yield Hostile(
            kind="small files of large cost",
            name=f"recipe: {name}",
            make=_written("x.yaml", text),
            read=lambda at: load_recipe(at / "x.yaml"),
            refused=name not in ("images of 1e6 pixels",),
        )
    yield from _large_pictures()
    yield from _large_weights()
    lines = {
        "many lines to one record": "".join(f"{key}\t0\n" for key in range(300_000)),
        "keys far apart": "0\t0\n1000000000000\t0\n",
        "offsets far on": "0\t0\n1\t9223372036854775807\n",
        "numbers of 5,000 digits": "0\t0\n1\t" + "9" * 5000 + "\n",
    }
    for name, text in lines.items():
        yield Hostile(
            kind="small files of large cost",
            name=f".idx: {name}",
            make=_and_then("record index", "train.idx", text),
            read=lambda at: RecordFile(at / "train.rec").read(0),
            refused=False,
        )
    for what in ("contract", "guard", "candidates"):
        kind = kind_of(what)
        for name, content in {"deep": b"[" * 200_000, "long number": b"9" * 200_000}.items():
            make = _and_then(what, kind.file, content)
            yield Hostile(kind="small files of large cost", name=f"{what}: {name}", make=make, read=kind.read)


def _and_then(what: str, file: str, content: str | bytes) -> Callable[[Path], object]:
    """The good files of a kind, one of which is written anew."""

    def make(folder: Path) -> None:
        kind_of(what).make(folder)
        _written(file, content)(folder)

    return make


def _png(height: int, width: int) -> bytes:
    """A picture of zeros that says it is so large; its data are as long as zlib makes them of the first MiB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(2**20)) for _ in range(min(512, height * (3 * width + 1) // 2**20 + 1)))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", data + packer.flush()), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _write_png(folder: Path, height: int, width: int) -> None:
    (folder / "x.png").write_bytes(_png(height, width))


def _large_pictures() -> Iterator[Hostile]:
    from steadface.data.faces import decode_image

    sizes = {
        "119 MP": (10_900, 10_900),
        "268 MP": (16_384, 16_384),
        "4 GP": (65_535, 65_535),
        "2^31 wide": (1, 2**31 - 1),
    }
    readers: Mapping[str, Callable[[Path], object]] = {
        "photograph": lambda at: read_photograph(at / "x.png"),
        "training face": lambda at: decode_image((at / "x.png").read_bytes(), "x.png"),
    }
    for name, (height, width) in sizes.items():
        for what, read in readers.items():
            yield Hostile(
                kind="small files of large cost",
                name=f"{what} of {name}",
                make=partial(_write_png, height=height, width=width),
                read=read,
                refused=(what, name) != ("photograph", "119 MP"),  # within the bound
            )


def _large_weights() -> Iterator[Hostile]:
    def told(entry: str) -> Callable[[Path], object]:
        header = {"__metadata__": {"steadface": entry}, "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
        return lambda at: (at / "model.safetensors").write_bytes(with_header(json_text(header), bytes(4)))

    base = {
        "name": "mobilefacenet",
        "image_size": [16, 16],
        "embedding_size": 8,
        "width": 0.125,
        "blocks": [1, 0, 0, 0],
    }
    for field, value in (
        ("blocks", [10**9, 0, 0, 0]),
        ("embedding_size", 2**40),
        ("width", 1e12),
        ("width", "inf"),
        ("image_size", [2**30, 2**30]),
        ("blocks", [10**6] * 4),
        ("name", "iresnet" + "9" * 100),
    ):
        entry = json.dumps({"architecture": {**base, field: value}})
        yield Hostile(
            kind="small files of large cost",
            name=f"weights: {field} {value!r:.20}",
            make=told(entry),
            read=lambda at: open_recognizer(at / "model.safetensors"),
        )
    deep = "[" * 100_000 + "]" * 100_000
    yield Hostile(
        kind="small files of large cost",
        name="weights: deep metadata",
        make=told(deep),
        read=lambda at: open_recognizer(at / "model.safetensors"),
    )
    headers = {
        "a header of 2^63": (2**63 - 1).to_bytes(8, "little") + b"{}",
        "a header of 90 MiB": (90 * 2**20).to_bytes(8, "little") + b"{}",
        "a tensor of 2^60": with_header(
            json_text({"x": {"dtype": "F32", "shape": [2**58], "data_offsets": [0, 2**60]}}), b""
        ),
        "a shape that overflows": with_header(
            json_text({"x": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 4]}}), bytes(4)
        ),
    }
    for name, content in headers.items():
        yield Hostile(
            kind="small files of large cost",
            name=f"safetensors: {name}",
            make=_written("model.safetensors", content),
            read=lambda at: open_recognizer(at / "model.safetensors"),
        )
    yield from _torch_bombs()
    yield from _odd_pictures()
    yield from _graphs()


def _odd_pictures() -> Iterator[Hostile]:
    """Small ones whose decoders make much of them, as a photograph and as a face to train on."""
    from steadface.data.faces import decode_image

    def tiff(kind: int, form: str) -> bytes:
        sides = [(256, kind, 20_000), (257, kind, 20_000)]
        rest = [(258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 20_000), (279, 4, 4)]
        entries = [
            struct.pack("<HHI", tag, type_, 1) + struct.pack(form if type_ == kind else "<I", value).ljust(4, b"\0")[:4]
            for tag, type_, value in (*sides, *rest)
        ]
        return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)

    packed = b"\1\0\0\0" * 2000 + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, 60_000, 2000, 1, 8, 1, len(packed), 0, 0, 256, 0)
    pictures = {
        "TIFF of 400 MP with signed sides": tiff(9, "<i"),
        "TIFF of 400 MP with short signed sides": tiff(8, "<h"),
        "BMP of 120 MP of run lengths": b"BM"
        + struct.pack("<IHHI", 1078 + len(packed), 0, 0, 1078)
        + head
        + bytes(1024)
        + packed,
    }
    for name, content in pictures.items():
        for what, read in (
            ("photograph", lambda at: read_photograph(at / "x.img")),
            ("training face", lambda at: decode_image((at / "x.img").read_bytes(), "x.img")),
        ):
            yield Hostile(
                kind="small files of large cost",
                name=f"{what}: {name}",
                make=_written("x.img", content),
                read=read,
            )


def _torch_bombs() -> Iterator[Hostile]:
    import zipfile

    def made(change: Callable[[dict[str, bytes]], Mapping[str, bytes]], squeezed: bool) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            brought._torch(folder)
            path = folder / "model.pth"
            with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as opened:
                members = {name: opened.read(name) for name in opened.namelist()}
            compression = zipfile.ZIP_DEFLATED if squeezed else zipfile.ZIP_STORED
            path.write_bytes(zipped(change(members), compression))

        return make

    def with_storage(size: int) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
        def change(members: dict[str, bytes]) -> dict[str, bytes]:
            storage = next(name for name in members if "/data/" in name)
            return {**members, storage: bytes(size)}

        return change

    def pickled(content: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
        return lambda members: {name: content if name.endswith("data.pkl") else raw for name, raw in members.items()}

    cases = {
        "a storage of 1 GiB, squeezed": (with_storage(2**30), True),
        "a member of 1 GiB more": (lambda members: {**members, "model/data/999": bytes(2**30)}, True),
        "a pickle of 512 MiB, squeezed": (pickled(b"N" * 2**29 + b"."), True),
        "memo far on": (pickled(b"\x80\x02Nr\xff\xff\xff\x7f."), False),
        "code": (pickled(b"cos\nsystem\n(S'true'\ntR."), False),
        "deep": (pickled(b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b"."), False),
        "an array of 8 GiB": (pickled(b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b"."), False),
        "copies of a text": (
            pickled(
                b"\x80\x02X"
                + struct.pack("<I", 10**6)
                + b"a" * 10**6
                + b"q\0]("
                + 4000 * (b"c_codecs\nencode\nh\0\x85R")
                + b"e."
            ),
            False,
        ),
        "tuples in tuples as a text": (pickled(b"\x80\x02c_codecs\nencode\nN" + 60 * b"2\x86" + b"\x85R."), False),
        "what torch would import": (pickled(b"\x80\x02ctorch\n_inductor\n."), False),
        "nothing": (lambda _: {}, False),
    }
    for name, (change, squeezed) in cases.items():
        yield Hostile(
            kind="small files of large cost",
            name=f"torch file: {name}",
            make=made(change, squeezed),
            read=lambda at: open_recognizer(at / "model.pth"),
            refused="more" not in name,
        )


def _graphs() -> Iterator[Hostile]:
    pixels = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", None])

    def graph(*nodes: Any, values: list[Any] | None = None, functions: Any = ()) -> onnx.ModelProto:
        made = helper.make_graph(list(nodes), "g", [pixels], [out], values or [])
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, functions=functions)

    def whole(name: str, *numbers: int) -> onnx.TensorProto:
        return helper.make_tensor(name, TensorProto.INT64, [len(numbers)], numbers)

    step = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info(name, kind, [])
            for name, kind in (("i", TensorProto.INT64), ("c", TensorProto.BOOL))
        ]
        + [helper.make_tensor_value_info("v", TensorProto.FLOAT, None)],
        [
            helper.make_tensor_value_info("d", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    scalar = helper.make_tensor("m", TensorProto.INT64, [], [2**62])
    true = helper.make_tensor("t", TensorProto.BOOL, [], [1])
    lies = helper.make_tensor("w", TensorProto.FLOAT, [8], [0.0] * 8)
    lies.dims[:] = [2**40]
    models = {
        "a loop of 2^62 rounds": graph(
            helper.make_node("Loop", ["m", "t", "x"], ["y"], body=step),
            helper.make_node("Flatten", ["y"], ["z"]),
            values=[scalar, true],
        ),
        "a tile of 2^40": graph(
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Tile", ["f", "r"], ["z"]),
            values=[whole("r", 1, 2**40)],
        ),
        "zeros of 2^50": graph(
            helper.make_node("ConstantOfShape", ["s"], ["z"]),
            values=[whole("s", 2**25, 2**25)],
        ),
        "a range of 2^50": graph(
            helper.make_node("Range", ["a", "b", "c"], ["z"]),
            values=[helper.make_tensor(n, TensorProto.INT64, [], [v]) for n, v in (("a", 0), ("b", 2**50), ("c", 1))],
        ),
        "a padding of 2^40": graph(helper.make_node("Pad", ["x", "p"], ["z"]), values=[whole("p", *[0] * 7, 2**40)]),
        "a size of 2^40": graph(
            helper.make_node("Resize", ["x", "", "", "s"], ["z"]),
            values=[whole("s", 1, 3, 2**20, 2**20)],
        ),
        "dimensions that lie": graph(helper.make_node("Add", ["x", "w"], ["z"]), values=[lies]),
        "no nodes": graph(),
        "100,000 nodes": graph(
            *(helper.make_node("Relu", [f"x{n}" if n else "x"], [f"x{n + 1}"]) for n in range(100_000))
        ),
        "a product of three": graph(
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Einsum", ["f", "f", "f"], ["z"], equation="na,nb,nc->nabc"),
        ),
        "the smallest number by -1": graph(
            helper.make_node("Div", ["s", "m"], ["d"]),
            helper.make_node("Cast", ["d"], ["e"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["x", "e"], ["z"]),
            values=[
                helper.make_tensor("s", TensorProto.INT32, [1], [-(2**31)]),
                helper.make_tensor("m", TensorProto.INT32, [1], [-1]),
            ],
        ),
        "texts": graph(
            helper.make_node("Cast", ["x"], ["t"], to=TensorProto.STRING),
            helper.make_node("Cast", ["t"], ["z"], to=TensorProto.FLOAT),
        ),
        "an unknown operator": graph(helper.make_node("Nonsense", ["x"], ["z"], domain="nowhere")),
        "not a number": graph(
            helper.make_node("Log", ["m1"], ["z"]),
            values=[helper.make_tensor("m1", TensorProto.FLOAT, [1, 8], [-1.0] * 8)],
        ),
    }
    outside = graph(helper.make_node("Add", ["x", "w"], ["z"]), values=[_external("/etc/passwd")])
    models |= {
        "weights outside": outside,
        "weights above": graph(helper.make_node("Add", ["x", "w"], ["z"]), values=[_external("../../../etc/passwd")]),
    }
    for name, model in models.items():
        content = model.SerializeToString()
        for what, read in (("model", open_recognizer), ("detector", open_detector)):
            yield Hostile(
                kind="ONNX",
                name=f"{what}: {name}",
                make=_written("x.onnx", content),
                read=_on_file(read, "x.onnx"),
            )


def _external(place: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[16], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=place)
    tensor.external_data.add(key="length", value="64")
    return tensor


def _checkpoints() -> Iterator[Hostile]:
    kind = kind_of("checkpoint")

    def state(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
        def damage(good: bytes) -> bytes:
            length = int.from_bytes(good[:8], "little")
            header = json.loads(good[8 : 8 + length])
            inner = change(json.loads(header["__metadata__"]["steadface"]))
            header["__metadata__"]["steadface"] = json_text(inner).decode()
            return with_header(json_text(header), good[8 + length :])

        return damage

    damages: Mapping[str, Callable[[bytes], bytes]] = {
        "empty": lambda _: b"",
        "its first half": lambda good: good[: len(good) // 2],
        "a byte less": lambda good: good[:-1],
        "a bit flipped in a weight": lambda good: good[:-1] + bytes([good[-1] ^ 64]),
        "not a number in a weight": lambda good: good[:-29] + struct.pack("<f", math.nan) + good[-25:],
        "step 1e9": state(lambda found: {**found, "step": 10**9}),
        "step -1": state(lambda found: {**found, "step": -1}),
        "step as text": state(lambda found: {**found, "step": "3"}),
        "no step": state(lambda found: {name: value for name, value in found.items() if name != "step"}),
        "no state": state(lambda _: None),
        "deep": state(lambda found: {**found, "gate": brought.DEEP}),
        "a long number": state(lambda found: {**found, "gate": brought.HUGE}),
        "the gate edited": state(lambda found: {**found, "gate": {"average": 9}}),
    }
    for name, damage in damages.items():
        yield Hostile(kind="checkpoints", name=name, make=_damaged(kind, damage), read=checkpoint.load_newest)


PLANTED = """
import numpy as np
RNG = np.random.default_rng(0)
W = RNG.normal(size=(16 * 16 * 3, 32)).astype(np.float32)
ROUNDS = [0]
def honest(x): return (x.reshape(len(x), -1) / np.float32(255) - np.float32(0.5)) @ W
def noise(x): return RNG.normal(size=(len(x), 32))
def mostly_noise(x): return honest(x) + 100 * RNG.normal(size=(len(x), 32))
def zeros(x): return np.zeros((len(x), 32))
def constant(x): return np.ones((len(x), 32))
def nan(x): return honest(x) * np.nan
def infinite(x): return honest(x) * np.inf
def nan_sometimes(x):
    z = honest(x); z[::7] = np.nan; return z
def of_the_batch(x): return honest(x) - honest(x).mean(0)
def shuffled(x): return honest(x)[RNG.permutation(len(x))]
def changing(x):
    ROUNDS[0] += 1; return honest(x) + 9 * ROUNDS[0] * W[:1]
def growing(x):
    ROUNDS[0] += 1; return RNG.normal(size=(len(x), 32 + ROUNDS[0]))
def one_too_few(x): return honest(x)[:-1]
def text(x): return "embedding"
def nothing(x): return None
def flat(x): return honest(x).reshape(-1)
def error(x): raise KeyError("\\x1b[31m")
def complex_numbers(x): return honest(x) * 1j
def objects(x): return np.array([None] * len(x))
def enormous(x): return np.broadcast_to(np.float32(0), (len(x), 2 ** 40))
"""


def _dishonest() -> Iterator[Hostile]:
    names = [line.split("def ")[1].split("(")[0] for line in PLANTED.splitlines() if line.startswith("def ")]
    for name in names:
        yield Hostile(
            kind="dishonest models",
            name=name,
            make=_written("planted.py", PLANTED),
            read=_taken if name == "honest" else partial(_calibrated, name=name),
            refused=name != "honest",
        )


def _taken(folder: Path) -> None:
    """The one that is as it should be: the others are not refused for what it does, too."""
    try:
        _calibrated(folder, "honest")
    except SteadfaceError as error:
        raise AssertionError(f"refused: {error}") from error


def _calibrated(folder: Path, name: str) -> None:
    sys.path.insert(0, str(folder))
    faces = synthetic_faces(people=24, images_per_person=4, size=(16, 16), seed=0)
    calibrate(f"planted:{name}", faces, out=folder / "contract.json", image_size=(16, 16))


CODES = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;cm0gLXJm\x07",
    "cleared": "\x1bc\x1b[2J",
    "C1": "\x9b31m\x9d0;owned\x9c",
    "return": "ok\rerror",
    "a line of its own": "x\nerror: the gallery was stolen",
    "right to left": "annexe\u202egpj.exe",
    "unseen": "ad\u200ba\u2060\u00ad",
    "markup": "[bold red]x[/bold red] [/] :bomb:",
}


def _codes() -> Iterator[Hostile]:
    """Where texts of others are printed: every output of the command line is looked through."""
    for name, code in CODES.items():
        for what, (make, words) in _printed(code).items():
            yield Hostile(
                kind="escape codes",
                name=f"{name} in {what}",
                make=make,
                read=partial(_said, words=words, code=code),
                refused=False,
            )


def _printed(code: str) -> Mapping[str, tuple[Callable[[Path], object], list[str]]]:
    def consent(folder: Path) -> None:
        GALLERY.make(folder)
        taken = mock.patch.object(person, "unwritable", return_value=False)  # as earlier versions took them
        with taken, Gallery.open(folder / "g.db", key=read_key(folder / "g.key")) as gallery:
            gallery.enroll("[red]zoe", unit(1, 1, 0, 0), consent=code, notes=code)

    def notes(folder: Path) -> None:
        kind_of("contract").make(folder)
        path = folder / "contract.json"
        path.write_bytes(json_text({**json.loads(path.read_bytes()), "name": code}))

    def keys(folder: Path) -> None:
        torch.save({f"{code}{n}": torch.zeros(3) for n in range(3)}, folder / "model.pth")

    def picture(folder: Path) -> None:
        (folder / f"{code.replace('/', '')}.png").write_bytes(b"no picture")

    def onnx_names(folder: Path) -> None:
        model = brought.tiny_onnx()
        for node in model.graph.node:
            node.name = code
        model.graph.node[0].op_type = code
        onnx.save(model, folder / "model.onnx")

    of = ["--gallery", "{at}/g.db", "--key", "{at}/g.key"]
    return {
        "a consent note: list": (consent, ["gallery", "list", *of]),
        "a consent note: show": (consent, ["gallery", "show", "[red]zoe", *of]),
        "a consent note: list --json": (consent, ["gallery", "list", "--json", *of]),
        "a name asked for": (consent, ["gallery", "show", code, *of]),
        "a contract": (
            notes,
            ["verify", "{at}/a", "{at}/b", "--model", "{at}/model.safetensors", "--contract", "{at}/contract.json"],
        ),
        "keys of a state dict": (keys, ["verify", "{at}/a", "{at}/b", "--model", "{at}/model.pth"]),
        "a file's name": (picture, ["embed", "{at}", "--aligned", "--model", "{at}/model.pth", "--out", "{at}/x.npz"]),
        "a recipe": (
            _written("x.yaml", f"name: {json.dumps(code)}\n{json.dumps(code)}: 1\n"),
            ["train", "{at}/x.yaml"],
        ),
        "an operator": (onnx_names, ["verify", "{at}/a", "{at}/b", "--model", "{at}/model.onnx"]),
        "an option": (lambda _: None, ["verify", f"--{code}"]),
        "an override": (_written("x.yaml", brought.RECIPE), ["train", "{at}/x.yaml", "--set", f"{code}={code}"]),
    }


def _said(folder: Path, words: list[str], code: str) -> None:
    """Runs the command; raises AssertionError for what a terminal would obey, and for ends that nobody foresaw."""
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["steadface", *(word.replace("{at}", str(folder)) for word in words)]
    ended = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            ended = int(end.code or 0)
    said = out.getvalue() + err.getvalue()
    obeyed = {hex(ord(one)) for one in said if one != "\n" and unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp")}
    if obeyed or "\nerror: the gallery" in said:
        raise AssertionError(f"the terminal would obey {obeyed}")
    if ended == 70 or "Traceback" in said:
        raise AssertionError(said[-500:])
    if "--json" in words and not any(code in told.values() for told in json.loads(out.getvalue())):
        raise AssertionError("the JSON has lost it")
    if ended:
        raise SteadfaceError(said)


def _words() -> Iterator[Hostile]:
    """Odd words for every option of the commands that take numbers, dates and names."""
    texts = (
        "",
        "-1",
        "0",
        "nan",
        "inf",
        "1e999",
        "9" * 5000,
        "1/0",
        "x" * 5000,
        "\udcff",
        "../..",
        "2031-99-99",
        "0001-01-01",
    )
    model = ["--model", "{at}/model.safetensors"]
    of = ["--gallery", "{at}/g.db", "--key", "{at}/g.key"]
    calls: Mapping[str, list[str]] = {
        "verify --fmr": ["verify", "{at}/a.png", "{at}/a.png", *model, "--fmr"],
        "verify --threshold": ["verify", "{at}/a.png", "{at}/a.png", "--aligned", *model, "--threshold"],
        "verify --contract": ["verify", "{at}/a.png", "{at}/a.png", *model, "--contract"],
        "enroll --expires": ["enroll", "zoe", "{at}/a.png", "--aligned", *model, *of, "--expires"],
        "enroll a name": ["enroll"],
        "identify --top": ["identify", "{at}/a.png", "--aligned", *model, *of, "--threshold", "0.5", "--top"],
        "gallery show": ["gallery", "show", *of],
        "gallery verify-log --head": ["gallery", "verify-log", *of, "--head"],
        "gallery export": ["gallery", "export", *of],
        "evaluate --eps": ["evaluate", "{at}/model.safetensors", "--images", "{at}/faces", "--attack", "pgd", "--eps"],
        "evaluate --size": ["evaluate", "{at}/model.safetensors", "--images", "{at}/faces", "--size"],
        "audit --eps": ["audit", "{at}/model.safetensors", "--images", "{at}/none", "--eps"],
        "harden --max-clean-drop": ["harden", "{at}/m", "--images", "{at}/i", "--out", "{at}/o", "--max-clean-drop"],
        "train": ["train"],
        "train --set": ["train", "{at}/recipe.yaml", "--set"],
        "resume": ["resume"],
        "detect": ["detect"],
        "embed --out": ["embed", "{at}/a.png", "--aligned", *model, "--out"],
    }

    def make(folder: Path) -> None:
        brought._weights(folder)
        GALLERY.make(folder)
        _written("a.png", brought.picture())(folder)
        _written("recipe.yaml", "name: x\n")(folder)

    for name, words in calls.items():
        for text in texts:
            more = ["{at}/a.png", *model, *of] if name == "enroll a name" else []
            yield Hostile(
                kind="words of a call",
                name=f"{name} {text!r:.20}",
                make=make,
                read=partial(_said_within, words=[*words, text, *more]),
                refused=False,
            )


def _said_within(folder: Path, words: list[str]) -> None:
    os.chdir(folder)  # where names without a folder lead to
    _said(folder, words, "")


def _mutations(count: int, seed: int) -> Iterator[Hostile]:
    for kind in KINDS:
        for number in range(count):
            at = random.Random(f"{seed} {kind.name} {number}")
            yield Hostile(
                kind="mutations of good files",
                name=f"{kind.name} {number}",
                make=_damaged(kind, partial(_spoilt, form=kind.form, at=at)),
                read=kind.read,
                refused=False,
            )
