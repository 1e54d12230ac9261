"""What every backbone is: a description that can be written down, and a network built from it."""

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn

from steadface.backbones.layers import PReLU
from steadface.errors import SteadfaceError

Name = Literal["mobilefacenet", "iresnet18", "iresnet34", "iresnet50", "iresnet100", "iresnet200"]
# Bounded, as all that a file states: what is built from it takes memory.
Depth = Annotated[int, Field(le=256)]
Blocks = tuple[Depth, Depth, Depth, Depth]

DEPTHS: dict[str, Blocks] = {
    "mobilefacenet": (1, 4, 6, 2),
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
    "iresnet200": (6, 26, 60, 6),
}


class Architecture(BaseModel):
    """All that is needed to rebuild a backbone before its weights are loaded; written into every checkpoint.

    `image_size` is (height, width) in pixels; a single number means a square. `width` multiplies the channels: 1 is
    the published MobileFaceNet (2 is InsightFace's) and the published IResNet; it defaults to 2 and 1 respectively.
    `blocks` is the depth of the four stages and defaults to the depth that the name stands for. Pixels in 0..255 are
    normalised as (x - mean) / std. `corner` rounds the activations (`layers.PReLU`); published networks have 0.

    >>> import steadface as sf
    >>> tiny = sf.Architecture(width=0.25, blocks=(1, 0, 0, 0), embedding_size=16, image_size=32)
    >>> backbone = tiny.build(torch.Generator().manual_seed(0)).eval()
    >>> backbone(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 16])
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = "mobilefacenet"
    embedding_size: int = Field(default=512, ge=1, le=65536)
    image_size: tuple[int, int] = (112, 112)
    width: float = Field(default=2.0, gt=0, le=64)
    blocks: Blocks = (1, 4, 6, 2)
    mean: float = Field(default=127.5, allow_inf_nan=False)
    std: float = Field(default=127.5, gt=0, allow_inf_nan=False)
    corner: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Fill in what the name implies, so that what is written down does not depend on today's defaults."""
        if not isinstance(given, dict):
            return given
        values = {key: value for key, value in given.items() if value is not None}
        name = values.get("name", "mobilefacenet")
        values.setdefault("width", 2.0 if name == "mobilefacenet" else 1.0)
        values.setdefault("blocks", DEPTHS.get(str(name), DEPTHS["mobilefacenet"]))
        return values

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @field_validator("image_size")
    @classmethod
    def _large_enough(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 16:
            raise ValueError(f"image_size {value} is below 16 pixels, which four halvings need")
        if max(value) > 4096:
            raise ValueError(f"image_size {value} is above 4096 pixels")
        return value

    @model_validator(mode="after")
    def _deep_enough(self) -> "Architecture":
        # MobileFaceNet's later residual stages may be empty; each IResNet stage starts with its downsampling block.
        least = (1, 0, 0, 0) if self.name == "mobilefacenet" else (1, 1, 1, 1)
        if any(depth < lowest for depth, lowest in zip(self.blocks, least, strict=True)):
            raise ValueError(f"blocks {self.blocks} must be at least {least} for {self.name}")
        return self

    @property
    def feature_size(self) -> tuple[int, int]:
        """(height, width) of the last feature map: ceil of a sixteenth of the image."""
        height, width = self.image_size
        return -(-height // 16), -(-width // 16)

    def skeleton(self) -> "Backbone":
        """The network without storage (on the device `meta`), in training mode; `to_empty` gives it some."""
        # The networks need this module's classes, so they can only be imported once they are asked for.
        from steadface.backbones.iresnet import IResNet
        from steadface.backbones.mobilefacenet import MobileFaceNet

        with torch.device("meta"):
            backbone = MobileFaceNet(self) if self.name == "mobilefacenet" else IResNet(self)
        backbone.round_corners(self.corner)
        return backbone

    def build(self, generator: torch.Generator | None = None) -> "Backbone":
        """The network on the CPU in training mode, its weights drawn from `generator` (None: torch's global one)."""
        # Built without storage first: torch's own initialisation would draw from the global random state.
        backbone = self.skeleton().to_empty(device="cpu")
        backbone.reset_parameters(generator)
        return backbone


class Backbone(nn.Module, ABC):
    """A network from aligned faces to raw embeddings. Submodules carry the key names of the published weights."""

    differentiable = True
    notes: tuple[str, ...] = ()
    """What a user should know of the file that the weights came from."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture

    def forward(self, images: Tensor) -> Tensor:
        """Embed `images` (B, 3, H, W), RGB in [0, 1]: raw embeddings (B, D), not L2-normalised.

        The pixels are normalised here and nowhere else, so that a perturbation budget always means pixels. Raises
        SteadfaceError where the images are not of the size that the network was made for.
        """
        if images.shape[1:] != (3, *self.architecture.image_size):
            height, width = self.architecture.image_size
            raise SteadfaceError(
                f"images of shape {tuple(images.shape)} do not fit this backbone, which takes "
                f"(B, 3, {height}, {width}); load the faces at {height} x {width}"
            )
        architecture = self.architecture
        pixels = images * (255.0 / architecture.std) - architecture.mean / architecture.std
        return self.embed(pixels)

    def __call__(self, images: Tensor) -> Tensor:  # the base class would hide the return type
        return cast(Tensor, super().__call__(images))

    def round_corners(self, corner: float) -> None:
        """Rounds the activations, `layers.PReLU`, over that half-width (0: not at all); the weights stay."""
        self.architecture = self.architecture.model_copy(update={"corner": corner})
        for part in self.modules():
            if isinstance(part, PReLU):
                part.corner = corner

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images that the network takes."""
        return self.architecture.image_size

    @abstractmethod
    def embed(self, pixels: Tensor) -> Tensor:
        """Raw embeddings (B, D) of normalised pixels (B, 3, H, W)."""

    @abstractmethod
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew and reset the BatchNorm statistics."""


def reset_norms_and_activations(module: nn.Module) -> None:
    """BatchNorm: weight 1, bias 0, statistics of a standard normal; PReLU: slope 0.25."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.PReLU):
            part.reset_parameters()
