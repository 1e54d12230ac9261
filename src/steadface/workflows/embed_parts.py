"""Embeddings of any number of pictures, part by part (`steadface.gallery.embeddings`): by one process or by many, on
one machine or on many that share the folder, today and tomorrow.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from steadface.arguments import count
from steadface.data.faces import FaceSource, UnreadableImage, as_text
from steadface.data.folders import FaceFiles, is_unlabelled, open_faces, open_unlabelled
from steadface.data.recordio import RecordFile
from steadface.data.tarfaces import TarFaces
from steadface.errors import Conflict, InvalidInput, Unavailable
from steadface.evaluation.embedding import ahead
from steadface.faces.detector_files import find_detector
from steadface.faces.photograph import read_photograph
from steadface.files import sha256_of
from steadface.gallery.embeddings import (
    LARGEST_PART,
    MANIFEST,
    MOST_PARTS,
    PART_SIZE,
    Manifest,
    is_there,
    read_manifest,
    schema,
    settled,
    writing,
)
from steadface.recognition.answers import SeenFace
from steadface.recognition.recognizer import Recognizer
from steadface.recognizers.embedder import Backend

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 64
ROWS = 2**12
"""Written at a time: 8 MB of 512 numbers each."""


class Options(TypedDict, total=False):
    """How the model is opened, as `Recognizer.open` has it."""

    output: str | None
    contract: Path | None
    mirror: bool | None
    backend: Backend
    compile: bool
    device: str


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What is embedded, in the order of its listing, and whether it is known who is shown."""

    faces: FaceFiles | RecordFile | TarFaces
    labelled: bool

    @property
    def messages(self) -> Sequence[str]:
        """What was left out of the listing, in words."""
        found: Sequence[str] = getattr(self.faces, "messages", ())
        return found


def open_pictures(given: Sequence[Path], *, unlabelled: bool = False) -> Pictures:
    """A folder of pictures, a `.rec` or tar shards, one path of any, or the paths of several shards.

    Who is shown is known as trainings know it (`open_faces`); where a folder has no folders in it, or it is not asked
    for, every picture counts, whoever it shows. Raises `SteadfaceError` where there are none.
    """
    if len(given) > 1 and all(path.suffix == ".tar" and path.is_file() for path in given):
        where = Path(f"{given[0]} and {len(given) - 1} more")
        return Pictures(faces=TarFaces(given, where, labelled=not unlabelled), labelled=not unlabelled)
    if len(given) != 1:
        raise InvalidInput(f"{len(given)} paths are given to embed in parts; give one folder, .rec, or tar shards")
    path = given[0]
    if is_unlabelled(path) or (unlabelled and (path.is_dir() or path.suffix == ".tar") and not any(path.glob("*.rec"))):
        return Pictures(faces=_in_files(open_unlabelled(path)), labelled=False)
    try:
        return Pictures(faces=_in_files(open_faces(path)), labelled=not unlabelled)
    except InvalidInput as error:
        raise InvalidInput(f"{error} (or --unlabelled, for every picture, whoever it shows)") from None


def _in_files(faces: FaceSource) -> FaceFiles | RecordFile | TarFaces:
    assert isinstance(faces, FaceFiles | RecordFile | TarFaces)  # whatever a path opens as is
    return faces


@dataclass(frozen=True, kw_only=True)
class Found:
    """Which of some parts are there and which are missing; of `images` in those that are there, `failed` have none."""

    there: tuple[int, ...]
    missing: tuple[int, ...]
    images: int
    failed: int


