"""Galleries as Parquet files: who is enrolled, alone or with their templates.

    people   one row per person, with the number of templates; no vectors, and so nothing to import
    sealed   one row per template, its vector sealed (AES-256-GCM) with a key that both sides have
    plain    one row per template, its vector as it is: anybody who has the file has the templates

Names, consent, expiry and notes are legible in all three. The file's metadata tells the kind and the model. Ids, times
of enrolment and the log stay behind: who is imported is enrolled then. Pages carry checksums, and everything is read
and checked before anything is enrolled.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, assert_never

import numpy as np

from steadface.errors import Conflict, InvalidInput, NotFound, Unsupported
from steadface.files import write_atomically
from steadface.gallery.enrollment import Enrollee, checked
from steadface.gallery.index import Vectors
from steadface.gallery.maintenance import listed
from steadface.gallery.person import Person, checked_name
from steadface.gallery.sealing.keys import Key, Unsealable
from steadface.gallery.sealing.transaction import Reader
from steadface.gallery.storage import ModelIdentity, described, same_model

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["people", "sealed", "plain"]

METADATA = b"steadface gallery"
FORMAT = 1
ABOUT = ("name", "consent", "expires", "notes")


@dataclass(frozen=True, kw_only=True)
class About:
    """What a file says of itself; `key` is the id of the one that sealed it."""

    kind: Kind
    model: ModelIdentity
    key: str | None


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Whom a file brings, with checked vectors; who had `expired` is left out."""

    enrollees: tuple[Enrollee, ...]
    expired: tuple[str, ...]


def kind_of(key: Key | None, plain: bool) -> Kind:
    """Raises `InvalidInput` where both are asked for."""
    if key is not None and plain:
        raise InvalidInput("templates are exported either sealed with a key or as plain vectors, not both")
    return "sealed" if key is not None else "plain" if plain else "people"


def exported(reader: Reader, model: ModelIdentity, *, key: Key | None, plain: bool) -> "pa.Table":
    """Everybody in the gallery."""
    import pyarrow as pa

    kind = kind_of(key, plain)
    people = list(reader.people())
    name, owners, column = _last_column(reader, people, model, kind, key)
    types = _types()
    about = {what: pa.array([getattr(people[row], what) for row in owners], types[what]) for what in ABOUT}
    metadata = {"format": FORMAT, "kind": kind, "model": asdict(model), "key": None if key is None else key.id}
    return pa.table(about | {name: column}).replace_schema_metadata({METADATA: json.dumps(metadata)})


def _last_column(
    reader: Reader, people: list[Person], model: ModelIdentity, kind: Kind, key: Key | None
) -> tuple[str, Iterable[int], "pa.Array"]:
    """Its name, the place in `people` of whom each row is about, and its values."""
    import pyarrow as pa

    if kind == "people":
        counts = pa.array([person.templates for person in people], pa.int64())
        return "templates", range(len(people)), counts
    vectors, owners = _templates(reader, people, model.dimension)
    if kind == "sealed":
        assert key is not None  # which makes it so
        return "template", owners, pa.array(_sealed(vectors, key, model), pa.binary())
    if kind == "plain":
        return "template", owners, _plain(vectors)
    assert_never(kind)


