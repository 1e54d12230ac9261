"""From the painted canvas to pixels: light, blur, exposure and noise."""

import numpy as np
from numpy.typing import NDArray

from steadface.data.synthetic.conditions import Camera, Light
from steadface.data.synthetic.parameters import Column
from steadface.data.synthetic.planes import Canvas, Plane, white_noise

_TAPS = 3
"""Half the length of the blur's kernel; the kernel is cut there."""

_STEEPEST = 1.6
"""Largest slope of the relief that is lit: the step from head to background is an edge, not a surface."""


def light(canvas: Canvas, source: Light, step: Column, subject: Plane) -> NDArray[np.float32]:
    """Linear light (N, 3, H, W): Lambert's law and a highlight on the subject; the background is left unlit.

    `step` is the size of a pixel in units of the relief, `subject` the opacity of what is lit.
    """
    right, down, front = _normals(canvas.height, step)
    lambert = right * source.right + down * source.down + front * source.front
    wrapped = np.maximum((lambert + 0.25) / 1.25, 0.0)
    half = np.sqrt(2.0 + 2.0 * source.front)
    shine = np.maximum((right * source.right + down * source.down + front * (1.0 + source.front)) / half, 0.0)
    shine = shine**2
    shine = ((shine**2) ** 2) ** 2 * front * front
    ambient = source.ambient * (0.65 + 0.35 * front - 0.15 * down)
    lit = canvas.albedo * (
        source.lamp[..., None] * source.tint * wrapped[:, None] + source.ambient_tint * ambient[:, None]
    )
    lit += (0.32 * source.lamp * canvas.gloss * shine)[:, None] * source.tint
    scene: NDArray[np.float32] = canvas.albedo * np.float32(0.8)
    scene += subject[:, None] * (lit - scene)
    return scene


def _normals(height: Plane, step: Column) -> tuple[Plane, Plane, Plane]:
    padded = np.pad(height, ((0, 0), (1, 1), (1, 1)), mode="edge")
    slope_u = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / (2.0 * step)
    slope_v = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / (2.0 * step)
    slope_u, slope_v = np.clip(slope_u, -_STEEPEST, _STEEPEST), np.clip(slope_v, -_STEEPEST, _STEEPEST)
    front = 1.0 / np.sqrt(1.0 + slope_u * slope_u + slope_v * slope_v)
    return -slope_u * front, -slope_v * front, front


def _blur(image: NDArray[np.float32], deviation: Column) -> NDArray[np.float32]:
    """Separable Gaussian blur, its deviation (in pixels) one per image."""
    offsets = np.arange(-_TAPS, _TAPS + 1, dtype=np.float32)
    kernel = np.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = (kernel / kernel.sum(axis=2, keepdims=True))[:, 0, :, None, None, None]
    for axis in (2, 3):
        margin = [(0, 0)] * 4
        margin[axis] = (_TAPS, _TAPS)
        padded, length = np.pad(image, margin, mode="edge"), image.shape[axis]
        shifted = (padded.take(range(k, k + length), axis=axis) for k in range(2 * _TAPS + 1))
        image = np.sum([kernel[:, k] * part for k, part in enumerate(shifted)], axis=0)
    return image


def expose(linear: NDArray[np.float32], camera: Camera, step: float) -> NDArray[np.uint8]:
    """Pixels (N, H, W, 3) uint8 of linear light (N, 3, H, W); `step` is a pixel's size in template pixels."""
    image = _blur(linear * camera.exposure[..., None], np.maximum(camera.blur / step, 0.2))
    image = image / (1.0 + 0.12 * image * image)
    image = np.sqrt(np.maximum(image, 0.0))
    grey = np.tensordot(image, np.array([0.3, 0.59, 0.11], np.float32), axes=(1, 0))[:, None]
    image = grey + camera.saturation[..., None] * (image - grey)
    image = (image - 0.45) * camera.contrast[..., None] + 0.45
    n, _, height, width = image.shape
    luma = white_noise((n, height, width), camera.salt)[:, None]
    image = image * 255.0 + camera.noise[..., None] * luma
    image += 0.5 * camera.noise[..., None] * white_noise((n, 3 * height, width), camera.salt + 1.0).reshape(image.shape)
    return np.ascontiguousarray(np.clip(np.rint(image), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))
