"""Arithmetic on planes (N, H, W): soft edges, bumps, noise, and the canvas that the layers are painted on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadface.data.synthetic.parameters import Colour, Column

Plane = NDArray[Any]
"""(N, H, W) float32, or anything that broadcasts to it."""


def cover(distance: Plane, softness: Plane | float) -> Plane:
    """1 where `distance` is negative (inside), 0 where positive, linear over `softness` around the edge."""
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


def smooth(distance: Plane, softness: Plane | float) -> Plane:
    """`cover` with an S-shaped edge (smoothstep), for the edges of shadows and tones."""
    edge = cover(distance, softness)
    return edge * edge * (3.0 - 2.0 * edge)


def bump(u: Plane | float, v: Plane | float, width: Plane | float, height: Plane | float) -> Plane:
    """Smooth hill (1 - r^2)^2 of compact elliptical support, 1 at the origin, 0 from `width`, `height` on."""
    hill = np.maximum(1.0 - (u / width) ** 2 - (v / height) ** 2, 0.0)
    return hill * hill


def lattice_noise(x: Plane, y: Plane, salt: Column) -> Plane:
    """Value noise in [0, 1) with cells of size 1: hashed lattice values, interpolated smoothly."""
    left, top = np.floor(x), np.floor(y)
    fx, fy = x - left, y - top
    fx, fy = fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy)
    column = left.astype(np.int32).view(np.uint32) * np.uint32(0x9E3779B1)
    row = top.astype(np.int32).view(np.uint32) * np.uint32(0x85EBCA77) + salt.astype(np.uint32) * np.uint32(0xC2B2AE3D)
    next_column, next_row = column + np.uint32(0x9E3779B1), row + np.uint32(0x85EBCA77)
    upper = _hashed(column ^ row)
    upper += fx * (_hashed(next_column ^ row) - upper)
    lower = _hashed(column ^ next_row)
    lower += fx * (_hashed(next_column ^ next_row) - lower)
    upper += fy * (lower - upper)
    return upper


def _hashed(key: NDArray[np.uint32]) -> Plane:
    key = key ^ (key >> np.uint32(15))
    key *= np.uint32(0x2C1B3C6D)
    key ^= key >> np.uint32(12)
    key *= np.uint32(0x297A2D39)
    return (key >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def white_noise(shape: tuple[int, int, int], salt: Column) -> Plane:
    """(N, H, W) independent triangular noise of mean 0 and standard deviation 1; a function of `salt` only."""
    _, height, width = shape
    pixel = np.arange(height * width, dtype=np.uint32).reshape(1, height, width) * np.uint32(0x9E3779B1)
    key = pixel ^ (salt.astype(np.uint32) * np.uint32(0xC2B2AE3D) + np.uint32(0x165667B1))
    return (_hashed(key) - _hashed(key ^ np.uint32(0x5BD1E995))) * np.float32(6.0**0.5)


_LOWEST = 0.02


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """What has been painted so far: `albedo` (N, 3, H, W) linear light, `height` and `gloss` (N, H, W)."""

    albedo: Colour
    height: Plane
    gloss: Plane

    def paint(self, colour: Colour, opacity: Plane) -> None:
        """Lay `colour` over the albedo, where `opacity` in [0, 1] says."""
        albedo = self.albedo
        albedo += opacity[:, None] * (colour - albedo)

    def shade(self, opacity: Plane, strength: Plane | float) -> None:
        """Darken the albedo by the factor 1 - `strength` where `opacity` says (shadows, creases)."""
        albedo = self.albedo
        albedo *= (1.0 - strength * opacity)[:, None]

    def model(self, height: Plane, opacity: Plane) -> None:
        """Replace the relief by `height`, where `opacity` says; it stays above the background's, which is 0."""
        relief = self.height
        relief += opacity * (np.maximum(height, _LOWEST) - relief)

    def polish(self, gloss: Plane | float, opacity: Plane) -> None:
        """Replace the gloss, where `opacity` says."""
        surface = self.gloss
        surface += opacity * (gloss - surface)