def write(path: Path, table: "pa.Table") -> None:
    """Raises `SteadfaceError` where the file cannot be written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    write_atomically(path, buffer.getvalue().to_pybytes(), private=True)


def read(path: Path, model: ModelIdentity, *, key: Key | None, now: datetime) -> Imported:
    """Whom the file brings. Raises `InvalidInput` for a file that is broken or not an export with templates, another
    key, vectors that are not unit vectors, and rows that are there twice or contradict others; `Conflict` for templates
    of another model.
    """
    table, about = _table(path)
    if about.kind == "people":
        raise InvalidInput(f"{path} holds no templates; export with --sealed-with KEY or --plain-vectors to import")
    if not same_model(about.model, model):
        raise Conflict(
            f"{path} holds templates of {described(about.model)}, and the gallery takes those of {described(model)}"
        )
    if about.kind == "sealed" and (key is None or key.id != about.key):
        given = "none was given" if key is None else f"{key.source} holds the key {key.id}"
        raise InvalidInput(f"the templates in {path} are sealed with the key {about.key}, and {given}")
    try:
        vectors = _vectors(table["template"], key if about.kind == "sealed" else None, model)
    except (Unsealable, ValueError) as error:
        raise InvalidInput(f"{path} is damaged or was changed: its templates cannot be read ({error})") from None
    return _grouped(table, vectors, path, model, now)


def refuse_known(reader: Reader, brought: Imported, path: Path) -> None:
    """Raises `Conflict` where somebody is enrolled already."""
    names = [one.name for one in brought.enrollees]
    if known := [name for name in names if reader.find(name) is not None]:
        raise Conflict(
            f"{len(known)} of {len(names)} people in {path} are enrolled already: {listed(known)}; remove them from "
            "the gallery first, or leave them out of the file (nobody was imported)"
        )


def _table(path: Path) -> tuple["pa.Table", About]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        kind = InvalidInput if path.exists() else NotFound
        raise kind(f"{path} cannot be read as Parquet, or is damaged ({reason}); export it again") from None
    try:
        about = json.loads((table.schema.metadata or {})[METADATA])
        if about.pop("format") > FORMAT:
            raise Unsupported(f"{path} was written by a newer Steadface; upgrade Steadface")
        stated = About(**(about | {"model": ModelIdentity(**about["model"])}))
        _check_columns(table, stated.kind)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{path} is not an export of a gallery ({error!r}); `steadface gallery export` writes them"
        ) from None
    return table, stated


def _check_columns(table: "pa.Table", kind: Kind) -> None:
    """Raises ValueError or KeyError where a column is missing or of another type, or a person has no name."""
    for what, wanted in _types().items():
        if table.schema.field(what).type != wanted:
            raise ValueError(f"column {what} is {table.schema.field(what).type}")
    if table["name"].null_count or (kind != "people" and table["template"].null_count):
        raise ValueError("a row without a name or template")


def _types() -> dict[str, "pa.DataType"]:
    """Of the columns that tell of a person."""
    import pyarrow as pa

    return {what: pa.timestamp("us", tz="UTC") if what == "expires" else pa.string() for what in ABOUT}


def _templates(reader: Reader, people: list[Person], dimension: int) -> tuple[Vectors, np.ndarray[Any, Any]]:
    """All vectors (n, D), and the place of each one's owner in `people`."""
    blocks = list(reader.templates())
    if not blocks:
        return np.empty((0, dimension), dtype=np.float32), np.empty(0, dtype=np.int64)
    owners = np.concatenate([block.owners for block in blocks])
    numbers = np.array([person.number for person in people], dtype=np.int64)  # ascending
    return np.concatenate([block.vectors for block in blocks]), np.searchsorted(numbers, owners)


def _plain(vectors: Vectors) -> "pa.Array":
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def _sealed(vectors: Vectors, key: Key, model: ModelIdentity) -> Iterator[bytes]:
    return (key.seal(v.astype("<f4").tobytes(), _bound(row, model)) for row, v in enumerate(vectors))


def _vectors(column: "pa.ChunkedArray", key: Key | None, model: ModelIdentity) -> Vectors:
    """(n, D). Raises `Unsealable`, and ValueError for rows of another length."""
    if key is None:
        values = column.combine_chunks()
        plain = values.flatten().to_numpy(zero_copy_only=False)
    else:
        opened = [key.open(sealed, _bound(row, model)) for row, sealed in enumerate(column.to_pylist())]
        plain = np.frombuffer(b"".join(opened), dtype="<f4")
    return np.asarray(plain, dtype=np.float32).reshape(len(column), model.dimension)


def _bound(row: int, model: ModelIdentity) -> str:
    return f"row {row} of an export of model {model.fingerprint}"


def _grouped(table: "pa.Table", vectors: Vectors, path: Path, model: ModelIdentity, now: datetime) -> Imported:
    """One enrollee per person; raises `InvalidInput`."""
    rows: dict[str, list[int]] = {}
    about = table.select(list(ABOUT)).to_pylist()
    for row, one in enumerate(about):
        one["name"] = checked_name(one["name"])
        rows.setdefault(one["name"], []).append(row)
    enrollees, expired = [], []
    for name, places in rows.items():
        whole = about[places[0]]
        if any(about[place] != whole for place in places):
            raise InvalidInput(f"rows of {name!r} in {path} disagree on consent, expiry or notes; make them one")
        if whole["expires"] is not None and whole["expires"] <= now:
            expired.append(name)
            continue
        twice = [n for n in Counter(vectors[place].tobytes() for place in places).values() if n > 1]
        if twice:
            raise InvalidInput(f"{path} has a template of {name!r} {twice[0]} times; remove the copies")
        enrollees.append(checked(Enrollee(**whole, vectors=vectors[places]), model, now))
    return Imported(enrollees=tuple(enrollees), expired=tuple(expired))