class EmbeddingJob:
    """A listing, a model and a folder that belong together by its manifest; made by `open_job`."""

    def __init__(
        self, recognizer: Recognizer, pictures: Pictures, folder: Path, manifest: Manifest, *, threads: int
    ) -> None:
        self.recognizer, self.pictures, self.folder, self.manifest = recognizer, pictures, folder, manifest
        self._threads = threads
        if manifest.detector is not None:
            _ = recognizer.seeing.detector  # opened once, before any work

    def found(self, parts: Sequence[int], *, whole: bool = False) -> Found:
        """Raises `Conflict` for a part that belongs to other pictures or options."""
        looks = {part: is_there(self.folder, self.manifest, part, whole=whole) for part in parts}
        there = [one for one in looks.values() if one is not None]
        return Found(
            there=tuple(part for part, one in looks.items() if one is not None),
            missing=tuple(part for part, one in looks.items() if one is None),
            images=sum(one.rows for one in there),
            failed=sum(one.failed for one in there),
        )

    def embed(self, part: int, *, progress: Callable[[int], None] | None = None) -> None:
        """Makes one part, unless it is there; `progress` hears how many pictures more are done.

        Raises `Unavailable`, and leaves nothing of it, where pictures cannot be read one after the other.
        """
        if is_there(self.folder, self.manifest, part) is not None:
            return
        with writing(self.folder, self.manifest, part) as write:
            batches = self._batches(self.manifest.span(part), progress)
            while rows := list(islice(batches, ROWS // BATCH)):
                write(self._table([row for batch in rows for row in batch]))

    def _batches(self, span: range, progress: Callable[[int], None] | None) -> "Iterator[list[dict[str, Any]]]":
        places = [span[start : start + BATCH] for start in range(0, len(span), BATCH)]
        for batch, seen in zip(places, ahead(self._seen, places, self._threads), strict=True):
            faces = [face for face in seen if isinstance(face, SeenFace)]
            vectors = iter(self._vectors(faces))
            yield [
                self._row(place, face, next(vectors) if isinstance(face, SeenFace) else face)
                for place, face in zip(batch, seen, strict=True)
            ]
            if progress is not None:
                progress(len(batch))

    def _seen(self, batch: range) -> list[SeenFace | str]:
        """The face of each picture, or why there is none."""
        seen, lost = list[SeenFace | str](), 0
        for place in batch:
            try:
                encoded = self.pictures.faces.read_encoded(place)
            except UnreadableImage as error:
                lost += 1
                seen.append(str(error))
                continue
            try:
                photograph = read_photograph(encoded, name=self.pictures.faces.name(place))
                seen.append(self.recognizer.seeing.face(photograph, aligned=self.manifest.detector is None))
            except InvalidInput as error:  # unreadable, or without a face
                seen.append(str(error))
        if lost == len(batch) > 1:
            raise Unavailable(
                f"none of {lost} pictures in a row can be read, so the disk seems not to be there ({seen[0]}); the "
                "part is not written: run the same again"
            )
        return seen

    def _vectors(self, faces: Sequence[SeenFace]) -> list[NDArray[np.float32] | str]:
        """Of each face the embedding, or why the model has none for it. Raises InvalidInput where it has for none."""
        if not faces:
            return []
        try:
            return list(self.recognizer.embed_faces(faces))
        except InvalidInput:
            alone = [self._vector(face) for face in faces]
            if all(isinstance(one, str) for one in alone) or not any(isinstance(one, str) for one in alone):
                raise
            return alone

    def _vector(self, face: SeenFace) -> NDArray[np.float32] | str:
        try:
            alone: NDArray[np.float32] = self.recognizer.embed_faces([face])[0]
            return alone
        except InvalidInput as error:
            return str(error)

    def _row(self, place: int, face: SeenFace | str, vector: NDArray[np.float32] | str) -> dict[str, Any]:
        faces = self.pictures.faces
        file, key = faces.place(place)
        found = face.face if isinstance(face, SeenFace) else None
        return {
            "file": file,
            "key": key,
            "person": as_text(faces.people[faces.labels[place]]) if self.pictures.labelled else None,
            "embedding": None if isinstance(vector, str) else vector,
            "score": None if found is None else found.score,
            "box": None if found is None else np.asarray(found.box, dtype=np.float32),
            "error": as_text(vector) if isinstance(vector, str) else None,
        }

    def _table(self, rows: Sequence[dict[str, Any]]) -> "pa.Table":
        import pyarrow as pa

        kinds = schema(self.manifest.model.dimension)

        def column(kind: Any) -> Any:
            values = [row[kind.name] for row in rows]
            if kind.name in ("embedding", "box"):
                return _numbers(values, kind.type.list_size)
            return pa.array(values, kind.type)

        return pa.table([column(kind) for kind in kinds], schema=kinds)


def _numbers(values: Sequence[NDArray[np.float32] | None], width: int) -> "pa.Array":
    import pyarrow as pa

    nothing = np.zeros(width, dtype=np.float32)
    flat = np.concatenate([nothing if one is None else one for one in values])
    absent = pa.array([one is None for one in values], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), width, mask=absent)


def open_job(
    given: Sequence[Path],
    model: str,
    folder: Path,
    *,
    aligned: bool = False,
    detector: Path | None = None,
    unlabelled: bool = False,
    part_size: int | None = None,
    threads: int = 1,
    new: bool = True,
    **options: Unpack[Options],
) -> EmbeddingJob:
    """Lists the pictures, opens the model, and makes `folder` that of this work, where it is `new` to it.

    `part_size` is that of the folder, or 16,384 in a new one. Raises `Conflict` where the folder is of other pictures,
    another model or detector, or another part size, and `SteadfaceError` where anything cannot be opened.
    """
    count("threads", threads)
    if part_size is not None and not 1 <= part_size <= LARGEST_PART:
        raise InvalidInput(f"--part-size {part_size} is out of range; give 1 to {LARGEST_PART}")
    there = read_manifest(folder) if (folder / MANIFEST).exists() or not new else None
    own = (".", MANIFEST, "part-")  # of another that has just begun, say
    if there is None and folder.is_dir() and not all(one.name.startswith(own) for one in folder.iterdir()):
        raise Conflict(f"{folder} holds other files; name a new folder for embeddings")
    recognizer = Recognizer.open(model, detector=detector, **options)
    found = None if aligned else find_detector(detector)
    pictures = open_pictures(given, unlabelled=unlabelled)
    manifest = Manifest(
        data=pictures.faces.fingerprint(),
        images=len(pictures.faces),
        labelled=pictures.labelled,
        part_size=part_size or (PART_SIZE if there is None else there.part_size),
        model=recognizer.contract.identity,
        detector=None if found is None else sha256_of(found),
    )
    if manifest.parts > MOST_PARTS:
        raise InvalidInput(
            f"--part-size {manifest.part_size} makes {manifest.parts:,} parts of {manifest.images:,} pictures, and a "
            f"folder has at most {MOST_PARTS:,}; give a larger one"
        )
    manifest = settled(folder, manifest)
    return EmbeddingJob(recognizer, pictures, folder, manifest, threads=threads)
