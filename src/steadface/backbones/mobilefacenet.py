"""MobileFaceNet (Chen et al., "MobileFaceNets", CCBR 2018, table 1) with the key names of InsightFace's weights.

Legend: width w, B images, D embedding size. The stages halve the picture four times:

    layers.0      3x3 conv, stride 2                     64 w channels
    layers.1      3x3 depthwise conv, or a residual stage of blocks[0] where that is above 1
    layers.2, 3   bottleneck, stride 2; blocks[1] residual bottlenecks        64 w
    layers.4, 5   bottleneck, stride 2; blocks[2] residual bottlenecks       128 w
    layers.6, 7   bottleneck, stride 2; blocks[3] residual bottlenecks       128 w
    conv_sep      1x1 conv to the feature channels
    features      global depthwise conv, linear without bias, BatchNorm

InsightFace widens only the bottlenecks' ends: the hidden channels stay 128, 256, 512, 256 and the feature channels 512
at every w >= 1. Below 1 they shrink along with the ends, or a narrow network would hardly be cheaper.
"""

import torch
from pydantic import field_validator
from torch import Tensor, nn

from steadface.backbones.base import (
    Backbone,
    Blocks,
    DepthwiseConv2d,
    Description,
    FamilyOptions,
    PReLU,
    Width,
    reset_norms_and_activations,
)


class MobileFaceNetOptions(FamilyOptions):
    """`width` multiplies the channels: 1 is the published network, 2 InsightFace's; `blocks` is the depth of the four
    stages, of which the later three may be empty.
    """

    width: Width = 2.0
    blocks: Blocks = (1, 4, 6, 2)

    @field_validator("blocks")
    @classmethod
    def _deep_enough(cls, blocks: Blocks) -> Blocks:
        if any(depth < least for depth, least in zip(blocks, (1, 0, 0, 0), strict=True)):
            raise ValueError(f"blocks {blocks} must be at least (1, 0, 0, 0)")
        return blocks


class ConvBlock(nn.Module):
    """Convolution, BatchNorm and, unless `linear`, PReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: tuple[int, int] = (1, 1),
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        conv: nn.Conv2d
        if groups == inputs == outputs and kernel == (3, 3) and padding == 1:
            conv = DepthwiseConv2d(outputs, 3, stride=stride)
        else:
            conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        parts: list[nn.Module] = [conv, nn.BatchNorm2d(outputs)]
        if not linear:
            parts.append(PReLU(outputs))
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """Expand to `hidden` channels, filter each one 3x3, project; with an identity shortcut where `residual`."""

    def __init__(self, inputs: int, outputs: int, hidden: int, *, stride: int = 1, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            ConvBlock(inputs, hidden),
            ConvBlock(hidden, hidden, kernel=(3, 3), stride=stride, padding=1, groups=hidden),
            ConvBlock(hidden, outputs, linear=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.layers(x)
        return x + projected if self.residual else projected


class Stage(nn.Module):
    """`depth` residual bottlenecks."""

    def __init__(self, channels: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Bottleneck(channels, channels, hidden, residual=True) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class GlobalDepthwise(nn.Module):
    """One weight per position and channel (instead of average pooling), then the embedding and its BatchNorm."""

    def __init__(self, channels: int, size: tuple[int, int], embedding_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvBlock(channels, channels, kernel=size, groups=channels, linear=True),
            nn.Flatten(),
            nn.Linear(channels, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class MobileFaceNet(Backbone):
    """See the module's docstring; built by `Architecture.build`."""

    def __init__(self, architecture: Description, options: MobileFaceNetOptions) -> None:
        super().__init__(architecture)
        # Everything derives from one rounded number, so that the width can be read back from the first convolution.
        narrow = max(1, round(64 * options.width))
        wide = 2 * narrow
        base = min(64, narrow)
        first, second, third, fourth = options.blocks
        self.layers = nn.Sequential(
            ConvBlock(3, narrow, kernel=(3, 3), stride=2, padding=1),
            self._first_stage(narrow, 2 * base, first),
            Bottleneck(narrow, narrow, 2 * base, stride=2),
            Stage(narrow, 2 * base, second),
            Bottleneck(narrow, wide, 4 * base, stride=2),
            Stage(wide, 4 * base, third),
            Bottleneck(wide, wide, 8 * base, stride=2),
            Stage(wide, 4 * base, fourth),
        )
        self.conv_sep = ConvBlock(wide, 8 * base)
        self.features = GlobalDepthwise(8 * base, architecture.feature_size, architecture.embedding_size)

    @staticmethod
    def _first_stage(channels: int, hidden: int, depth: int) -> nn.Module:
        if depth > 1:
            return Stage(channels, hidden, depth)
        # InsightFace keeps 64 groups at every whole width, so its filters see 2 channels each at width 2.
        groups = 64 if channels % 64 == 0 else channels
        return ConvBlock(channels, channels, kernel=(3, 3), padding=1, groups=groups)

    def embed(self, pixels: Tensor) -> Tensor:
        x = self.conv_sep(self.layers(pixels))
        # bf16 carries 8 bits, too few for cosines that are compared at the third decimal; this part costs nothing.
        with torch.autocast(x.device.type, enabled=False):
            embeddings: Tensor = self.features(x.to(self.features.layers[2].weight.dtype))
        return embeddings

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Convolutions and the linear layer: normal with variance 2 / fan_out (He et al. 2015), as InsightFace."""
        reset_norms_and_activations(self)
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu", generator=generator)
