"""How many faces are found in photographs, as they are and made hard, and what that takes.

    .venv/bin/python benchmarks/detection_table.py PHOTOS --detector FILE [--json OUT.json] [--every N]

PHOTOS is a folder with one main face in each photograph. Its place is taken from the photograph as given, by the same
detector: the largest face. A derived case finds it if all five landmarks of some face are within a third of the eyes'
distance of where they then must be. So "as given" counts photographs with any face at all, and the others say what
a change of size, surroundings or turn costs. Milliseconds are of the processor, on one thread, and medians.
"""

import argparse
import io
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from steadface.data.faces import Image
from steadface.data.listing import is_image_name
from steadface.faces.alignment import align
from steadface.faces.detection import Detector, Face
from steadface.faces.detector_files import open_detector
from steadface.faces.photograph import ORIENTATION, read_photograph
from steadface.faces.quality import assess

NEAR = 1 / 3
"""Of the eyes' distance."""
JPEG = 95


@dataclass(frozen=True, kw_only=True)
class Hard:
    """A photograph made hard: its file, and where its main face's landmarks (5, 2) are in the upright picture."""

    data: bytes
    landmarks: NDArray[np.float64]


Make = Callable[[Image, Face], Hard | None]
"""None where a photograph does not allow it, e.g. is smaller already."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Of one case: photographs, how many in which the main face was found, faces in all, and milliseconds each."""

    case: str
    photographs: int
    found: int
    faces: int
    decode: float
    detect: float
    align: float


def as_given(image: Image, face: Face) -> Hard:
    return _hard(image, face.landmarks)


def cropped(share: float) -> Make:
    """To a square of which the face takes that share, as far as the photograph has it."""

    def make(image: Image, face: Face) -> Hard:
        half = face.size / share / 2
        left, top = (max(0, round(middle - half)) for middle in face.centre)
        right, bottom = (round(middle + half) for middle in face.centre)
        return _hard(image[top:bottom, left:right], face.landmarks - np.array([left, top]))

    return make


def with_longer_side(side: int) -> Make:
    def make(image: Image, face: Face) -> Hard:
        return _scaled(image, face, side / max(image.shape[:2]))

    return make


def with_a_face_of(pixels: int) -> Make:
    def make(image: Image, face: Face) -> Hard | None:
        return _scaled(image, face, pixels / face.size) if face.size > pixels else None

    return make


def within(width: int, height: int, pixels: int) -> Make:
    """As a small print on a large grey wall, the face `pixels` high."""

    def make(image: Image, face: Face) -> Hard:
        scale = pixels / face.size
        small = _resized(image, scale)[:height, :width]
        wall = np.full((height, width, 3), 120, np.uint8)
        top, left = (height - small.shape[0]) // 3, 2 * (width - small.shape[1]) // 3
        wall[top : top + small.shape[0], left : left + small.shape[1]] = small
        return _hard(wall, (face.landmarks + 0.5) * scale - 0.5 + np.array([left, top]))

    return make


def lying(image: Image, face: Face) -> Hard:
    """Stored as a camera held upright does: on its side, with the EXIF tag that says so."""
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 6
    return _hard(np.rot90(image), face.landmarks, exif=exif)


def turned(degrees: float) -> Make:
    """About the face, without a tag."""

    def make(image: Image, face: Face) -> Hard:
        matrix = cv2.getRotationMatrix2D(face.centre, degrees, 1.0)
        pixels = cv2.warpAffine(image, matrix, (image.shape[1], image.shape[0]))
        return _hard(pixels, face.landmarks @ matrix[:, :2].T + matrix[:, 2])

    return make


