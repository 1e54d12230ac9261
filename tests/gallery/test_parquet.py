import json
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steadface.errors import Conflict, InvalidInput, SteadfaceError
from steadface.gallery.gallery import Gallery
from steadface.gallery.sealing.keys import Key, new_key

from .conftest import MODEL, OTHER, Clock, rows_of, unit

VECTORS = unit(5)


@pytest.fixture
def full(gallery: Gallery, clock: Clock) -> Gallery:
    """Ada with two templates and a consent, Bob with three."""
    gallery.enroll("Ada", VECTORS[:2], consent="form 7", expires=clock.now + timedelta(days=3), notes="n")
    gallery.enroll("Bob", VECTORS[2:])
    return gallery


@pytest.fixture
def target(tmp_path: Path, clock: Clock) -> "Gallery":  # type: ignore[misc]
    with Gallery.create(tmp_path / "target.db", model=MODEL, clock=clock) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "e.parquet"


def rewritten(file: Path, **columns: list[object]) -> None:
    """The file with other columns, its metadata kept."""
    table = pq.read_table(file)
    for name, values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    pq.write_table(table, file)


@pytest.mark.parametrize("key", [None, new_key()])
def test_what_is_exported_comes_back(full: Gallery, target: Gallery, file: Path, key: Key | None) -> None:
    assert full.export(file, key=key, plain=key is None) == 5
    assert file.stat().st_mode & 0o777 == 0o600
    brought = target.import_(file, key=key)
    assert [one.name for one in brought.enrollees] == ["Ada", "Bob"]
    for old, new in zip(full.people(), target.people(), strict=True):
        assert (old.name, old.consent, old.expires, old.notes, old.templates) == (
            *(new.name, new.consent, new.expires, new.notes),
            new.templates,
        )
        assert old.id != new.id
    found = target.search(VECTORS)
    assert [(one[0].person.name, one[0].template) for one in found] == [
        ("Ada", 1),
        ("Ada", 2),
        ("Bob", 3),
        ("Bob", 4),
        ("Bob", 5),
    ]
    assert [one[0].similarity for one in found] == [one[0].similarity for one in full.search(VECTORS)]
    assert target.verify_log().intact


def test_vectors_leave_only_when_asked_for(full: Gallery, target: Gallery, file: Path) -> None:
    assert full.export(file) == 2
    table = pq.read_table(file)
    assert table.column_names == ["name", "consent", "expires", "notes", "templates"]
    assert table["templates"].to_pylist() == [2, 3]
    with pytest.raises(SteadfaceError, match="holds no templates; export with"):
        target.import_(file)
    full.export(file, key=new_key())
    assert not [vector for vector in VECTORS if vector.tobytes()[:8] in file.read_bytes()]
    full.export(file, plain=True)
    assert all(vector.tobytes()[:8] in pq.read_table(file)["template"].combine_chunks().flatten().to_numpy().tobytes()
               for vector in VECTORS)  # fmt: skip
    with pytest.raises(SteadfaceError, match="not both"):
        full.export(file, key=new_key(), plain=True)


def test_exports_are_logged(full: Gallery, target: Gallery, file: Path) -> None:
    full.export(file, plain=True)
    target.import_(file)
    with rows_of(full) as rows:
        last = rows.last_entry()
    assert last is not None
    assert (last.event, last.details) == ("export", '{"kind": "plain", "rows": 5}')


