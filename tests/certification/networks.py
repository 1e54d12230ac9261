"""Networks of which everything about their smoothed cosine is known, and requests for them."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from steadface.certification.request import Request
from steadface.recognizers import Convention, OpenedRecognizer

from ..audit.audits import people_pairs
from ..evaluation.faces import LinearBackbone

SIGMA = 0.2


class Angle(nn.Module):
    """Turns by the mean of the pixels along `way`: the embedding of x is at the angle `gain <way, x - 1/2> + pi / 4`.

    With noise the angle is normal, and the cosine with a template at angle 0 falls as it grows: its median is that of
    the middle angle, and the distance to a threshold is that of a line.
    """

    image_size, differentiable = (16, 16), True

    def __init__(self, gain: float = 0.3, seed: int = 0) -> None:
        super().__init__()
        way = torch.randn(3 * 16 * 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.register_buffer("way", way / way.norm())
        self.gain = gain

    def angle(self, images: Tensor) -> Tensor:
        return self.gain * ((images.double() - 0.5).flatten(1) @ self.way) + math.pi / 4

    def forward(self, images: Tensor) -> Tensor:
        angle = self.angle(images)
        return torch.stack([angle.cos(), angle.sin()], dim=1).to(torch.float32)

    def distance(self, image: Tensor, cosine: float) -> float:
        """How far an image (3, H, W) is from where its cosine with the template at angle 0 is `cosine`."""
        return (math.acos(cosine) - float(self.angle(image[None])[0])) / self.gain


def opened(network: nn.Module, name: str = "angle") -> OpenedRecognizer:
    convention = Convention(size=(16, 16), pixel_range="0..1", channel_order="rgb")
    return OpenedRecognizer(network=network, name=name, fingerprint=name, convention=convention, notes=())


def request(network: nn.Module | None = None, **changes: object) -> Request:
    values = {
        "model": opened(network or LinearBackbone(), "linear"),
        "pairs": people_pairs(people=24, images=3),
        "sigma": SIGMA,
        "radii": (0.05, 0.2),
        "draws": 300,
        "fmr": 0.1,
        "max_pairs": 6,
        "attacked": 2,
    }
    return Request(**{**values, **changes})  # type: ignore[arg-type]


def grey(value: float) -> np.ndarray:
    """An image (3, 16, 16) in grey levels."""
    return np.full((3, 16, 16), value)
