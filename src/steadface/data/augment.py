"""Augmentation of aligned faces: 8-bit RGB in, 8-bit RGB of the same size out."""

from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import Image
from steadface.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to a training image, each with its own probability, in this order.

    mirror      left and right swapped
    crop        scaled by 1 +- `scale`, shifted by up to `shift` of the side, turned by up to `rotation` degrees
    colour      brightness (added, of the full range), contrast and saturation (factors 1 +- strength)
    grey        all colour removed
    jpeg        stored and read again at a quality between `jpeg_quality`
    occlusion   a rectangle of one colour over a share of the picture between `occlusion_area`

    The defaults are mild: an aligned face is expected at test time. Raises `SteadfaceError` for a probability
    outside [0, 1], a strength outside its range, or bounds in the wrong order.
    """

    mirror: float = 0.5
    crop: float = 0.5
    scale: float = 0.08
    shift: float = 0.04
    rotation: float = 4.0
    colour: float = 0.5
    brightness: float = 0.15
    contrast: float = 0.25
    saturation: float = 0.4
    grey: float = 0.02
    jpeg: float = 0.15
    jpeg_quality: tuple[int, int] = (30, 90)
    occlusion: float = 0.1
    occlusion_area: tuple[float, float] = (0.03, 0.2)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = _BOUNDS.get(field.name, (0.0, 1.0))
            values = value if isinstance(value, tuple) else (value,)
            if not all(low <= part <= high for part in values) or list(values) != sorted(values):
                raise InvalidInput(f"augmentation {field.name} is {value}; give {low:g} to {high:g}")

    def __call__(self, image: Image, generator: np.random.Generator) -> Image:
        """A new (H, W, 3) uint8 picture; depends on `image` and the state of `generator` only."""
        happens = generator.random(6)
        if happens[0] < self.mirror:
            image = image[:, ::-1]
        if happens[1] < self.crop:
            image = self._cropped(np.ascontiguousarray(image), generator)
        if happens[2] < self.colour:
            image = self._coloured(np.ascontiguousarray(image), generator)
        if happens[3] < self.grey:
            image = grey(np.ascontiguousarray(image))
        if happens[4] < self.jpeg:
            quality = int(generator.integers(*self.jpeg_quality, endpoint=True))
            image = through_jpeg(np.ascontiguousarray(image), quality)
        if happens[5] < self.occlusion:
            image = self._occluded(image, generator)
        return np.ascontiguousarray(image)

    def _cropped(self, image: Image, generator: np.random.Generator) -> Image:
        height, width = image.shape[:2]
        scale, turn, right, down = generator.uniform(-1, 1, size=4)
        matrix = cv2.getRotationMatrix2D(
            ((width - 1) / 2, (height - 1) / 2), turn * self.rotation, 1 + scale * self.scale
        )
        matrix[:, 2] += (right * self.shift * width, down * self.shift * height)
        moved: Image = cv2.warpAffine(
            image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        return moved

    def _coloured(self, image: Image, generator: np.random.Generator) -> Image:
        brightness, contrast, saturation = generator.uniform(-1, 1, size=3)
        factor = 1 + saturation * self.saturation
        mixed = cv2.addWeighted(image, factor, grey(image), 1 - factor, 0)
        coloured: Image = cv2.LUT(mixed, _tone_curve(brightness * self.brightness, contrast * self.contrast))
        return coloured

    def _occluded(self, image: Image, generator: np.random.Generator) -> Image:
        height, width = image.shape[:2]
        area = generator.uniform(*self.occlusion_area) * height * width
        aspect = np.exp(generator.uniform(-1, 1) * np.log(2.0))
        tall = min(height, max(1, round(float(np.sqrt(area * aspect)))))
        wide = min(width, max(1, round(float(np.sqrt(area / aspect)))))
        top = int(generator.integers(height - tall, endpoint=True))
        left = int(generator.integers(width - wide, endpoint=True))
        covered = image.copy()
        covered[top : top + tall, left : left + wide] = generator.integers(256, size=3)
        return covered


_BOUNDS = {"rotation": (0.0, 180.0), "jpeg_quality": (1, 100), "scale": (0.0, 0.9)}


def grey(image: Image) -> Image:
    """Luma (ITU-R BT.601) in all three channels."""
    luma: Image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return luma


def through_jpeg(image: Image, quality: int) -> Image:
    """The picture after being stored as JPEG of `quality` 1..100."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: Image = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return decoded


def _tone_curve(brightness: float, contrast: float) -> NDArray[np.uint8]:
    """(256,) table: contrast about the middle of the range, then brightness as a share of it."""
    curve = (np.arange(256) - 127.5) * (1 + contrast) + 127.5 + 255 * brightness
    table: NDArray[np.uint8] = np.clip(np.rint(curve), 0, 255).astype(np.uint8)
    return table
