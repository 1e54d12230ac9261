"""Small networks whose files the tests of weights read."""

import torch
from torch import Tensor

from steadface.backbones import Architecture, Backbone

SMALL = Architecture(image_size=(32, 32), embedding_size=8, width=0.125, blocks=(1, 2, 1, 1))
SMALL_IRESNET = Architecture(name="iresnet18", image_size=(32, 32), embedding_size=8, width=0.0625)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(architecture: Architecture, seed: int = 0) -> Backbone:
    """A network whose statistics and weights are unlike those of initialisation."""
    backbone = architecture.build(seeded(seed))
    backbone(torch.rand(4, 3, *architecture.image_size, generator=seeded(seed + 1)))
    return backbone.eval()


def same(first: Backbone, second: Backbone) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return first.architecture == second.architecture and all(torch.equal(a[key], b[key]) for key in a)


def bare(backbone: Backbone, prefix: str = "") -> dict[str, Tensor]:
    return {prefix + key: value for key, value in backbone.state_dict().items()}
