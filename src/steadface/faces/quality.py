"""How fit a face is for recognition, and in words what is wrong with one that is not.

Everything is measured on the aligned face or from its five landmarks, in closed form; no network judges.

Pose, from the face turned level (roll): E is the distance of the eyes in x, H that from between the eyes to the mouth's
middle in y, (x, y) the tip of the nose from between the eyes, and m(y) the x of the line from there to the mouth's
middle. Where an average face has the nose DEPTH eye distances before the plane of the rest,

    yaw    =  atan((x - m(y)) / (E DEPTH))
    pitch  =  atan((y / H - LEVEL) / FLATNESS)

exact for an orthographic view of such a face that turns about one axis; people differ from it by some ten
degrees. Thresholds are lenient: a reason says what would do better, not that recognition will fail.
"""

from dataclasses import asdict, dataclass, replace
from math import atan, degrees
from typing import Any

import cv2
import numpy as np

from steadface.data.faces import TEMPLATE, Image, fit_size
from steadface.faces.alignment import SIDE
from steadface.faces.detection import Face

SMALL = 20.0
"""Pixels between the eyes. The aligned face has 35: below 20, two thirds of its pixels are made up."""
BLURRED = 0.085
"""Sharpness. Of 1,200 photographs of the press 0.3 % are below; blurred by 3 pixels of the aligned face, all are."""
TURNED = 45.0
"""Degrees of yaw: beyond it the far eye goes out of sight, and landmarks with it."""
NODDED = 30.0
"""Degrees of pitch."""
TILTED = 45.0
"""Degrees of roll: beyond it the picture lies, rather than the head."""
DARK, BRIGHT = 35.0, 215.0
"""Mean grey level of the face; skin of any colour in ordinary light lies between 45 and 190."""
FLAT = 12.0
"""Standard deviation of the grey levels; 17 at least in those photographs."""
CLIPPED = 0.25
"""Share of pixels at an end of the range, where there is nothing left to see; 20 % at most in those photographs."""
CUT = 0.15
"""Share of the box that the picture's edge cuts off."""

DEPTH = 0.41
"""By how many eye distances the tip of the nose stands before the plane of eyes and mouth: 26 of 63 mm."""
LEVEL = 0.57
"""Where a level face has the tip of its nose between eyes and mouth: the median of what YuNet sees in photographs."""
EYES, DOWN = 35.24, 40.68
"""Between the eyes, and from there to the mouth's middle, in the template."""
FLATNESS = DEPTH * EYES / DOWN
"""The nose's depth in distances from eyes to mouth."""

