"""An attacker who knows the guard: its views made differentiable, and an attack on the verifier and the guard at once.

    maximise   min(0, g(x) - margin) + min(0, (1 - slack) t - s(x))        s of views drawn anew in every step

Legend: g by how much the cosine is beyond the verifier's threshold, s and t the guard's score and limit. Expectation
over transformations and backward pass differentiable approximation: Athalye, Carlini and Wagner, Obfuscated Gradients
Give a False Sense of Security, ICML 2018. Forward every view is exactly the guard's own, of the 8-bit image; backward
the linear maps of moving and resizing, and JPEG with the rounding of Shin and Song, JPEG-resistant Adversarial Images,
2017: round(u) + (u - round(u))^3. Steps follow the sign of a gradient with momentum and shrink along a cosine.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from attacked import Attacked
from steadface.attacks.rounding import as_bytes
from steadface.recognizers.guard import Guard, View

MOMENTUM = 0.75
FIRST, LAST = 0.3, 0.02
"""Lengths of the first and last step, in radii."""

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""The tables of ITU-T T.81, annex K, which OpenCV's encoder scales by the quality."""

YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""From RGB in 0..255; the chrominances around 0 (JFIF)."""


@dataclass(frozen=True, kw_only=True)
class KnowingAttack:
    """`steps` steps, each through `views` views of every image; the best of the last iterates by `judged` looks."""

    guard: Guard
    radius: float
    steps: int
    views: int
    judged: int = 2
    margin: float = 0.01
    slack: float = 0.1

    def __call__(self, network: nn.Module, attacked: Attacked, rng: np.random.Generator) -> Tensor:
        """Images (n, 3, H, W) on the grid of 8 bits, within the radius."""
        source, momentum = attacked.images, torch.zeros_like(attacked.images)
        noise = torch.from_numpy(rng.uniform(-1, 1, source.shape).astype(np.float32))
        x, candidates = (source + self.radius * noise).clamp(0, 1), []
        for step in range(self.steps):
            gradient = self._gradient(network, attacked, x, rng)
            momentum = MOMENTUM * momentum + gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
            length = LAST + (FIRST - LAST) * (1 + math.cos(math.pi * step / self.steps)) / 2
            x = x + length * self.radius * momentum.sign()
            x = torch.minimum(torch.maximum(x, source - self.radius), source + self.radius).clamp(0, 1)
            if step >= self.steps - 3:
                candidates.append(on_grid(x).detach())
        return self._best(network, attacked, candidates, rng)

    def _gradient(self, network: nn.Module, attacked: Attacked, x: Tensor, rng: np.random.Generator) -> Tensor:
        x = x.detach().requires_grad_(True)
        image = on_grid(x)
        seen = torch.stack([network(viewed(image, self._draw(len(x), rng))) for _ in range(self.views)]).mean(0)
        plain = network(image)
        (gradient,) = torch.autograd.grad(self._objective(attacked, plain, seen).sum(), x)
        return gradient

    def _objective(self, attacked: Attacked, plain: Tensor, seen: Tensor) -> Tensor:
        assert self.guard.limits is not None
        cosine, moved = (plain * attacked.references).sum(1), ((seen - plain) * attacked.references).sum(1)
        beyond = cosine - attacked.threshold if attacked.goal == "impersonation" else attacked.threshold - cosine
        score = 1 - (plain * seen).sum(1) + moved.abs()
        room = (1 - self.slack) * self.guard.limits.compared - score
        return (beyond - self.margin).clamp(max=0) + room.clamp(max=0)

    def _best(
        self, network: nn.Module, attacked: Attacked, candidates: list[Tensor], rng: np.random.Generator
    ) -> Tensor:
        """By the attacker's own looks: the goal reached and the fewest of them flagged, then the lowest score."""
        values = torch.stack([self._judged(network, attacked, one, rng) for one in candidates])
        return torch.stack(candidates)[values.argmax(0), torch.arange(len(attacked))]

    def _judged(self, network: nn.Module, attacked: Attacked, images: Tensor, rng: np.random.Generator) -> Tensor:
        assert self.guard.limits is not None
        with torch.no_grad():
            plain = network(images)
            looks = []
            for _ in range(self.judged):
                views = [network(viewed(images, self._draw(len(images), rng))) for _ in range(self.guard.views.count)]
                seen = torch.stack(views).mean(0)
                moved = ((seen - plain) * attacked.references).sum(1).abs()
                looks.append(1 - (plain * seen).sum(1) + moved)
            scores = torch.stack(looks)
            unnoticed = (scores < self.guard.limits.compared).float().mean(0)
        return reached(attacked, plain).float() * (1 + unnoticed) - 0.01 * scores.mean(0)

    def _draw(self, count: int, rng: np.random.Generator) -> list[View]:
        return [self.guard.views.draw(rng) for _ in range(count)]


