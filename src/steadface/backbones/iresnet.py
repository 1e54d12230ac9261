"""IResNet (Duta et al., "Improved Residual Networks", ICPR 2020) as used by ArcFace, with InsightFace's key names.

Legend: width w, B images, D embedding size. A 3x3 stem at full resolution, then four stages of 64, 128, 256, 512 (x w)
channels, each halving the picture in its first block; BatchNorm, a linear layer over all positions, BatchNorm.
A block is BatchNorm, 3x3 conv, BatchNorm, PReLU, 3x3 conv (with the stride), BatchNorm, plus the shortcut.
"""

import math
from typing import Any

import torch
from pydantic import field_validator
from torch import Tensor, nn

from steadface.backbones.base import (
    Backbone,
    Blocks,
    Description,
    FamilyOptions,
    PReLU,
    Width,
    reset_norms_and_activations,
)

PUBLISHED: dict[str, Blocks] = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
    "iresnet152": (3, 8, 36, 3),
    "iresnet200": (6, 26, 60, 6),
}
"""Names and the depths of the four stages that they stand for."""


class IResNetOptions(FamilyOptions):
    """`width` multiplies the channels, 1 is the published networks'; `blocks` is the depth of the four stages."""

    width: Width = 1.0
    blocks: Blocks

    @classmethod
    def implied(cls, name: str) -> dict[str, Any]:
        return {"blocks": PUBLISHED[name]}

    @field_validator("blocks")
    @classmethod
    def _deep_enough(cls, blocks: Blocks) -> Blocks:
        if min(blocks) < 1:
            raise ValueError(f"blocks {blocks} must be at least (1, 1, 1, 1): each stage starts with its downsampling")
        return blocks


class Block(nn.Module):
    """Residual block; its shortcut is a strided 1x1 convolution and BatchNorm in the first block of a stage."""

    FOLLOWED_BY = (("conv1", "bn2"), ("conv2", "bn3"))

    def __init__(self, inputs: int, outputs: int, *, first: bool) -> None:
        super().__init__()
        stride = 2 if first else 1
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)) if first else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return shortcut + self.bn3(self.conv2(x))  # type: ignore[no-any-return]


def stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    first = Block(inputs, outputs, first=True)
    return nn.Sequential(first, *(Block(outputs, outputs, first=False) for _ in range(depth - 1)))


class IResNet(Backbone):
    """See the module's docstring; built by `Architecture.build`."""

    FOLLOWED_BY = (("conv1", "bn1"), ("fc", "features"))

    def __init__(self, architecture: Description, options: IResNetOptions) -> None:
        super().__init__(architecture)
        stem = max(1, round(64 * options.width))
        first, second, third, fourth = options.blocks
        height, width = architecture.feature_size
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.prelu = PReLU(stem)
        self.layer1 = stage(stem, stem, first)
        self.layer2 = stage(stem, 2 * stem, second)
        self.layer3 = stage(2 * stem, 4 * stem, third)
        self.layer4 = stage(4 * stem, 8 * stem, fourth)
        self.bn2 = nn.BatchNorm2d(8 * stem)
        self.fc = nn.Linear(8 * stem * height * width, architecture.embedding_size)
        self.features = nn.BatchNorm1d(architecture.embedding_size)
        # The published networks whiten the embedding but do not let training rescale its coordinates.
        self.features.weight.requires_grad_(False)

    def embed(self, pixels: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(pixels)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.bn2(x).flatten(1)
        # bf16 carries 8 bits, too few for cosines that are compared at the third decimal.
        with torch.autocast(x.device.type, enabled=False):
            embeddings: Tensor = self.features(self.fc(x.to(self.fc.weight.dtype)))
        return embeddings

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Convolutions: normal with standard deviation 0.1, as InsightFace; linear: uniform within 1 / sqrt(fan_in)."""
        reset_norms_and_activations(self)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0.0, 0.1, generator=generator)
        bound = 1 / math.sqrt(self.fc.in_features)
        nn.init.uniform_(self.fc.weight, -bound, bound, generator=generator)
        nn.init.uniform_(self.fc.bias, -bound, bound, generator=generator)