FACE = slice(34, 106), slice(20, 92)
"""Rows and columns of the 112 x 112 face from the brows to the chin, without background and hair."""
ENDS = 3, 252
"""Grey levels at or beyond which a pixel is clipped."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """`size` is the distance of the eyes in pixels of the photograph, or what it would be were the face not turned;
    `sharpness` the share of the face's contrast that is fine detail; `yaw`, `pitch`, `roll` degrees (positive: the nose
    to the right of the image, down, the head clockwise); `brightness` and `contrast` mean and standard deviation of the
    grey levels (0..255); `clipped` the share of pixels at their ends; `cut_off` that of the box beyond the picture.
    `reasons` say what is wrong, none if nothing.
    """

    size: float
    sharpness: float
    yaw: float
    pitch: float
    roll: float
    brightness: float
    contrast: float
    clipped: float
    cut_off: float
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        numbers = {name: round(value, 4) for name, value in asdict(self).items() if name != "reasons"}
        return {**numbers, "reasons": list(self.reasons)}


def assess(image: Image, face: Face, aligned: Image) -> Quality:
    """The quality of `face` in the photograph `image`, `aligned` being what `align` made of it, at any size."""
    grey = cv2.cvtColor(fit_size(_square(aligned), (SIDE, SIDE)), cv2.COLOR_RGB2GRAY)[FACE].astype(np.float32)
    yaw, pitch, roll = pose(face)
    left, right, _, mouth_left, mouth_right = face.landmarks.astype(np.float64)
    down = float(np.hypot(*((mouth_left + mouth_right - left - right) / 2)))
    judged = Quality(
        size=max(float(np.hypot(*(right - left))), down * EYES / DOWN),
        sharpness=_sharpness(grey),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        brightness=float(grey.mean()),
        contrast=float(grey.std()),
        clipped=float(np.mean((grey <= ENDS[0]) | (grey >= ENDS[1]))),
        cut_off=_cut_off(face, image.shape[1], image.shape[0]),
    )
    return replace(judged, reasons=(*way_up(face), *reasons(judged)))


def way_up(face: Face) -> tuple[str, ...]:
    """What to know of a face that did not stand upright, or of which it is not certain how it stands."""
    lay = "is upside down" if abs(face.roll) > 180 - TILTED else "lies on its side"
    said = {
        f"the face {lay} ({abs(face.roll):.0f} degrees) and was turned; store the picture upright": (
            abs(face.roll) > TILTED
        ),
        "it is not certain which way up the face is, and so whether it can be recognised; give a clearer picture, "
        "upright": face.unsure,
    }
    return tuple(words for words, holds in said.items() if holds)


def reasons(quality: Quality) -> tuple[str, ...]:
    """What is wrong, for a person to read, with what to do about it."""
    q = quality
    said = {
        f"the face is only {q.size:.0f} pixels between the eyes; come closer or use a larger picture": q.size < SMALL,
        "the face is blurred; hold still, focus, or use a picture that was compressed less": q.sharpness < BLURRED,
        f"the face is turned {abs(q.yaw):.0f} degrees to the side; look at the camera": abs(q.yaw) > TURNED,
        f"the face looks {'down' if q.pitch > 0 else 'up'} by {abs(q.pitch):.0f} degrees; hold the camera at the "
        "height of the eyes": abs(q.pitch) > NODDED,
        f"the face is dark (mean {q.brightness:.0f} of 255); put more light on it": q.brightness < DARK,
        f"the face is too bright (mean {q.brightness:.0f} of 255); take some light off it": q.brightness > BRIGHT,
        "the face has hardly any contrast; light it from the front and clean the lens": q.contrast < FLAT,
        f"{q.clipped:.0%} of the face is plain black or white; soften the light or correct the exposure": (
            q.clipped > CLIPPED
        ),
        f"the picture's edge cuts off {q.cut_off:.0%} of the face; show all of it": q.cut_off > CUT,
    }
    return tuple(reason for reason, holds in said.items() if holds)


def pose(face: Face) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees."""
    p, q = (points.astype(np.float64) @ [1, 1j] for points in (face.landmarks, TEMPLATE))
    turn = np.vdot(q - q.mean(), p - p.mean())  # of the template onto the landmarks
    left, right, nose, mouth_left, mouth_right = p * np.exp(-1j * np.angle(turn))
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    distance, height = _nonzero(right.real - left.real), _nonzero(mouth.imag - eyes.imag)
    down = (nose.imag - eyes.imag) / height
    middle = eyes.real + down * (mouth.real - eyes.real)
    yaw = atan((nose.real - middle) / (distance * DEPTH))
    return degrees(yaw), degrees(atan((down - LEVEL) / FLATNESS)), degrees(float(np.angle(turn)))


def _nonzero(length: float) -> float:
    """Eyes and mouth that swap places belong to a face in profile."""
    return max(float(length), 1e-3)


def _square(aligned: Image) -> Image:
    """The older 112 x 96 crop with its columns back, empty, which lie outside of what is measured."""
    missing = (aligned.shape[0] - aligned.shape[1]) // 2
    return np.pad(aligned, ((0, 0), (missing, missing), (0, 0))) if missing > 0 else aligned


def _sharpness(grey: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    """Standard deviation of the Laplacian of Gaussian (1 pixel, against noise) over that of the picture."""
    fine = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 1.0), cv2.CV_32F)
    return float(fine.std() / max(float(grey.std()), 1.0))


def _cut_off(face: Face, width: int, height: int) -> float:
    left, top, right, bottom = face.box
    seen = max(0.0, min(right, width) - max(left, 0.0)) * max(0.0, min(bottom, height) - max(top, 0.0))
    return 1 - seen / max((right - left) * (bottom - top), 1e-6)