def reached(attacked: Attacked, embeddings: Tensor) -> Tensor:
    """(n,) where the verifier is wrong."""
    cosine = (embeddings * attacked.references).sum(1)
    return cosine < attacked.threshold if attacked.goal == "dodging" else cosine >= attacked.threshold


def on_grid(x: Tensor) -> Tensor:
    """To the nearest of 256 levels, with the gradient of x; a radius of whole levels is kept."""
    return x + ((255 * x).round() / 255 - x).detach()


def viewed(images: Tensor, views: list[View]) -> Tensor:
    """Every image (B, 3, H, W), on the grid, in its own view: the guard's pixels with a gradient."""
    pixels = as_bytes(images.detach()).permute(0, 2, 3, 1).numpy()
    exact = np.stack([view(face) for view, face in zip(views, pixels, strict=True)])
    smooth = smoothly_viewed(images, views)
    return smooth + (torch.from_numpy(exact).permute(0, 3, 1, 2) / 255 - smooth).detach()


def smoothly_viewed(images: Tensor, views: list[View]) -> Tensor:
    """As `viewed`, all of it differentiable."""
    height, width = images.shape[2:]
    down = torch.from_numpy(np.stack([_line(view, height, vertical=True) for view in views]))
    across = torch.from_numpy(np.stack([_line(view, width, vertical=False) for view in views]))
    resized = down[:, None] @ images @ across[:, None].mT
    return jpeg(255 * resized, torch.tensor([view.quality for view in views])) / 255


def _line(view: View, size: int, *, vertical: bool) -> NDArray[np.float32]:
    """(size, size): what moving and resizing makes of each pixel of a line. OpenCV's own, since both are separable."""
    eye = np.eye(size, dtype=np.float32)
    move = np.array([[1, 0, 0], [0, 1, view.down if vertical else view.across]], dtype=np.float32)
    moved = cv2.warpAffine(eye, move, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    shrunk = cv2.resize(moved, (size, view.shrunk(size, size)[0]), interpolation=cv2.INTER_AREA)
    line: NDArray[np.float32] = cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_LINEAR)
    return line


def jpeg(pixels: Tensor, quality: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) in 0..255, height and width multiples of 16, through JPEG of `quality` (B,), 4:2:0."""
    ycc = torch.einsum("ij,bjhw->bihw", YCC, pixels)
    luminance = _blocks(ycc[:, :1] - 128, LUMINANCE, quality) + 128
    chrominance = _blocks(F.avg_pool2d(ycc[:, 1:], 2), CHROMINANCE, quality)
    chrominance = F.interpolate(chrominance, scale_factor=2, mode="bilinear", align_corners=False)
    whole = torch.cat([luminance, chrominance], dim=1)
    return torch.einsum("ij,bjhw->bihw", torch.linalg.inv(YCC), whole).clamp(0, 255)


def _blocks(plane: Tensor, table: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """Planes (B, C, H, W) with the cosine transform of their 8 x 8 blocks rounded."""
    scale = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality).view(-1, 1, 1)
    steps = ((torch.tensor(table) * scale + 50) // 100).clamp(1, 255).float().view(-1, 1, 1, 1, 8, 8)
    basis = _cosines()
    count, channels, height, width = plane.shape
    blocks = plane.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = basis @ blocks @ basis.T / steps
    whole = coefficients.detach().round()
    rounded = whole + (coefficients - whole) ** 3
    spatial: Tensor = basis.T @ (rounded * steps) @ basis
    return spatial.transpose(3, 4).reshape(plane.shape)


def _cosines() -> Tensor:
    """The orthonormal DCT-II of 8 points."""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)
    basis = torch.cos(math.pi * (2 * n + 1) * k / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis
