"""Photographs on their side, on their head and askew, without EXIF: are faces found, the right way up, and the same?

    python benchmarks/turned_table.py MODEL --photos PHOTOS --detector yunet.onnx [--each 2] [--angle 90 ...]

PHOTOS holds a folder of photographs for each person, of which the first `--each` are taken, and MODEL is calibrated.
Each is turned clockwise, without loss by quarter turns, otherwise in a larger black picture, and its largest face is
compared with that of the photograph as given: *right way up* if its landmarks are turned as the photograph is, within
30 degrees; *like upright* is the median (and 5th percentile) of the cosines. Pairs of the turned photographs are then
matched with each other at the threshold of FMR 1e-3: of strangers, and of one person. Milliseconds are of the
processor, on one thread, and medians.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, degrees
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import Image
from steadface.data.listing import is_image_name
from steadface.faces.photograph import Photograph, read_photograph
from steadface.recognition.answers import SeenFace
from steadface.recognition.face_finder import NoFace
from steadface.recognition.recognizer import Recognizer

FMR = 1e-3
ANGLES = (0, 90, 180, 270, 20, 45, 60, 135, 200, 300)
RIGHT = 30.0
"""Degrees."""


@dataclass(frozen=True, kw_only=True)
class Turned:
    """The photographs at one angle: the largest face of each, None where there is none, and milliseconds of each."""

    faces: list[SeenFace | None]
    milliseconds: list[float]


def turned(image: Image, angle: int) -> Image:
    """By `angle` degrees clockwise, nothing cut off."""
    if angle % 90 == 0:
        return np.ascontiguousarray(np.rot90(image, -angle // 90))
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -angle, 1)
    across, down = np.abs(matrix[:, :2]) @ [width, height]
    matrix[:, 2] += [across / 2 - width / 2, down / 2 - height / 2]
    pixels: Image = cv2.warpAffine(image, matrix, (int(across), int(down)))
    return pixels


def looked(recognizer: Recognizer, photographs: Sequence[Photograph], angle: int) -> Turned:
    faces: list[SeenFace | None] = []
    times = []
    for photograph in photographs:
        given = Photograph(pixels=turned(photograph.pixels, angle), name=photograph.name)
        began = time.process_time()
        try:
            faces.append(recognizer.seeing.face(given))
        except NoFace:
            faces.append(None)
        times.append(1000 * (time.process_time() - began))
    return Turned(faces=faces, milliseconds=times)


def roll(seen: SeenFace) -> float:
    assert seen.face is not None
    left, right, _, mouth_left, mouth_right = seen.face.landmarks.astype(float)
    x, y = mouth_left + mouth_right - left - right
    return degrees(atan2(-x, y))


def row(
    recognizer: Recognizer, now: Turned, upright: Turned, angle: int, people: NDArray[np.str_], limit: float
) -> str:
    there = [place for place, face in enumerate(now.faces) if face is not None and upright.faces[place] is not None]
    pairs = [(face, given) for place in there if (face := now.faces[place]) and (given := upright.faces[place])]
    off = np.array([abs((roll(face) - roll(given) - angle + 180) % 360 - 180) for face, given in pairs])
    vectors = recognizer.embed_faces([face for face, _ in pairs])
    like = (vectors * recognizer.embed_faces([given for _, given in pairs])).sum(1)
    first, second = np.triu_indices(len(there), 1)
    same = people[there][first] == people[there][second]
    matches = (vectors @ vectors.T)[first, second] >= limit
    unsure = sum(getattr(face.face, "unsure", False) for face, _ in pairs)
    genuine = f"{100 * matches[same].mean():.1f}" if same.any() else "-"
    return (
        f"| {angle} | {len(there)} of {len(now.faces)} | {(off <= RIGHT).sum()} | {unsure} | "
        f"{np.median(like):.3f} ({np.percentile(like, 5):.3f}) | {100 * matches[~same].mean():.2f} | {genuine} | "
        f"{np.median(now.milliseconds):.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--each", type=int, default=2, help="photographs of each person")
    parser.add_argument("--angle", type=int, action="append", help="degrees clockwise")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    recognizer = Recognizer.open(options.model, detector=options.detector)
    assert recognizer.contract.thresholds is not None, "calibrate the model first"
    limit = recognizer.contract.thresholds.at(FMR)
    files = [
        file
        for folder in sorted(options.photos.iterdir())
        for file in sorted(one for one in folder.iterdir() if is_image_name(one.name))[: options.each]
    ]
    photographs, people = [read_photograph(file) for file in files], np.array([file.parent.name for file in files])
    upright = looked(recognizer, photographs, 0)
    print(f"threshold {limit:.3f} (FMR {FMR:g})\n")
    print("| turned by | found | right way up | unsure | like upright | strangers match % | genuine match % | ms |")
    print("|---:|" + "---:|" * 7)
    for angle in options.angle or ANGLES:
        now = upright if angle == 0 else looked(recognizer, photographs, angle)
        print(row(recognizer, now, upright, angle, people, limit), flush=True)


if __name__ == "__main__":
    main()
