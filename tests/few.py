"""A backbone of few layers, for tests of what surrounds a network and is the same for any.

It is of a family of its own, as `docs/extending.md` adds one, which this module makes known: to the processes that are
forked for tests too, since they know what the modules of the tests import.
"""

from typing import Any

import torch
from torch import Tensor, nn

from steadface.backbones import Architecture, Backbone, architecture
from steadface.backbones.base import Description, FamilyOptions, reset_norms_and_activations
from steadface.backbones.mobilefacenet import ConvBlock, GlobalDepthwise


class FewOptions(FamilyOptions):
    """`width` as MobileFaceNet has it."""

    width: float = 0.125


class Few(Backbone):
    """One layer of each kind that MobileFaceNet has, whose fifty take ten times as long: what surrounds a step is the
    same for any network.
    """

    def __init__(self, description: Description, options: FewOptions) -> None:
        super().__init__(description)
        channels, (height, width) = round(64 * options.width), description.image_size
        self.layers = nn.Sequential(
            ConvBlock(3, channels, kernel=(3, 3), stride=2, padding=1),
            ConvBlock(channels, channels, kernel=(3, 3), stride=2, padding=1, groups=channels),
        )
        self.features = GlobalDepthwise(channels, (height // 4, width // 4), description.embedding_size)

    def embed(self, pixels: Tensor) -> Tensor:
        embeddings: Tensor = self.features(self.layers(pixels))
        return embeddings

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        reset_norms_and_activations(self)
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu", generator=generator)


FEW: architecture.Family[Any] = architecture.Family(names=("few",), options=FewOptions, network=Few)
architecture.FAMILIES = (*architecture.FAMILIES, FEW)  # for the processes of the tests too

SMALLEST = Architecture(name="few", embedding_size=8, image_size=(16, 16))
