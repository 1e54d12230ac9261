"""Whom a Parquet file brings (`steadface.gallery.parquet`): everything is read and checked before anybody is enrolled.

What a file says of itself sets neither memory nor time: it may say that it holds a thousand times what it does, and a
few bytes may stand for many. So columns of the right types are read alone, some thousand rows at a time, texts once for
all rows that repeat them, and no more than `DECODED` bytes or `RATIO` times what the file has.
"""

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steadface.errors import Conflict, InvalidInput, NotFound, Unsupported, quoted, short
from steadface.gallery.enrollment import Enrollee, checked
from steadface.gallery.index import Vectors
from steadface.gallery.maintenance import listed
from steadface.gallery.parquet import ABOUT, FORMAT, METADATA, About, Row, standing, types
from steadface.gallery.person import checked_name
from steadface.gallery.sealing.keys import Key, Unsealable
from steadface.gallery.storage import ModelIdentity, described, model_identity, same_model

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

TOLD = 2**16
"""Bytes of what a file says of itself."""
FOOTER = 2**22
"""Bytes of a text, and number of things, in what Parquet itself notes of a file."""
DECODED = 2**28
"""Bytes that any file may decode to."""
RATIO = 20
"""Times its size that a larger one may: templates do not get smaller by compression."""
ROW = 2**8
"""Bytes that a row takes besides its vector, at least."""
BATCH = 2**14
"""Rows at a time."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Whom a file brings, with checked vectors; who had `expired` is left out."""

    enrollees: tuple[Enrollee, ...]
    expired: tuple[str, ...]


def read(path: Path, model: ModelIdentity, *, key: Key | None, now: datetime) -> Imported:
    """Whom the file brings. Raises `InvalidInput` for a file that is broken or not an export with templates, another
    key, vectors that are not unit vectors, and rows that are there twice or contradict others; `Conflict` for templates
    of another model.
    """
    if not path.is_file():
        kind = InvalidInput if path.exists() else NotFound
        raise kind(f"{path} cannot be read as Parquet: there is no such file; check the path")
    with explained(path):
        return _read(path, model, key, now)


def _read(path: Path, model: ModelIdentity, key: Key | None, now: datetime) -> Imported:
    about, seal = _about(path)
    if about.kind == "people":
        raise InvalidInput(f"{path} holds no templates; export with --sealed-with KEY or --plain-vectors to import")
    if not same_model(about.model, model):
        raise Conflict(
            f"{path} holds templates of {described(about.model)}, and the gallery takes those of {described(model)}"
        )
    _check_key(about, key, path)
    if key is not None:
        _check_seal(about, seal, key, path)
    rows, vectors = _rows(path, about, key)
    return _grouped(rows, vectors, path, model, now)


def _check_key(about: About, key: Key | None, path: Path) -> None:
    """Raises `InvalidInput` unless it is the one that the file was sealed with, and none for plain vectors."""
    if about.kind == "plain" and key is not None:
        raise InvalidInput(f"{path} holds plain vectors, which no key has sealed; if that is what it has to be, import "
                           "it without a key")  # fmt: skip
    if about.kind == "sealed" and (key is None or key.id != about.key):
        given = "none was given" if key is None else f"{key.source} holds the key {key.id}"
        raise InvalidInput(f"the templates in {path} are sealed with the key {quoted(about.key)}, and {given}")


def refuse_known(known: Collection[str], enrollees: Sequence[Enrollee], source: str) -> None:
    """Raises `Conflict` where one of those whom `source` brings is `known`: enrolled already."""
    names = [one.name for one in enrollees]
    if there := [name for name in names if name in known]:
        raise Conflict(
            f"{len(there)} of {len(names)} people in {source} are enrolled already: {listed(there)}; remove them from "
            "the gallery first, or leave them out of the file (nobody was imported)"
        )


@contextmanager
def explained(path: Path, remedy: str = "export it again") -> Iterator[None]:
    """What Parquet cannot make of a file becomes a `SteadfaceError`; no file is worth more than that."""
    import pyarrow as pa

    try:
        yield
    except Unsealable:
        raise InvalidInput(f"{path} is damaged or was changed: its templates cannot be read, or its rows are not those "
                           "that were sealed; export it again") from None  # fmt: skip
    except (OSError, pa.ArrowException, ValueError, MemoryError, OverflowError) as error:
        reason = quoted(((str(error) or type(error).__name__).splitlines() or [""])[0])
        raise InvalidInput(f"{path} cannot be read as Parquet, or is damaged ({reason}); {remedy}") from None


