"""Natural corruptions in five severities: what a bad camera does, beside which an attack has to be seen.

In the manner of Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019, but graded for aligned faces of 112 x 112 and in physical units:

    severity                                                          1      2      3      4      5
    defocus     radius of the disc of confusion, pixels of 112      1.0    2.0    3.0    4.5    6.0
    motion      length of the path, pixels of 112, any direction      3      5      8     11     15
    noise       electrons that a white pixel collects              1000    250     80     30     12
    jpeg        quality of the codec, chroma at half resolution      50     20     10      6      3
    dark        stops of underexposure (each halves the light)        2      4    5.5    6.5    7.5
    bright      stops of overexposure (each doubles the light)      0.5      1      2   2.75    3.5
    occlusion   share of the picture under a rectangle, per cent      5     10     20     30     45

Severity 1 hardly matters to a recogniser of faces, 5 clearly does. Lengths grow with the height of the picture. Every
corruption is a function of images ``(B, 3, H, W)`` in ``[0, 1]``, a severity 1..5 and a generator, and returns new
images of the same shape and type, in ``[0, 1]``. The same state of the generator gives the same direction, place and
noise at every severity. Raises `InvalidInput` for another severity. None has a gradient to offer.

Light is taken to be the pixel's value to the power `GAMMA`. The sensor counts electrons with the deviation
``sqrt(n + READ_NOISE^2)`` (shot and read noise, both taken as normal) and clips at its full well, which is white.
"""

import math
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.errors import InvalidInput

SIDE = 112
GAMMA = 2.2
READ_NOISE = 2.0  # electrons
FULL_WELL = 4000.0  # electrons of a good sensor at its lowest gain: an underexposed picture uses a part of them

Levels = tuple[float, float, float, float, float]

RADIUS: Levels = (1.0, 2.0, 3.0, 4.5, 6.0)
LENGTH: Levels = (3, 5, 8, 11, 15)
ELECTRONS: Levels = (1000, 250, 80, 30, 12)
QUALITY: Levels = (50, 20, 10, 6, 3)
UNDEREXPOSURE: Levels = (2, 4, 5.5, 6.5, 7.5)
OVEREXPOSURE: Levels = (0.5, 1, 2, 2.75, 3.5)
AREA: Levels = (0.05, 0.1, 0.2, 0.3, 0.45)

SEVERITIES = range(1, 6)


class Corruption(Protocol):
    """Any of the functions below."""

    @property
    def __name__(self) -> str: ...
    def __call__(self, images: Tensor, severity: int, *, generator: torch.Generator) -> Tensor:
        """Corrupted images of the same shape, in ``[0, 1]``."""


