"""A score whose optimum is known in closed form, and a small real network."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from steadface.backbones.frozen import frozen


@dataclass(frozen=True)
class LinearScore:
    """``<weights, image>`` of every image: the steepest direction is the same everywhere."""

    weights: Tensor
    enough: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        return (self.weights * images).sum(dim=(1, 2, 3))

    def take(self, indices: Tensor) -> "LinearScore":
        return LinearScore(self.weights[indices], None if self.enough is None else self.enough[indices])

    def succeeded(self, values: Tensor) -> Tensor:
        return torch.zeros_like(values, dtype=torch.bool) if self.enough is None else values >= self.enough


@pytest.fixture
def linear_score() -> Callable[..., LinearScore]:
    return LinearScore


@pytest.fixture
def seeded() -> Callable[[int], torch.Generator]:
    return lambda seed: torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> Tensor:
    """``(6, 3, 5, 4)`` over the whole range, with pixels at both of its ends."""
    return (1.4 * torch.rand(6, 3, 5, 4, generator=torch.Generator().manual_seed(1)) - 0.2).clamp(0, 1)


@pytest.fixture
def grey_images() -> Tensor:
    """``(6, 3, 5, 4)`` within 0.4 .. 0.6: small perturbations never meet the ends of the range."""
    return 0.4 + 0.2 * torch.rand(6, 3, 5, 4, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="session")
def network(faces: Tensor) -> nn.Module:
    """A few random layers for 32 x 32 images as they are attacked, their BatchNorm statistics those of ``faces``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8, momentum=None),
            nn.PReLU(8),
            nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(12, momentum=None),
            nn.PReLU(12),
            nn.Flatten(),
            nn.Linear(12 * 8 * 8, 16, bias=False),
            nn.BatchNorm1d(16, momentum=None),
        )
    with torch.no_grad():
        network(faces)
    return frozen(network)


@pytest.fixture(scope="session")
def faces() -> Tensor:
    """``(8, 3, 32, 32)`` smooth random pictures."""
    coarse = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")
