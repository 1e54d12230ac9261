"""Galleries as Parquet files: who is enrolled, alone or with their templates.

    people   one row per person, with the number of templates; no vectors, and so nothing to import
    sealed   one row per template, its vector sealed (AES-256-GCM) with a key that both sides have
    plain    one row per template, its vector as it is: anybody who has the file has the templates

Names, consent, expiry and notes are legible in all three. The file's metadata tells the kind, the model and the number
of rows. Ids, times of enrolment and the log stay behind: who is imported is enrolled then. Pages carry checksums.

In a sealed file every template is bound to its row with all that stands there, to the number of rows and to the export,
under a random name; so are kind, model and number of rows, should there be no row. Nothing can be changed, exchanged,
left out, doubled or added by those who lack the key. Format 1, of earlier versions, bound place and model alone. A
plain file is bound to nothing: it is as good as the place that it comes from.
"""

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from steadface.errors import InvalidInput
from steadface.files import write_atomically
from steadface.gallery.index import Vectors
from steadface.gallery.person import Person, unwritable
from steadface.gallery.sealing.keys import Key
from steadface.gallery.sealing.transaction import Reader
from steadface.gallery.sealing.vault import stamp
from steadface.gallery.storage import ModelIdentity

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["people", "sealed", "plain"]

METADATA = b"steadface gallery"
MAGIC = b"PAR1"
FORMAT = 2
ABOUT = ("name", "consent", "expires", "notes")

Row = dict[str, Any]
"""What one row tells of a person, by `ABOUT`."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What a file says of itself; `key` is the id of the one that sealed it, `export` a random name. `rows` and
    `export` are None in format 1.
    """

    kind: Kind
    model: ModelIdentity
    key: str | None
    rows: int | None
    export: str | None

    def bound(self, *row: object) -> str:
        """What a row of it is bound to, given its place and what stands in it, or the whole where nothing is given."""
        if self.export is None:
            return f"row {row[0]} of an export of model {self.model.fingerprint}"
        return json.dumps(["export", self.export, self.rows, asdict(self.model), *row])


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
    told = [_told(person) for person in people]
    vectors, owners = (None, range(len(people))) if kind == "people" else _templates(reader, people, model.dimension)
    about = About(
        kind=kind,
        model=model,
        key=None if key is None else key.id,
        rows=len(owners),
        export=secrets.token_hex(16),
    )
    rows = [told[owner] for owner in owners]
    columns = {what: pa.array([row[what] for row in rows], kept) for what, kept in types().items()}
    if vectors is None:
        columns["templates"] = pa.array([person.templates for person in people], pa.int64())
    else:
        columns["template"] = (
            _plain(vectors) if key is None else pa.array(_sealed(vectors, rows, key, about), pa.binary())
        )
    return pa.table(columns).replace_schema_metadata({METADATA: json.dumps(_metadata(about, key))})


def _told(person: Person) -> Row:
    """Earlier versions took texts that cannot be written down or shown; lest they keep everybody from being exported or
    imported, a question mark stands for what is wrong with them.
    """
    row: Row = {what: getattr(person, what) for what in ABOUT}
    for what in ("consent", "notes"):
        if row[what] is not None:
            row[what] = "".join("?" if unwritable(c) else c for c in str(row[what]))
    return row


def _metadata(about: About, key: Key | None) -> dict[str, object]:
    seal = None if key is None else key.seal(b"", about.bound()).hex()
    return {"format": FORMAT, **asdict(about), "seal": seal}


def write(path: Path, table: "pa.Table") -> None:
    """Raises `SteadfaceError` where the file cannot be written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    write_atomically(path, buffer.getvalue().to_pybytes(), private=True)


def types() -> dict[str, "pa.DataType"]:
    """Of the columns that tell of a person."""
    import pyarrow as pa

    return {what: pa.timestamp("us", tz="UTC") if what == "expires" else pa.string() for what in ABOUT}


def _templates(reader: Reader, people: list[Person], dimension: int) -> tuple[Vectors, np.ndarray[Any, Any]]:
    """All vectors (n, D), and the place of each one's owner in `people`."""
    blocks = list(reader.templates())
    reader.check_count("templates", sum(len(block.numbers) for block in blocks))
    if not blocks:
        return np.empty((0, dimension), dtype=np.float32), np.empty(0, dtype=np.int64)
    owners = np.concatenate([block.owners for block in blocks])
    numbers = np.array([person.number for person in people], dtype=np.int64)  # ascending
    return np.concatenate([block.vectors for block in blocks]), np.searchsorted(numbers, owners)


def _plain(vectors: Vectors) -> "pa.Array":
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def _sealed(vectors: Vectors, rows: Sequence[Row], key: Key, about: About) -> Iterator[bytes]:
    numbered = enumerate(zip(vectors, rows, strict=True))
    return (key.seal(v.astype("<f4").tobytes(), about.bound(place, *standing(row))) for place, (v, row) in numbered)


def standing(row: Row) -> list[str | None]:
    """What stands in a row, as it is bound."""
    return [stamp(one) if isinstance(one, datetime) else one for one in (row[what] for what in ABOUT)]
