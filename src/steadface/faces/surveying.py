"""Many photographs, several at a time: what is in each, and which could not be read."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from steadface.data.faces import Image, UnreadableImage
from steadface.faces.alignment import align
from steadface.faces.detection import Detector, Face
from steadface.faces.photograph import read_photograph
from steadface.faces.quality import Quality, assess
from steadface.machine import usable_cores

AHEAD = 4
"""Photographs begun for each worker, so that results that wait for their turn stay few."""

MOST_WORKERS = 8
"""Each may hold a photograph of a gigabyte."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """A photograph of `width` x `height` pixels, upright, and its faces, largest first, with their quality."""

    file: Path
    width: int
    height: int
    faces: tuple[tuple[Face, Quality], ...]

    def to_json(self) -> dict[str, Any]:
        """Coordinates in pixels of the upright photograph."""
        return {
            "file": str(self.file),
            "width": self.width,
            "height": self.height,
            "faces": [{**face_json(face), "quality": quality.to_json()} for face, quality in self.faces],
        }


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A photograph that cannot be read, and why."""

    file: Path
    error: str

    def to_json(self) -> dict[str, Any]:
        return {"file": str(self.file), "error": self.error}


def face_json(face: Face) -> dict[str, Any]:
    """`turned` is by how many degrees the face lies turned clockwise in the photograph: 0, 90, 180 or 270."""
    return {
        "box": [round(side, 2) for side in face.box],
        "landmarks": [[round(float(x), 2), round(float(y), 2)] for x, y in face.landmarks],
        "score": round(face.score, 4),
        "turned": face.turned,
        "unsure": face.unsure,
    }


def survey(
    files: Sequence[Path],
    detector: Detector,
    *,
    then: Callable[[Image, Surveyed], None] = lambda _image, _surveyed: None,
) -> Iterator[Surveyed | Failure]:
    """What is in each of `files`, in their order; `then` is called with the pixels while they are there."""

    def one(file: Path) -> Surveyed | Failure:
        try:
            image = read_photograph(file).pixels
        except UnreadableImage as error:
            return Failure(file=file, error=str(error))
        surveyed = surveyed_image(file, image, detector)
        then(image, surveyed)
        return surveyed

    return several_at_a_time(one, files)


def surveyed_image(file: Path, image: Image, detector: Detector) -> Surveyed:
    found = detector.detect(image)
    judged = tuple((face, assess(image, face, align(image, face.landmarks))) for face in found)
    return Surveyed(file=file, width=image.shape[1], height=image.shape[0], faces=judged)


def several_at_a_time(work: Callable[[T], R], items: Sequence[T], workers: int | None = None) -> Iterator[R]:
    """`work` of each of `items`, in their order. Threads do: decoding, detection and warps let go of the lock.

    The first exception ends it, and what has not begun is not done any more.
    """
    workers = workers or min(MOST_WORKERS, usable_cores())
    with ThreadPoolExecutor(workers) as pool:
        begun = [pool.submit(work, item) for item in items[: AHEAD * workers]]
        begun.reverse()  # next at the end
        try:
            for place in range(len(items)):
                result = begun.pop().result()
                if (later := place + AHEAD * workers) < len(items):
                    begun.insert(0, pool.submit(work, items[later]))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