def parquet_file(path: Path, texts: Sequence[str] = ()) -> "pq.ParquetFile":
    """With `texts` kept once each."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(
        path,
        read_dictionary=list(texts),
        thrift_string_size_limit=FOOTER,
        thrift_container_size_limit=FOOTER,
        page_checksum_verification=True,
    )


def _about(path: Path) -> tuple[About, str]:
    """What a file says of itself, and the seal of that."""
    with parquet_file(path) as file:
        schema, rows, decoded = file.schema_arrow, file.metadata.num_rows, decoded_bytes(file)
    try:
        about, seal = _told((schema.metadata or {})[METADATA])
        if about.rows not in (None, rows):
            raise ValueError(f"it says that it has {about.rows} rows, and there are {rows}")
        _check_columns(schema, about)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"{path} is not an export of a gallery ({short(ascii(error))}); `steadface gallery export` writes them"
        ) from None
    check_size(path, rows, decoded, about.model.dimension)
    return about, seal


def check_size(path: Path, rows: int, decoded: int, dimension: int) -> None:
    """Raises `InvalidInput` where a file says that it holds more rows or bytes than one of its size can."""
    most = max(DECODED, RATIO * path.stat().st_size)
    if max(decoded, rows * (ROW + 4 * dimension)) > most:
        raise InvalidInput(
            f"{path} says that it holds {rows} rows and {decoded} bytes, and for a file of its size {most} bytes are "
            "the most; write fewer into one file"
        )


def decoded_bytes(file: "pq.ParquetFile") -> int:
    """Bytes, as it says itself."""
    return sum(file.metadata.row_group(place).total_byte_size for place in range(file.metadata.num_row_groups))


def _told(text: bytes) -> tuple[About, str]:
    """Raises ValueError, KeyError or AttributeError for what no export says."""
    if len(text) > TOLD:
        raise ValueError("it says too much")
    told = json.loads(text)
    version = told["format"]
    if type(version) is not int or version < 1:
        raise ValueError("its format is none")
    if version > FORMAT:
        raise Unsupported("the file was written by a newer Steadface; upgrade Steadface")
    parts = {"rows": None, "export": None, **told, "model": model_identity(told["model"])}
    about = About(**{field.name: parts[field.name] for field in fields(About)})
    if about.kind not in ("people", "sealed", "plain") or not isinstance(about.key, str | None):
        raise ValueError("its kind or key is none")
    if version == 1:
        return replace(about, rows=None, export=None), ""
    if type(about.rows) is not int or not isinstance(about.export, str):
        raise ValueError("it does not say how many rows it has")
    return about, str(told.get("seal"))


def _check_columns(schema: "pa.Schema", about: About) -> None:
    """Raises ValueError where a column is missing, there twice or of another type."""
    import pyarrow as pa

    wanted = {**types(), "templates" if about.kind == "people" else "template": None}
    for what, kept in wanted.items():
        if schema.names.count(what) != 1:
            raise ValueError(f"there is not one column {what}")
        found = schema.field(what).type
        if kept is not None and found != kept:
            raise ValueError(f"column {what} is {short(str(found))}")
    if about.kind == "sealed" and schema.field("template").type != pa.binary():
        raise ValueError("column template is not binary")
    if about.kind == "plain":
        found, numbers = schema.field("template").type, about.model.dimension
        if not pa.types.is_fixed_size_list(found) or (found.value_type, found.list_size) != (pa.float32(), numbers):
            raise ValueError(f"column template is not of {numbers} float32 each")


def _check_seal(about: About, seal: str, key: Key, path: Path) -> None:
    """Raises `Unsealable`, and says once what format 1 does not bind."""
    if about.export is not None:
        key.open(bytes.fromhex(seal), about.bound())
        return
    logger.warning(
        "%s was exported by an earlier version: its templates are sealed, and neither names, consent and expiry nor "
        "the number of rows are; import it only from a place that nobody else can write to",
        path,
    )


def _rows(path: Path, about: About, key: Key | None) -> tuple[list[Row], Vectors]:
    """What each row tells of its person, and the templates (n, D). Raises `Unsealable`, and ValueError for others."""
    texts = [what for what in ABOUT if what != "expires"] + (["template"] if key else [])
    rows, vectors, size = list[Row](), [np.empty((0, about.model.dimension), np.float32)], 0
    most = max(DECODED, RATIO * path.stat().st_size)
    with parquet_file(path, texts) as file:
        for batch in file.iter_batches(BATCH, columns=[*ABOUT, "template"], use_threads=False):
            if (size := size + batch.nbytes) > most:
                raise ValueError(f"it decodes to more than {most} bytes")
            told = _batch(batch)
            vectors.append(_opened(batch, told, len(rows), about, key) if key else _plain(batch, about))
            rows += told
    if about.rows not in (None, len(rows)):
        raise ValueError("rows are missing")
    return rows, np.concatenate(vectors)


def _batch(batch: "pa.RecordBatch") -> list[Row]:
    if batch["name"].null_count or batch["template"].null_count:
        raise ValueError("a row without a name or template")
    columns = {what: _expiries(batch[what]) if what == "expires" else _values(batch[what]) for what in ABOUT}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(column: "pa.Array") -> list[Any]:
    """Of a column with a dictionary, each of which is there once."""
    values = column.dictionary.to_pylist()
    return [None if place is None else values[place] for place in column.indices.to_pylist()]


def _expiries(column: "pa.Array") -> list[datetime | None]:
    """Raises OverflowError beyond the year 9999."""
    import pyarrow as pa

    times = column.cast(pa.int64()).to_pylist()
    return [None if time is None else EPOCH + timedelta(microseconds=time) for time in times]


def _opened(batch: "pa.RecordBatch", rows: Sequence[Row], first: int, about: About, key: Key) -> Vectors:
    sealed = enumerate(zip(_values(batch["template"]), rows, strict=True), start=first)
    plain = [key.open(one, about.bound(place, *standing(row))) for place, (one, row) in sealed]
    return np.frombuffer(b"".join(plain), dtype="<f4").reshape(len(rows), about.model.dimension).astype(np.float32)


def _plain(batch: "pa.RecordBatch", about: About) -> Vectors:
    values = batch["template"].flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float32).reshape(batch.num_rows, about.model.dimension)


def _grouped(about: Sequence[Row], vectors: Vectors, path: Path, model: ModelIdentity, now: datetime) -> Imported:
    """One enrollee per person; raises `InvalidInput`."""
    rows: dict[str, list[int]] = {}
    written = {name: checked_name(name) for name in {one["name"] for one in about}}
    about = [{**one, "name": written[one["name"]]} for one in about]
    for row, one in enumerate(about):
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