CASES: dict[str, Make] = {
    "as given": as_given,
    "face 50 % of the picture": cropped(0.5),
    "face 70 %": cropped(0.7),
    "face 90 %": cropped(0.9),
    "face 100 %": cropped(1.0),
    "enlarged to 4000 pixels": with_longer_side(4000),
    "face of 64 pixels": with_a_face_of(64),
    "face of 40 pixels": with_a_face_of(40),
    "face of 28 pixels": with_a_face_of(28),
    "face of 48 in 4000 x 3000": within(4000, 3000, 48),
    "face of 100 in 8000 x 6000": within(8000, 6000, 100),
    "on its side, EXIF": lying,
    "turned by 20 degrees": turned(20),
    "turned by 40 degrees": turned(40),
}
LARGE = {"enlarged to 4000 pixels", "face of 48 in 4000 x 3000", "face of 100 in 8000 x 6000"}
"""Cases of a tenth of the photographs: their files take a second each to write."""


def measured(case: str, hard: Sequence[Hard] | Iterator[Hard], detector: Detector) -> Row:
    found, faces, times = 0, [], []
    for one in hard:
        start = time.process_time()
        image = read_photograph(one.data).pixels
        decoded = time.process_time()
        seen = detector.detect(image)
        detected = time.process_time()
        for face in seen:
            assess(image, face, align(image, face.landmarks))
        times.append((decoded - start, detected - decoded, time.process_time() - detected))
        faces.append(len(seen))
        found += any(_is_near(face, one.landmarks) for face in seen)
    decode, detect, aligned = 1000 * np.median(times, axis=0)
    return Row(
        case=case,
        photographs=len(faces),
        found=found,
        faces=sum(faces),
        decode=float(decode),
        detect=float(detect),
        align=float(aligned),
    )


def _is_near(face: Face, landmarks: NDArray[np.float64]) -> bool:
    eyes = np.hypot(*(landmarks[1] - landmarks[0]))
    down = np.hypot(*(landmarks[3] - landmarks[0]))  # of a face in profile the eyes meet
    return bool(np.abs(face.landmarks - landmarks).max() < NEAR * max(eyes, 0.8 * down))


def _scaled(image: Image, face: Face, scale: float) -> Hard:
    return _hard(_resized(image, scale), (face.landmarks + 0.5) * scale - 0.5)


def _resized(image: Image, scale: float) -> Image:
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    pixels: Image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation)
    return pixels


def _hard(pixels: Image, landmarks: NDArray[np.floating], *, exif: PIL.Image.Exif | None = None) -> Hard:
    stream = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "JPEG", quality=JPEG, exif=exif or PIL.Image.Exif())
    return Hard(data=stream.getvalue(), landmarks=landmarks.astype(np.float64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take every so many photographs")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    detector = open_detector(options.detector)
    files = sorted(path for path in options.photos.rglob("*") if is_image_name(path.name))[:: options.every]
    main_faces = []
    for file in files:
        image = read_photograph(file).pixels
        if seen := detector.detect(image):
            main_faces.append((image, seen[0]))
    rows = []
    for case, make in CASES.items():
        taken = main_faces[::10] if case in LARGE else main_faces
        rows.append(measured(case, (hard for pair in taken if (hard := make(*pair)) is not None), detector))
        print(case, file=sys.stderr)
    table = Table("case", "photographs", "found", "%", "faces", "decode ms", "detect ms", "align, assess ms")
    for row in rows:
        share = f"{100 * row.found / row.photographs:.1f}"
        numbers = (f"{value:.1f}" for value in (row.decode, row.detect, row.align))
        table.add_row(row.case, str(row.photographs), str(row.found), share, str(row.faces), *numbers)
    command = shlex.join(["benchmarks/detection_table.py", *sys.argv[1:]])
    console = Console(width=130)
    console.print(f"a face in {len(main_faces)} of {len(files)} photographs; OpenCV {cv2.__version__}; {command}")
    console.print(table)
    if options.json is not None:
        found = {
            "command": command,
            "opencv": cv2.__version__,
            "photographs": len(files),
            "with_a_face": len(main_faces),
            "cases": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
