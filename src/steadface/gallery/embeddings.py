"""Embeddings of many pictures as Parquet files: a folder of parts, and the manifest that says of what.

    manifest.json                                   what was listed, by which model and detector, how many to a part
    part-000000016384-000000032768.parquet          the pictures 16,384 to 32,767 of the listing, a row each

Which pictures a part holds follows from the listing alone, never from who works on it, so that any machine may make any
part, and one that is there need not be made again. A part is whole or not there, and says which manifest it belongs to.
Rows stand in the order of the listing:

    file, key         where the picture lies: a file, and its name in there where that holds several
    person            who it shows, where that is known
    embedding         D numbers, a unit vector; null where there is none
    score, box        of the face that was found, in pixels of the upright photograph; null where nobody looked for one
    error             why there is no embedding

Embeddings can be turned back into faces: folder and files are for their owner alone.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steadface.errors import Conflict, InvalidInput, SteadfaceError, Unavailable, Unsupported, short, unreadable
from steadface.files import NO_ROOM, flush_folder, new_partial, put_in_place, read_file
from steadface.gallery.imported import TOLD, check_size, decoded_bytes, explained, parquet_file
from steadface.gallery.storage import ModelIdentity, described, model_identity, same_model

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MANIFEST = "manifest.json"
METADATA = b"steadface embeddings"
FORMAT = 1
PART_SIZE = 2**14
"""Pictures to a part, where nothing else is asked for."""
LARGEST_PART = 2**20
MOST_PARTS = 1_000_000
"""Of a folder."""
AGAIN = "remove it and embed again"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the parts of a folder hold: `images` of the listing of digest `data`, whose people are known if it is
    `labelled`, `part_size` to a part; `detector` is the SHA-256 of the one that found the faces, None for aligned ones.
    """

    data: str
    images: int
    labelled: bool
    part_size: int
    model: ModelIdentity
    detector: str | None

    @property
    def digest(self) -> str:
        """Of all but the model's name, which is its file's and may differ between machines."""
        told = {**asdict(self), "model": {**asdict(self.model), "name": ""}}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def parts(self) -> int:
        return -(-self.images // self.part_size)

    def span(self, part: int) -> range:
        """The places in the listing of a part's pictures."""
        return range(part * self.part_size, min((part + 1) * self.part_size, self.images))

    def name(self, part: int) -> str:
        span = self.span(part)
        return f"part-{span.start:012d}-{span.stop:012d}.parquet"

    def check_same(self, other: "Manifest", folder: Path) -> None:
        """Raises `Conflict`, and says what differs, where `folder`, whose manifest this is, is not for `other` work."""
        differ = [
            f"{what}: {short(str(there), 20)} there, {short(str(here), 20)} here"
            for what, there, here in (
                ("images", self.images, other.images),
                ("digest of the listing", self.data[:12], other.data[:12]),
                ("whether people are known", self.labelled, other.labelled),
                ("images to a part", self.part_size, other.part_size),
                ("detector", (self.detector or "none")[:12], (other.detector or "none")[:12]),
            )
            if there != here
        ]
        if not same_model(self.model, other.model):
            differ.append(f"model: {described(self.model)} there, {described(other.model)} here")
        if differ:
            raise Conflict(f"{folder} is of other pictures or options ({'; '.join(differ)}); name another folder")


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a part says of itself: the `manifest` that it belongs to, by digest, and how many of its `rows` `failed`."""

    manifest: str
    model: ModelIdentity
    rows: int
    failed: int


def settled(folder: Path, manifest: Manifest) -> Manifest:
    """Makes `manifest` that of the folder, unless somebody has been first. Raises `Conflict` where it is another's."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (folder / MANIFEST).exists():
            _place_first(folder, json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1).encode())
    except OSError as error:
        raise _unwritable(folder, error) from None
    there = read_manifest(folder)
    there.check_same(manifest, folder)
    return there


