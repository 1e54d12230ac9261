"""Photographs in, answers out: a recogniser with its gallery, and what is done with many pictures at once."""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import UnreadableImage
from steadface.data.listing import PictureTree, Skips, composed, spellings
from steadface.errors import InvalidInput, NotFound, SteadfaceError
from steadface.evaluation.embedding import Progress
from steadface.files import write_atomically
from steadface.gallery.gallery import Gallery
from steadface.gallery.place import Place
from steadface.gallery.sealing.keys import given_key, read_or_write_key
from steadface.gallery.session import Options, storage_for
from steadface.recognition.face_finder import NoFace
from steadface.recognition.recognizer import Recognizer

BATCH = 64


def picture_files(given: Sequence[Path], skips: Skips) -> list[Path]:
    """The files among `given` as they are, and the pictures below its folders in sorted order, each once.

    `skips` gets what is left out. Raises NotFound for what does not exist and for folders without pictures.
    """
    files: dict[str, Path] = {}
    for path in given:
        if not path.exists():
            raise NotFound(f"{path} does not exist; give photographs or folders of them")
        here = [path / name for name, _ in PictureTree(path, skips).images()] if path.is_dir() else [path]
        if not here:
            raise NotFound("; ".join((f"there are no images in {path}", *skips.messages)))
        for file in here:
            real = os.path.realpath(file)
            if real in files:
                skips.add("pictures that were given already", str(file))
            files.setdefault(real, file)
    return list(files.values())


@contextmanager
def with_gallery(
    recognizer: Recognizer, gallery: Place, key: Path | None, *, create: bool = False, **options: Unpack[Options]
) -> Iterator[Path | None]:
    """Opens the recogniser's gallery; one that is not there is made if `create`, and the file with its key is given.

    Where what follows fails nothing is left of a gallery that was made for it, and that is still as it was made.
    """
    storage = storage_for(gallery, options)
    if not create or storage.exists():
        with Gallery.open(storage, key=key, **options) as opened:
            recognizer.gallery = opened
            yield None
        return
    makes_key = not key.exists() if key is not None else given_key() is None
    its_key = given_key() if key is None else read_or_write_key(key)
    model = recognizer.contract.identity_under(its_key)
    with Gallery.create(storage, model=model, key=its_key, **options) as opened:
        recognizer.gallery = opened
        lies_in = Path(opened.key.source)
        made = opened.info().head
        try:
            yield lies_in
        except BaseException:
            with suppress(SteadfaceError):  # it may be gone already, or somebody else may use it meanwhile
                opened.close()
                storage.destroy(made)
                if makes_key:
                    lies_in.unlink()
            raise


@dataclass(frozen=True, kw_only=True)
class EmbeddedPictures:
    """Of many pictures, the files that were embedded, and why the others were not."""

    files: tuple[str, ...]
    failures: Mapping[str, str]


def embed_pictures(
    recognizer: Recognizer, files: Sequence[Path], out: Path, *, aligned: bool = False, progress: Progress | None = None
) -> EmbeddedPictures:
    """Writes an .npz file with the unit `embeddings` (n, D) of the largest faces of pictures, and their `files` (n,),
    for its owner alone.

    Raises InvalidInput, with nothing written, where none of them could be embedded.
    """
    kept: list[str] = []
    parts: list[NDArray[np.float32]] = []
    failures: dict[str, str] = {}
    for start in range(0, len(files), BATCH):
        faces = []
        for place, file in enumerate(files[start : start + BATCH], start=start + 1):
            try:
                faces.append(recognizer.seeing.face(file, aligned=aligned))
                kept.append(str(file))
            except (UnreadableImage, NoFace) as error:
                failures[str(file)] = str(error)
            if progress is not None:
                progress(place, len(files))
        if faces:
            parts.append(recognizer.embed_faces(faces))
    if not parts:
        first = next(iter(failures.values()))
        raise InvalidInput(f"none of the {len(files)} pictures could be embedded; the first: {first}")
    buffer = io.BytesIO()
    np.savez(buffer, embeddings=np.concatenate(parts), files=np.array(kept))
    write_atomically(out, buffer.getvalue(), private=True)
    return EmbeddedPictures(files=tuple(kept), failures=failures)


def person_folders(images: Path, skips: Skips) -> dict[str, Path]:
    """The person folders in `images` by every spelling of a name, see `spellings`; `skips` gets what is left out."""
    people = PictureTree(images, skips, by_person=True).people()
    return {name: images / folder for name, folder in spellings(people).items()}


def templates_of(
    recognizer: Recognizer,
    names: Sequence[str],
    folders: Mapping[str, Path],
    skips: Skips,
    *,
    aligned: bool = False,
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float32]]:
    """A template (1, D) for each of the people who have a folder of photographs."""
    templates = {}
    for place, name in enumerate(names, start=1):
        if (folder := folders.get(name, folders.get(composed(name)))) is not None:
            templates[name] = recognizer.template(name, picture_files([folder], skips), aligned=aligned)[None]
        if progress is not None:
            progress(place, len(names))
    return templates