@pytest.mark.parametrize("content", [b"SQLite format 3\0", b"A" * 43 + b"=\n", b"{}"])
def test_an_export_takes_the_place_of_an_export_alone(full: Gallery, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(Conflict, match="of another kind and would be lost"):
        full.export(file)
    assert file.read_bytes() == content
    file.write_bytes(b"")
    full.export(file)
    assert full.export(file) == 2


def test_an_export_misses_templates_that_were_taken_out(full: Gallery, file: Path) -> None:
    with rows_of(full) as rows:
        rows.delete_templates([1])
    with pytest.raises(InvalidInput, match="the number of templates"):
        full.export(file, plain=True)
    assert not file.exists()


def test_an_empty_gallery_is_exported_and_imported(gallery: Gallery, target: Gallery, file: Path) -> None:
    assert gallery.export(file, plain=True) == 0
    assert target.import_(file).enrollees == ()


def test_who_expired_is_left_out_and_named(full: Gallery, target: Gallery, file: Path, clock: Clock) -> None:
    full.export(file, plain=True)
    clock.pass_days(4)
    brought = target.import_(file)
    assert brought.expired == ("Ada",)
    assert [person.name for person in target.people()] == ["Bob"]


def test_who_is_enrolled_already_is_refused(full: Gallery, target: Gallery, file: Path) -> None:
    full.export(file, plain=True)
    target.enroll("Bob", unit(1, seed=1))
    with pytest.raises(SteadfaceError, match=r"1 of 2 people in .* are enrolled already: Bob; .*nobody was imported"):
        target.import_(file)
    assert [(person.name, person.templates) for person in target.people()] == [("Bob", 1)]


def test_another_model_is_refused(full: Gallery, file: Path, tmp_path: Path) -> None:
    full.export(file, plain=True)
    with Gallery.create(tmp_path / "o.db", model=OTHER) as other:
        with pytest.raises(SteadfaceError, match=r"of the model ours .* takes those of the model theirs"):
            other.import_(file)
        assert len(other) == 0


def test_another_key_is_refused(full: Gallery, target: Gallery, file: Path) -> None:
    full.export(file, key=new_key())
    with pytest.raises(SteadfaceError, match=r"are sealed with the key .*, and none was given"):
        target.import_(file)
    with pytest.raises(SteadfaceError, match="and a new key holds the key"):
        target.import_(file, key=new_key())


def test_sealed_rows_cannot_change_places(full: Gallery, target: Gallery, file: Path) -> None:
    key = new_key()
    full.export(file, key=key)
    rows = pq.read_table(file)["template"].to_pylist()
    rewritten(file, template=[rows[1], rows[0], *rows[2:]])
    with pytest.raises(SteadfaceError, match="is damaged or was changed"):
        target.import_(file, key=key)
    assert len(target) == 0


PLAIN = VECTORS.tolist()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"template": [*PLAIN[:4], PLAIN[3]]}, "has a template of 'Bob' 2 times; remove the copies"),
        ({"template": [*PLAIN[:4], [2 * x for x in PLAIN[4]]]}, "vector 3 of Bob is not a unit vector"),
        ({"template": [[np.nan] * 16, *PLAIN[1:]]}, "vector 1 of Ada is not a unit vector"),
        ({"template": [None, *PLAIN[1:]]}, "a row without a name or template"),
        ({"name": ["Ada", "Ada", None, "Bob", "Bob"]}, "a row without a name or template"),
        ({"name": ["Ada", "Bob", "Bob", "Bob", "Bob"]}, "rows of 'Bob' in .* disagree on consent"),
        ({"name": ["Ada ", "Ada ", "Bob", "Bob", "Bob"]}, "'Ada ' is not a name"),
    ],
)
def test_what_is_wrong_with_a_row_stops_everything(
    full: Gallery, target: Gallery, file: Path, columns: dict[str, list[object]], said: str
) -> None:
    full.export(file, plain=True)
    rewritten(file, **columns)
    with pytest.raises(SteadfaceError, match=said):
        target.import_(file)
    assert len(target) == 0
    assert target.verify_log().entries == 1


