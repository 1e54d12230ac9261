"""Photographs in one folder per person become a folder of aligned faces to train with, of the same people.

A photograph NAME.jpg becomes NAME.png; its further faces, where all are wanted, NAME-face2.png and so on, written
before it: the file that bears the photograph's name says that it is done. What is done already, of the same size and
newer than its photograph, is kept, so that a run that was stopped goes on.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import PIL.Image

from steadface.data.faces import Image, UnreadableImage
from steadface.data.folders import ImageFolder
from steadface.errors import InvalidInput
from steadface.faces.alignment import align, template_for
from steadface.faces.detection import Detector, is_clear
from steadface.faces.photograph import read_photograph
from steadface.faces.surveying import several_at_a_time
from steadface.files import open_file, write_atomically

Wanted = Literal["largest", "all"]
Encoding = Literal["png", "jpg"]

JPEG_QUALITY = 95

State = Literal["aligned", "kept", "no face", "ambiguous", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of the photograph `name` (relative to its root): `faces` files, `others` left out; whether any of
    those faces was `turned` upright, and whether it is `unsure` which way up one is.
    """

    name: str
    state: State
    faces: int = 0
    others: int = 0
    turned: bool = False
    unsure: bool = False
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainingFolder:
    """What became of every photograph; `skipped` says what the listing left out."""

    root: Path
    photographs: tuple[Done, ...]
    skipped: tuple[str, ...]

    def named(self, state: State) -> list[str]:
        return [done.name for done in self.photographs if done.state == state]

    @property
    def faces(self) -> int:
        """How many the folder holds of these photographs, those kept from an earlier run counted as one each."""
        return sum(done.faces for done in self.photographs)

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.root),
            "faces": self.faces,
            "aligned": len(self.named("aligned")),
            "kept": len(self.named("kept")),
            "no_face": self.named("no face"),
            "ambiguous": self.named("ambiguous"),
            "several_faces": [done.name for done in self.photographs if done.others],
            "turned": [done.name for done in self.photographs if done.turned],
            "unsure": [done.name for done in self.photographs if done.unsure],
            "failures": [{"file": one.name, "error": one.error} for one in self.photographs if one.error],
            "skipped": list(self.skipped),
        }


def align_folder(
    photographs: Path,
    out: Path,
    detector: Detector,
    *,
    size: tuple[int, int] = (112, 112),
    wanted: Wanted = "largest",
    encoding: Encoding = "png",
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> TrainingFolder:
    """Aligns the faces of every photograph below `photographs`/PERSON into `out`/PERSON, at `size` (height, width).

    Of `wanted` "largest", a photograph whose two largest faces are about as large is left out as ambiguous. Raises
    SteadfaceError before any work for an impossible size, for folders one inside the other, and where there are no
    photographs; and when `out` cannot be written.
    """
    template_for(size)
    _check_apart(photographs, out)
    listed = ImageFolder(photographs)
    targets = _targets(listed.names, encoding)

    def one(name: str) -> Done:
        target = out / targets[name]
        if _is_done(target, photographs / name, size):
            return Done(name=name, state="kept", faces=1)
        return _aligned(photographs / name, name, target, detector, size, wanted)

    done = []
    for result in several_at_a_time(one, listed.names):
        done.append(result)
        progress(len(done), len(listed.names))
    return TrainingFolder(root=out, photographs=tuple(done), skipped=listed.messages)


def _check_apart(photographs: Path, out: Path) -> None:
    source, target = photographs.resolve(), out.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise InvalidInput(f"{out} and {photographs} lie one inside the other; name a folder of its own")
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"{out} is a file; name a folder for the faces")


def _targets(names: tuple[str, ...], encoding: Encoding) -> dict[str, str]:
    """Where each goes; photographs that differ in nothing but their ending keep it."""
    stems = {name: name.removesuffix(Path(name).suffix) for name in names}
    uses = Counter(stems.values())
    return {name: f"{stem if uses[stem] == 1 else name}.{encoding}" for name, stem in stems.items()}


def _is_done(target: Path, photograph: Path, size: tuple[int, int]) -> bool:
    try:
        if target.stat().st_mtime < photograph.stat().st_mtime:
            return False
        with open_file(target) as file, PIL.Image.open(file, formats=("PNG", "JPEG")) as picture:
            return picture.size == (size[1], size[0])
    except (OSError, PIL.Image.DecompressionBombError):
        return False


def _aligned(
    photograph: Path, name: str, target: Path, detector: Detector, size: tuple[int, int], wanted: Wanted
) -> Done:
    try:
        image = read_photograph(photograph).pixels
    except UnreadableImage as error:
        return Done(name=name, state="unreadable", error=str(error))
    found = detector.detect(image)
    if not found:
        return Done(name=name, state="no face")
    if wanted == "largest" and not is_clear(found):
        return Done(name=name, state="ambiguous", others=len(found))
    taken = found if wanted == "all" else found[:1]
    for number in range(len(taken), 0, -1):  # the one that says it is done comes last
        path = target if number == 1 else target.with_name(f"{target.stem}-face{number}{target.suffix}")
        write_atomically(path, encoded(align(image, taken[number - 1].landmarks, size), path.suffix))
    return Done(
        name=name,
        state="aligned",
        faces=len(taken),
        others=len(found) - len(taken),
        turned=any(face.turned for face in taken),
        unsure=any(face.unsure for face in taken),
    )


def encoded(image: Image, suffix: str) -> bytes:
    """`image` (H, W, 3) RGB as a file of that kind, .png or .jpg; JPEG without colour subsampling."""
    options = (
        []
        if suffix == ".png"
        else [
            cv2.IMWRITE_JPEG_QUALITY,
            JPEG_QUALITY,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ]
    )
    data: np.ndarray[Any, np.dtype[np.uint8]] = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1]
    return data.tobytes()
