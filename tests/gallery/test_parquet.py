from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steadface.errors import SteadfaceError
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