def test_broken_files_are_told(full: Gallery, target: Gallery, file: Path) -> None:
    full.export(file, plain=True)
    whole = file.read_bytes()
    for broken in (b"", b"a letter", whole[:50], whole[: len(whole) // 2], whole[:-1], whole[10:]):
        file.write_bytes(broken)
        with pytest.raises(SteadfaceError, match=f"{file} cannot be read as Parquet, or is damaged"):
            target.import_(file)
    with pytest.raises(SteadfaceError, match="cannot be read as Parquet"):
        target.import_(file.with_name("missing.parquet"))


def test_a_flipped_bit_in_the_vectors_is_told(full: Gallery, target: Gallery, file: Path) -> None:
    full.export(file, plain=True)
    content = bytearray(file.read_bytes())
    column = pq.ParquetFile(file).metadata.row_group(0).column(4)
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(SteadfaceError, match="is damaged"):
        target.import_(file)


@pytest.mark.parametrize("about", [{}, {b"steadface gallery": b"{}"}, {b"steadface gallery": b"[]"}, {b"x": b"y"}])
def test_other_parquet_files_are_no_exports(target: Gallery, file: Path, about: dict[bytes, bytes]) -> None:
    pq.write_table(pa.table({"name": ["Ada"]}).replace_schema_metadata(about), file)
    with pytest.raises(SteadfaceError, match="is not an export"):
        target.import_(file)


def test_columns_of_another_type_are_told(full: Gallery, target: Gallery, file: Path) -> None:
    full.export(file, plain=True)
    table = pq.read_table(file)
    pq.write_table(table.set_column(1, "consent", pa.array([1] * 5)), file)
    with pytest.raises(SteadfaceError, match="column consent is int64"):
        target.import_(file)
    pq.write_table(table.drop_columns(["notes"]), file)
    with pytest.raises(SteadfaceError, match="is not an export"):
        target.import_(file)


SWAPS = {
    "names": lambda table: {"name": table["name"].to_pylist()[::-1]},
    "consent": lambda _: {"consent": ["form 8"] * 5},
    "expiry": lambda _: {"expires": [None] * 5},
    "notes": lambda _: {"notes": [None] * 5},
    "templates": lambda table: {"template": table["template"].to_pylist()[::-1]},
}


@pytest.mark.parametrize("what", SWAPS)
def test_nothing_in_a_sealed_file_can_be_exchanged(full: Gallery, target: Gallery, file: Path, what: str) -> None:
    key = new_key()
    full.export(file, key=key)
    rewritten(file, **SWAPS[what](pq.read_table(file)))
    with pytest.raises(InvalidInput, match="is damaged or was changed"):
        target.import_(file, key=key)
    assert len(target) == 0


def reordered(file: Path, rows: list[int], told: dict[str, object]) -> None:
    """The file with these of its rows, in which order it may be, and something else told of it."""
    table = pq.read_table(file).take(pa.array(rows, pa.int64()))
    about = json.loads(table.schema.metadata[b"steadface gallery"]) | told
    pq.write_table(table.replace_schema_metadata({b"steadface gallery": json.dumps(about)}), file)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        *(([0, 1, 2, 3], {}), ([0, 1, 2, 3], {"rows": 4}), ([0, 1, 2, 3, 4, 4], {"rows": 6}), ([], {"rows": 0})),
        *(([1, 0, 2, 3, 4], {}), ([0, 1, 2, 3, 4], {"export": "0" * 32}), ([0, 1, 2, 3, 4], {"seal": None})),
        *(([0, 1, 2, 3, 4], {"format": 1}), ([0, 1, 2, 3, 4], {"model": {**asdict(MODEL), "name": "theirs"}})),
        *(([0, 1, 2, 3, 4], {"seal": "zz"}), ([0, 1, 2, 3, 4], {"seal": 5}), ([0, 1, 2, 3, 4], {"rows": True})),
    ],
)
def test_rows_of_a_sealed_file_cannot_be_dropped_doubled_or_moved(
    full: Gallery, target: Gallery, file: Path, rows: list[int], told: dict[str, object]
) -> None:
    key = new_key()
    full.export(file, key=key)
    reordered(file, rows, told)
    with pytest.raises(InvalidInput):
        target.import_(file, key=key)
    assert len(target) == 0


def test_rows_of_two_sealed_files_cannot_be_mixed(full: Gallery, target: Gallery, file: Path) -> None:
    key, other = new_key(), file.with_name("other.parquet")
    full.export(file, key=key)
    full.export(other, key=key)
    rewritten(file, template=pq.read_table(other)["template"].to_pylist())
    with pytest.raises(InvalidInput, match="is damaged or was changed"):
        target.import_(file, key=key)


def test_a_plain_file_in_place_of_a_sealed_one_is_told(full: Gallery, target: Gallery, file: Path) -> None:
    full.export(file, plain=True)
    with pytest.raises(InvalidInput, match="holds plain vectors"):
        target.import_(file, key=new_key())


