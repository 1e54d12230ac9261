"""A face brought to the ArcFace template by a similarity.

Deng et al., "ArcFace", CVPR 2019, section 3.1, align faces as InsightFace does: the least-squares similarity (Umeyama,
"Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, eq. 40 to 43) that takes
five landmarks to a fixed template, then a bilinear warp with a black border.

In the plane, with points as complex numbers p (landmarks) and q (template), both less their means, the best rotation
and scale without reflection is one complex factor,

    a = sum conj(p) q / sum |p|^2

which is what Umeyama's SVD gives wherever its rotation is proper, as the sign in its eq. 43 makes it.

Departure from InsightFace: a face much larger than the template is first shrunk by area, since a bilinear warp that
takes every tenth pixel shows noise in place of a face.
"""

from math import floor
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import OLDER_CROP_MARGIN, TEMPLATE, Image
from steadface.errors import InvalidInput

SIDE = 112
LARGEST = 4096
"""Pixels of a side of an aligned face; more is a slip."""


def align(image: Image, landmarks: NDArray[np.floating], size: tuple[int, int] = (SIDE, SIDE)) -> Image:
    """The face of `landmarks` (5, 2) in `image` (H, W, 3), upright at `size` = (height, width).

    Raises InvalidInput for landmarks that give no similarity, and for a size that the template does not fit.
    """
    return warped(image, similarity(landmarks, template_for(size)), size)


def warped(image: Image, matrix: NDArray[np.float64], size: tuple[int, int]) -> Image:
    """`image` where the similarity `matrix` (2, 3) takes it, at `size` = (height, width); black outside of it."""
    factor = floor(1 / float(np.hypot(*matrix[:, 0])))
    if factor >= 2:
        image, matrix = _shrunk(*_around(image, matrix, size, factor), factor)
    height, width = size
    return cast(Image, cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0)))


def template_for(size: tuple[int, int]) -> NDArray[np.float64]:
    """The template (5, 2) at `size` = (height, width): scaled for squares, less 8 of 112 columns on either side for
    the older 112 x 96 crop and its multiples.
    """
    height, width = size
    if not (0 < height <= LARGEST and 0 < width <= LARGEST):
        raise InvalidInput(f"aligned faces of {height} x {width} are out of range; give 1 to {LARGEST} pixels a side")
    scale = height / SIDE
    margin = OLDER_CROP_MARGIN if width * SIDE == height * (SIDE - 2 * OLDER_CROP_MARGIN) else 0
    if width != height and not margin:
        raise InvalidInput(
            f"aligned faces of {height} x {width} (height x width) have no template; give a square or 112x96"
        )
    # About the middle of the outer edges, as every resize does: pixel 0 is half a pixel from the edge.
    scaled: NDArray[np.float64] = (TEMPLATE - [margin, 0] + 0.5) * scale - 0.5
    return scaled


def similarity(source: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """(2, 3), which takes `source` (N, 2) to `target` (N, 2) with the least squared error by rotation, scale and shift.

    Raises InvalidInput where the points are not finite, coincide, or allow no rotation better than another.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
        raise InvalidInput(f"landmarks of shape {source.shape}; give {target.shape}: x and y of each")
    if not np.isfinite(source).all():
        raise InvalidInput("landmarks that are not finite; detect the face again")
    p, q = (points.astype(np.float64) @ [1, 1j] for points in (source, target))
    centre, goal = p.mean(), q.mean()
    p, q = p - centre, q - goal
    spread = np.vdot(p, p).real
    product = np.vdot(p, q)  # conjugates the first
    # Of points at 1e4 pixels float32 keeps 1e-3: what lies closer together than that is one point.
    if spread < 1e-6 * max(1.0, abs(centre)) or abs(product) < 1e-6 * np.sqrt(spread) * np.linalg.norm(q):
        raise InvalidInput("landmarks that coincide or are in no order of a face; detect the face again")
    a = product / spread
    shift = goal - a * centre
    return np.array([[a.real, -a.imag, shift.real], [a.imag, a.real, shift.imag]])


def _around(
    image: Image, matrix: NDArray[np.float64], size: tuple[int, int], factor: int
) -> tuple[Image, NDArray[np.float64]]:
    """What of the picture the warp reads, with room for shrinking by `factor`; and the matrix that takes it there."""
    corners = np.array([[0, 0], [size[1], 0], [0, size[0]], [size[1], size[0]]]) - matrix[:, 2]
    read = corners @ np.linalg.inv(matrix[:, :2]).T
    limits = np.array(image.shape[1::-1])
    left, top = np.clip(np.floor(read.min(0)) - 2 * factor, 0, limits - 1).astype(int)
    right, bottom = np.clip(np.ceil(read.max(0)) + 2 * factor, [left + 1, top + 1], limits).astype(int)
    there = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])
    return image[top:bottom, left:right], matrix @ there


def _shrunk(image: Image, matrix: NDArray[np.float64], factor: int) -> tuple[Image, NDArray[np.float64]]:
    """The picture by area at 1/`factor`, and the matrix that takes it where `matrix` took the whole one."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (max(1, width // factor), max(1, height // factor)), interpolation=cv2.INTER_AREA)
    x, y = width / small.shape[1], height / small.shape[0]
    back = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    return small, matrix @ back