def _place_first(folder: Path, text: bytes) -> None:
    """Whole, and never in place of one that is there: who comes second finds the first one's."""
    with new_partial(folder, f".{MANIFEST}.") as (file, partial):
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):  # each compares what is there with its own
            put_in_place(partial, folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Raises `SteadfaceError` where there is none, or it is damaged."""
    path = folder / MANIFEST
    try:
        told = json.loads(read_file(path, most=TOLD))
        if told.pop("format") != FORMAT:
            raise Unsupported(f"{path} was written by a newer Steadface; upgrade Steadface")
        manifest = Manifest(**{**told, "model": model_identity(told["model"])})
        numbers = (manifest.images, manifest.part_size)
        if not all(type(one) is int and one > 0 for one in numbers) or type(manifest.labelled) is not bool:
            raise ValueError("its numbers are none")
        if manifest.part_size > LARGEST_PART or manifest.parts > MOST_PARTS:
            raise ValueError("its parts are too large or too many")
        if not isinstance(manifest.data, str) or not isinstance(manifest.detector, str | None):
            raise ValueError("a digest is none")
    except OSError as error:
        raise unreadable(
            error, f"cannot read {path}: {error.strerror}; name a folder that `steadface embed` wrote, or one part"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"{path} is no manifest of embeddings, or damaged ({short(ascii(error))})") from None
    return manifest


def is_there(folder: Path, manifest: Manifest, part: int, *, whole: bool = False) -> Part | None:
    """A part that is there, looked at from end to end if `whole`; None for one that is missing or damaged.

    Raises `Conflict` for one that belongs to another manifest.
    """
    path = folder / manifest.name(part)
    if not path.exists():
        return None
    try:
        found = read_part(path, whole=whole)
    except InvalidInput as error:
        logger.warning("%s; it counts as missing", str(error).split(";")[0])
        return None
    ours = found.manifest == manifest.digest and same_model(found.model, manifest.model)
    if not ours or found.rows != len(manifest.span(part)):
        raise Conflict(f"{path} belongs to embeddings of other pictures or options; remove it, or name another folder")
    return found


def read_part(path: Path, *, whole: bool = False) -> Part:
    """What a part says of itself. Raises `InvalidInput` for a file that is none, or where all of it is read damaged."""
    with explained(path, AGAIN), parquet_file(path) as file:
        told, rows = (file.schema_arrow.metadata or {}).get(METADATA, b""), file.metadata.num_rows
        try:
            about = json.loads(told) if len(told) <= TOLD else {}
            if about["format"] != FORMAT or not isinstance(about["manifest"], str):
                raise ValueError("its format is none")
            model = model_identity(about["model"])
            wanted = schema(model.dimension)
            if file.schema_arrow.names != wanted.names or file.schema_arrow.types != wanted.types:
                raise ValueError("its columns are others")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidInput(
                f"{path} is no part of embeddings ({short(ascii(error))}); `steadface embed` writes them into a folder"
            ) from None
        check_size(path, rows, decoded_bytes(file), 0)  # rows may have no embedding
        if whole:
            for _ in file.iter_batches(use_threads=False):
                pass
        return Part(manifest=about["manifest"], model=model, rows=rows, failed=_failed(file))


def _failed(file: "pq.ParquetFile") -> int:
    """How many rows have an error, as the footer counts them."""
    column, failed = file.schema_arrow.names.index("error"), 0  # lists are one column each
    for place in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(place)
        statistics = group.column(column).statistics
        if statistics is None:
            raise ValueError("it does not say how many rows failed")
        failed += group.num_rows - statistics.null_count
    return failed


def schema(dimension: int) -> "pa.Schema":
    import pyarrow as pa

    text, number = pa.string(), pa.float32()
    return pa.schema(
        {
            "file": text,
            "key": text,
            "person": text,
            "embedding": pa.list_(number, dimension),
            "score": number,
            "box": pa.list_(number, 4),
            "error": text,
        }
    )


@contextmanager
def writing(folder: Path, manifest: Manifest, part: int) -> "Iterator[Callable[[pa.Table], None]]":
    """Takes the rows of a part, some at a time; it is there when all went well, and nothing of it otherwise.

    Raises `SteadfaceError` where it cannot be written. Where somebody else has made it meanwhile theirs stays.
    """
    import pyarrow.parquet as pq

    about = {"format": FORMAT, "manifest": manifest.digest, "model": asdict(manifest.model)}
    told = schema(manifest.model.dimension).with_metadata({METADATA: json.dumps(about)})
    name = manifest.name(part)
    try:
        with new_partial(folder, f".{name}.") as (file, partial):
            texts = ["file", "person", "error"]
            with pq.ParquetWriter(
                file, told, compression="zstd", use_dictionary=texts, write_page_checksum=True
            ) as writer:
                yield lambda rows: writer.write_table(rows.cast(told))
            file.flush()
            os.fsync(file.fileno())
            _put(partial, folder / name)
        flush_folder(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _put(partial: Path, path: Path) -> None:
    """In its place, and what others who were killed at the same part have left goes; whoever still works at it finds
    that it is there.
    """
    try:
        partial.replace(path)
    except FileNotFoundError:
        if not path.exists():
            raise
    for left in path.parent.glob(f".{path.name}.*.partial"):
        left.unlink(missing_ok=True)


def _unwritable(folder: Path, error: OSError) -> SteadfaceError:
    kind = Unavailable if error.errno in NO_ROOM else InvalidInput
    return kind(f"cannot write into {folder}: {error.strerror or error}; free some space or choose another folder")


def parts_in(given: Path) -> tuple[Sequence[Path], ModelIdentity]:
    """The parts of a folder, all of which have to be there, in their order; or the one given. And what made them.

    Raises `SteadfaceError` where some are missing, or a part is of another manifest.
    """
    if not given.is_dir():
        if not given.exists():
            raise unreadable(FileNotFoundError(), f"{given} does not exist; name a folder of embeddings, or one part")
        return [given], read_part(given).model
    manifest = read_manifest(given)
    missing = [part for part in range(manifest.parts) if is_there(given, manifest, part) is None]
    if missing:
        raise Conflict(
            f"{len(missing)} of {manifest.parts} parts in {given} are missing (first {manifest.name(missing[0])}); go "
            "on with `steadface embed`, or name single parts"
        )
    return [given / manifest.name(part) for part in range(manifest.parts)], manifest.model