def test_sealed_files_of_the_first_format_are_imported_with_a_word(
    full: Gallery, target: Gallery, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = new_key()
    full.export(file, key=key)
    sealed = [
        key.seal(vector.astype("<f4").tobytes(), f"row {row} of an export of model {MODEL.fingerprint}")
        for row, vector in enumerate(VECTORS)
    ]
    rewritten(file, template=sealed)  # type: ignore[arg-type]
    table = pq.read_table(file)
    about = {"format": 1, "kind": "sealed", "model": asdict(MODEL), "key": key.id}
    pq.write_table(table.replace_schema_metadata({b"steadface gallery": json.dumps(about)}), file)
    target.import_(file, key=key)
    assert [person.templates for person in target.people()] == [2, 3]
    assert caplog.text.count("exported by an earlier version") == 1


def test_texts_of_earlier_versions_do_not_keep_everybody_from_being_exported(
    full: Gallery, target: Gallery, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("steadface.gallery.enrollment.checked_text", lambda text, *_: text)
        full.enroll("Eve", unit(1, seed=7), consent="form \udcff", notes="\x1b[31m")
    full.export(file, plain=True)
    target.import_(file)
    assert (target.person("Eve").consent, target.person("Eve").notes) == ("form ?", "?[31m")
    assert full.person("Eve").consent == "form \udcff"


@pytest.mark.parametrize(
    "columns",
    [
        *({"consent": ["\x1b[31m"] * 5}, {"notes": ["a\0b"] * 5}, {"notes": ["x" * 20_000] * 5}),
        *({"name": ["x" * 500] * 5}, {"name": ["\x1b[2J"] * 5}, {"consent": ["\u202e" * 20_000] * 5}),
    ],
)
def test_texts_that_cannot_be_shown_are_not_imported(
    full: Gallery, target: Gallery, file: Path, columns: dict[str, list[object]]
) -> None:
    full.export(file, plain=True)
    rewritten(file, **columns)
    with pytest.raises(InvalidInput) as told:
        target.import_(file)
    assert str(told.value).isprintable()
    assert len(target) == 0


TYPES = [
    *(pa.int64(), pa.large_string(), pa.binary(), pa.float64(), pa.bool_(), pa.list_(pa.string()), pa.null()),
    *(pa.timestamp("us"), pa.timestamp("ns", tz="UTC"), pa.timestamp("us", tz="Europe/Berlin"), pa.date32()),
    *(pa.struct([("x", pa.int8())]), pa.map_(pa.string(), pa.int8()), pa.decimal128(38, 2), pa.list_(pa.float32())),
    *(pa.dictionary(pa.int32(), pa.string()), pa.list_(pa.float64(), 16), pa.list_(pa.float32(), 8), pa.binary(44)),
]


@pytest.mark.parametrize("column", ["name", "consent", "expires", "notes", "template"])
def test_columns_of_any_other_type_are_told(full: Gallery, target: Gallery, file: Path, column: str) -> None:
    for sealing in (None, new_key()):
        full.export(file, key=sealing, plain=sealing is None)
        table = pq.read_table(file)
        place = table.schema.get_field_index(column)
        for kept in TYPES:
            pq.write_table(table.set_column(place, column, pa.nulls(5, kept)), file)
            with pytest.raises(InvalidInput):
                target.import_(file, key=sealing)
        pq.write_table(table.append_column(column, table[column]), file)
        with pytest.raises(InvalidInput, match="there is not one column"):
            target.import_(file, key=sealing)
    assert len(target) == 0


@pytest.mark.parametrize("time", [2**62, -(2**62), 253402300800000000, -62135596800000001])
def test_an_expiry_beyond_all_years_is_told(full: Gallery, target: Gallery, file: Path, time: int) -> None:
    full.export(file, plain=True)
    table = pq.read_table(file)
    times = pa.array([time] * 5, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    pq.write_table(table.set_column(2, "expires", times), file)
    with pytest.raises(InvalidInput, match="is damaged"):
        target.import_(file)


@pytest.mark.parametrize(
    "about",
    [
        *("[" * 60_000, '"x"', "1", "null", "{}", "x" * 10**6, '{"format": "2"}', '{"format": 1e999}', '{"format": 1}'),
        *('{"format": 1, "model": []}', '{"format": 2, "model": {"fingerprint": 5}}', "\xff"),
        json.dumps({"format": 2, "kind": "other", "model": asdict(MODEL), "key": None, "rows": 5, "export": "x"}),
        json.dumps({"format": 2, "kind": "plain", "model": asdict(MODEL), "key": 5, "rows": 5, "export": "x"}),
        json.dumps({"format": 2, "kind": "plain", "model": asdict(MODEL), "key": None, "rows": 5, "export": 5}),
        json.dumps({"format": 2, "kind": ["plain"], "model": asdict(MODEL), "key": None, "rows": 5, "export": "x"}),
    ],
)
def test_what_a_file_says_of_itself_may_be_anything(full: Gallery, target: Gallery, file: Path, about: str) -> None:
    full.export(file, plain=True)
    pq.write_table(pq.read_table(file).replace_schema_metadata({"steadface gallery": about}), file)
    with pytest.raises(InvalidInput, match="is not an export") as told:
        target.import_(file)
    assert str(told.value).isprintable()


def test_a_few_bytes_that_stand_for_many_are_refused(full: Gallery, target: Gallery, file: Path) -> None:
    """Many rows that are one: a text of a megabyte that is in all of them, and one vector."""
    full.export(file, plain=True)
    schema = pq.read_table(file).schema
    count = 300_000
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["x" * 10**6]))
    none = pa.nulls(count, schema.field("expires").type)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(16 * count, np.float32)), 16)
    columns = [pa.DictionaryArray.from_arrays(text.indices, pa.array(["Ada"])), text, none, text, vectors]
    about = json.loads(schema.metadata[b"steadface gallery"]) | {"rows": count}
    table = pa.table(dict(zip(schema.names, columns, strict=True)))
    pq.write_table(table.replace_schema_metadata({"steadface gallery": json.dumps(about)}), file, store_schema=False)
    with pytest.raises(InvalidInput):
        target.import_(file)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_read(target: Gallery, file: Path, make: Callable[[Path], None]) -> None:
    make(file)
    with pytest.raises(InvalidInput, match="cannot be read as Parquet"):
        target.import_(file)