def defocus(images: Tensor, severity: int, *, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """The mean over a disc, as an out-of-focus lens sees."""
    radius = _level(RADIUS, severity) * images.shape[-2] / SIDE
    distance = torch.linalg.vector_norm(_offsets(math.ceil(radius), images), dim=0)
    return _filtered(images, (radius + 0.5 - distance).clamp(0, 1).expand(len(images), -1, -1))


def motion(images: Tensor, severity: int, *, generator: torch.Generator) -> Tensor:
    """The mean over a straight path, in a direction of its own for each image."""
    half = (_level(LENGTH, severity) * images.shape[-2] / SIDE - 1) / 2
    angle = torch.pi * _uniform(images, (1, len(images), 1, 1), generator)
    direction = torch.cat([angle.cos(), angle.sin()])  # (2, B, 1, 1)
    offsets = _offsets(max(1, math.ceil(half)), images).unsqueeze(1)
    along = (offsets * direction).sum(0).clamp(-half, half)
    distance = torch.linalg.vector_norm(offsets - along * direction, dim=0)
    return _filtered(images, (1 - distance).clamp(min=0))


def noise(images: Tensor, severity: int, *, generator: torch.Generator) -> Tensor:
    """Little light, made up for by gain: the grain of high ISO settings."""
    return _exposed(images, 0.0, _level(ELECTRONS, severity), generator)


def jpeg(images: Tensor, severity: int, *, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Stored as JPEG and read again."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(_level(QUALITY, severity))]
    pictures = images.mul(255).round().byte().permute(0, 2, 3, 1).flip(3).cpu().numpy()  # BGR
    decoded = np.zeros_like(pictures)
    for row, picture in enumerate(pictures):
        _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(picture), quality)
        decoded[row] = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return torch.from_numpy(decoded).flip(3).permute(0, 3, 1, 2).to(images).div(255).contiguous()


def dark(images: Tensor, severity: int, *, generator: torch.Generator) -> Tensor:
    """Too short an exposure on a good sensor, stored in 8 bits."""
    exposed = _exposed(images, -_level(UNDEREXPOSURE, severity), FULL_WELL, generator)
    return exposed.mul(255).round().div(255)


def bright(images: Tensor, severity: int, *, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Too long an exposure: what is brighter than white is lost."""
    return images.mul(2 ** (_level(OVEREXPOSURE, severity) / GAMMA)).clamp(0, 1)


def occlusion(images: Tensor, severity: int, *, generator: torch.Generator) -> Tensor:
    """A rectangle of one colour somewhere, 1/2 to 2 times as wide as high; with the severity it grows in its place."""
    draws = _uniform(images, (6, len(images), 1, 1), generator)
    covered = torch.ones_like(images[:, 0], dtype=torch.bool)
    aspect = 4 ** (draws[0] - 0.5)
    for axis, side in ((1, aspect.pow(-0.5)), (2, aspect.pow(0.5))):
        share = (side * _level(AREA, severity) ** 0.5).clamp(max=1)
        size = images.shape[axis + 1]
        middle = (torch.arange(size, device=images.device, dtype=images.dtype) + 0.5) / size
        begin = draws[axis] * (1 - share)
        place = middle.view(1, -1, 1) if axis == 1 else middle.view(1, 1, -1)
        covered = covered & (place >= begin) & (place < begin + share)
    colour = draws[3:].transpose(0, 1)  # (B, 3, 1, 1)
    return torch.where(covered.unsqueeze(1), colour, images)


CORRUPTIONS: tuple[Corruption, ...] = (defocus, motion, noise, jpeg, dark, bright, occlusion)


def _level(levels: Levels, severity: int) -> float:
    if severity not in SEVERITIES:
        raise InvalidInput(f"there is no severity {severity} of a corruption; give 1, 2, 3, 4 or 5")
    return levels[severity - 1]


def _exposed(images: Tensor, stops: float, well: float, generator: torch.Generator) -> Tensor:
    """What a sensor of that full well (electrons) records of ``2^stops`` times the light."""
    electrons = images.clamp(0, 1).pow(GAMMA) * 2**stops * well
    normal = torch.randn(images.shape, generator=generator, device=generator.device, dtype=images.dtype)
    counted = electrons + (electrons + READ_NOISE**2).sqrt() * normal.to(images.device)
    return (counted / well).clamp(0, 1).pow(1 / GAMMA)


def _offsets(reach: int, images: Tensor) -> Tensor:
    """``(2, 2 reach + 1, 2 reach + 1)``: columns to the right and rows down from the middle."""
    line = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    down, right = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([right, down])


def _filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Each image averaged with its own weights ``(B, K, K)``; beyond its edge it goes on as at the edge."""
    count, channels, height, width = images.shape
    if not count:
        return images.clone()
    reach = kernels.shape[-1] // 2
    weights = kernels / kernels.sum((1, 2), keepdim=True)
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate").flatten(0, 1).unsqueeze(0)
    each = weights.repeat_interleave(channels, 0).unsqueeze(1)
    averaged = F.conv2d(padded, each, groups=count * channels).view(count, channels, height, width)
    return averaged.clamp(0, 1)


def _uniform(images: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device, dtype=images.dtype).to(images.device)
