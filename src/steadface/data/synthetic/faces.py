"""Synthetic faces in memory, and as identity folders on disk."""

import contextlib
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import ArrayFaces
from steadface.data.synthetic.conditions import draw_conditions
from steadface.data.synthetic.identity import draw_identities
from steadface.data.synthetic.render import render
from steadface.errors import Conflict, InvalidInput, Unavailable

Progress = Callable[[int, int], None]
"""Called with the number of images made so far and the number asked for."""

_PIXELS_AT_ONCE = 8 * 112 * 112
"""Batches this large keep the renderer's planes in the processor's cache."""

_PEOPLE_AT_ONCE = 64
_SMALLEST, _LARGEST = 16, 1024


def _quiet(_done: int, _total: int) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class _Request:
    people: int
    images_per_person: int
    size: tuple[int, int]
    seed: int
    first_person: int

    def __post_init__(self) -> None:
        for name, least in (("people", 1), ("images_per_person", 1), ("seed", 0), ("first_person", 0)):
            if getattr(self, name) < least:
                raise InvalidInput(f"{name} is {getattr(self, name)}; give {least} or more")
        if not all(_SMALLEST <= side <= _LARGEST for side in self.size):
            raise InvalidInput(f"size is {self.size}; give (height, width) in pixels, each {_SMALLEST} to {_LARGEST}")

    @property
    def total(self) -> int:
        return self.people * self.images_per_person

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"person_{self.first_person + i:06d}" for i in range(self.people))

    def batches(self) -> Iterator[NDArray[np.uint8]]:
        """The images in order, person by person, in batches of a size that suits the processor."""
        end = self.first_person + self.people
        at_once = max(1, _PIXELS_AT_ONCE // math.prod(self.size))
        for first in range(self.first_person, end, _PEOPLE_AT_ONCE):
            people = range(first, min(first + _PEOPLE_AT_ONCE, end))
            conditions = draw_conditions(self.seed, people, self.images_per_person)
            identities = draw_identities(self.seed, people)
            owners = np.repeat(np.arange(len(people)), self.images_per_person)
            for start in range(0, len(owners), at_once):
                rows = np.arange(start, min(start + at_once, len(owners)))
                yield render(identities.take(owners[rows]), conditions.take(rows), self.size)


def synthetic_faces(
    *,
    people: int,
    images_per_person: int,
    size: tuple[int, int] = (112, 112),
    seed: int = 0,
    first_person: int = 0,
    progress: Progress = _quiet,
) -> ArrayFaces:
    """Aligned faces of invented people, `images_per_person` of each, person by person.

    An identity is the shape and colour of head, eyes, brows, nose, mouth, skin and hair; pose, light,
    expression, background, blur and noise vary from image to image. Eyes, nose and mouth corners lie where
    the usual 112 x 112 alignment puts them, scaled with the height; a narrower `size` = (height, width)
    shows the middle of the square crop. Image j of person i depends on `seed`, i and j only: neither on how many are
    asked for, nor on `first_person`, the number of the first, which draws disjoint sets from one seed.

    Raises `InvalidInput` for a count below 1, a negative seed, or a side outside 16 .. 1024 pixels.
    """
    request = _Request(
        people=people, images_per_person=images_per_person, size=size, seed=seed, first_person=first_person
    )
    images = np.empty((request.total, *size, 3), dtype=np.uint8)
    done = 0
    for batch in request.batches():
        images[done : done + len(batch)] = batch
        done += len(batch)
        progress(done, request.total)
    labels = np.repeat(np.arange(people, dtype=np.int64), images_per_person)
    return ArrayFaces(images, labels, request.names)


def write_synthetic_faces(
    root: str | Path,
    *,
    people: int,
    images_per_person: int,
    size: tuple[int, int] = (112, 112),
    seed: int = 0,
    first_person: int = 0,
    progress: Progress = _quiet,
) -> Path:
    """Write the images of `synthetic_faces` to `root`/person_NNNNNN/NNNN.png; returns `root`.

    The folder appears when it is complete: it is written beside `root` under another name first, which is
    removed when the writing fails or is interrupted.

    Raises `SteadfaceError` as `synthetic_faces` does, and if `root` is a file or a folder that is not empty,
    or cannot be written.
    """
    request = _Request(
        people=people, images_per_person=images_per_person, size=size, seed=seed, first_person=first_person
    )
    root = Path(root).absolute()
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise Conflict(f"{root} is there already and not an empty folder; name another or empty it")
    try:
        with _folder_beside(root) as folder:
            _write(folder, request, progress)
            folder.chmod(0o755)
            folder.replace(root)
    except OSError as error:
        raise Unavailable(f"cannot write {root}: {error}; name a folder with room and write access") from error
    return root


@contextlib.contextmanager
def _folder_beside(root: Path) -> Iterator[Path]:
    root.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, request: _Request, progress: Progress) -> None:
    done, names = 0, request.names
    for batch in request.batches():
        for image in batch:
            person, number = divmod(done, request.images_per_person)
            path = folder / names[person] / f"{number:04d}.png"
            path.parent.mkdir(exist_ok=True)
            encoded, png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            assert encoded, "OpenCV was built without PNG"
            path.write_bytes(png.tobytes())
            done += 1
        progress(done, request.total)
