"""From pixels of an aligned crop to the coordinates of a turned head.

The five landmarks of the turned head are projected and moved to their template places by the least-squares
similarity, as face alignment does; each pixel is then carried back to the frontal face, which undoes the turn
by fixed-point iteration over a smooth depth map.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import TEMPLATE
from steadface.data.synthetic.conditions import Expression, Pose
from steadface.data.synthetic.identity import Identity
from steadface.data.synthetic.parameters import Column
from steadface.data.synthetic.planes import Plane, bump

_TEMPLATE_SIDE = 112
_ITERATIONS = 4


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where the pixels of N images lie on the face.

    `u`, `v` (N, H, W) are frontal face coordinates, `x`, `y` (N, H, W) template pixels, `pixel` (N, 1, 1) the
    size of a pixel in face units, which soft edges are measured by.
    """

    u: Plane
    v: Plane
    x: Plane
    y: Plane
    pixel: Column


def head_depth(identity: Identity, u: Plane, v: Plane) -> Plane:
    """Smooth distance of the face's surface towards the viewer: a paraboloid and the bulk of the nose."""
    head, nose = identity.head, identity.nose
    radius = (u / (1.08 * head.width)) ** 2 + ((v - 0.2) / 1.9) ** 2
    bulk = bump(u, v - 0.8 * nose.length, 0.42, 0.75)
    return head.depth * (1.0 - np.minimum(radius, 1.5)) + 0.7 * nose.height * bulk


def mouth_half_width(identity: Identity, expression: Expression) -> Column:
    """Half the distance of the mouth's corners: a smile widens, an open mouth narrows."""
    return identity.mouth.width * (1.0 + 0.20 * expression.smile) - 0.22 * expression.mouth_open


def corner_lift(identity: Identity, expression: Expression) -> Column:
    """How far the corners of the mouth lie below its centre line (negative: raised by a smile)."""
    return identity.mouth.corners - 0.085 * expression.smile + 0.28 * expression.mouth_open


def landmarks(identity: Identity, expression: Expression) -> tuple[Column, Column]:
    """Frontal (u, v), each (N, 1, 5), of pupils, nose tip and mouth corners, left in the image first."""
    eye, corner = 0.5 * identity.eyes.spacing, mouth_half_width(identity, expression)
    zero = np.zeros_like(eye)
    mouth = identity.mouth.height + corner_lift(identity, expression)
    u = np.concatenate([-eye, eye, zero, -corner, corner], axis=2)
    v = np.concatenate([zero, zero, identity.nose.length, mouth, mouth], axis=2)
    return u, v


def _turned(identity: Identity, pose: Pose, u: Plane, v: Plane) -> tuple[Plane, Plane]:
    depth = head_depth(identity, u, v)
    x = u * np.cos(pose.yaw) + depth * np.sin(pose.yaw)
    towards = depth * np.cos(pose.yaw) - u * np.sin(pose.yaw)
    return x, v * np.cos(pose.pitch) + towards * np.sin(pose.pitch)


def _alignment(
    identity: Identity, pose: Pose, expression: Expression
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Similarity z -> slope z + shift, as complex numbers (N, 1, 1), from the turned face to the template."""
    x, y = _turned(identity, pose, *landmarks(identity, expression))
    points = (x + 1j * y).astype(np.complex64)
    target = (TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1]).astype(np.complex64)
    centre, goal = points.mean(axis=2, keepdims=True), target.mean()
    spread = points - centre
    slope = np.sum(np.conj(spread) * (target - goal), axis=2, keepdims=True)
    slope /= np.sum(np.abs(spread) ** 2, axis=2, keepdims=True)
    slope = slope * pose.zoom * np.exp(1j * pose.roll).astype(np.complex64)
    shift = goal + pose.shift_x + np.complex64(1j) * pose.shift_y - slope * centre
    return slope.astype(np.complex64), shift.astype(np.complex64)


def place_pixels(identity: Identity, pose: Pose, expression: Expression, size: tuple[int, int]) -> Frame:
    """The frame of N images of `size` = (height, width); a narrower image is the middle of the square crop."""
    height, width = size
    step = np.float32(_TEMPLATE_SIDE / height)
    x = ((np.arange(width, dtype=np.float32) - 0.5 * (width - 1)) * step + 55.5)[None, None, :]
    y = ((np.arange(height, dtype=np.float32) - 0.5 * (height - 1)) * step + 55.5)[None, :, None]
    slope, shift = _alignment(identity, pose, expression)
    turned = ((x + np.complex64(1j) * y) - shift) / slope
    u, v = _frontal(identity, pose, turned.real, turned.imag)
    pixel = step / np.abs(slope)
    skewed = v + identity.head.skew * u * np.abs(u)
    return Frame(u=u, v=skewed, x=x + 0.0 * u, y=y + 0.0 * u, pixel=pixel)


def _frontal(identity: Identity, pose: Pose, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """Invert `_turned` by fixed-point iteration; the smooth depth keeps it a contraction."""
    cos_yaw, sin_yaw = np.cos(pose.yaw), np.sin(pose.yaw)
    cos_pitch, sin_pitch = np.cos(pose.pitch), np.sin(pose.pitch)
    u, v = x, y
    for _ in range(_ITERATIONS):
        depth = head_depth(identity, u, v)
        v = (y - (depth * cos_yaw - u * sin_yaw) * sin_pitch) / cos_pitch
        u = (x - depth * sin_yaw) / cos_yaw
    return u, v
