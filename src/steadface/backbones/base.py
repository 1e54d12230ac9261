"""What every backbone is, and the layers that the families are built of.

A backbone describes itself, and takes aligned faces to embeddings. The layers compute what PyTorch's own compute, with
gradients that cost less on a CPU. They are told from their parents by nothing but speed (`benchmarks/step_cost.py`),
names and values are the same, unless the corner of a PReLU is rounded.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, Self, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from steadface.errors import InvalidInput


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """`values` (C,) or (1,) as they multiply or add to the channels of `x` (B, C, ...)."""
    return values.view(-1, *[1] * (x.dim() - 2))


class PReLU(nn.PReLU):
    """`x` where positive and `w x` elsewhere; compiled, as `(1 + w) / 2 x + (1 - w) / 2 |x|`.

    Where `corner` c is above 0, `sqrt(x^2 + c^2) - c` stands for `|x|`, and the slope changes smoothly over about
    2 c: smooth activations help adversarial training (Xie et al., "Smooth adversarial training", 2020).

    The compiler would keep the sign of every number for the backward pass, and on a CPU it writes those bools one by
    one, which costs more than the convolutions around them.
    """

    corner = 0.0

    def forward(self, x: Tensor) -> Tensor:
        sharp, compiling = not self.corner, torch.compiler.is_compiling()
        if sharp and (not compiling or torch.compiler.is_exporting() or x.device.type != "cpu"):
            return super().forward(x)
        if not compiling and self.weight.dtype == x.dtype:
            return rounded_prelu(x, self.weight, self.corner)
        if torch.compiler.is_exporting():  # as `recognizers/onnx/rounding.py` reads it again
            positive = (x + (x * x + self.corner**2).sqrt() - self.corner) * 0.5
            return positive + (x - positive) * per_channel(self.weight, x)
        magnitude = x.abs() if sharp else (x * x + self.corner**2).sqrt() - self.corner
        odd = per_channel(self.weight, x) * 0.5 + 0.5
        return (odd * x - (odd - 1) * magnitude).to(x.dtype)


def rounded_prelu(x: Tensor, weight: Tensor, corner: float) -> Tensor:
    """`PReLU` with a `corner` above 0, for a weight `(C,)` or `(1,)` of the type of `x`; with first derivatives alone.

    In half the time that its operations take one by one, and it keeps `x` instead of what each of them needs.
    """
    return _RoundedPReLU.apply(x, weight, corner)  # type: ignore[no-untyped-call,no-any-return]


class _RoundedPReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, corner: float) -> Tensor:
        slope = per_channel(weight, x)
        ctx.save_for_backward(x, weight)
        ctx.corner = corner
        # In place from the first pass on, and the root anew on the way back: fresh memory costs more than the passes.
        root = torch.addcmul(x.new_tensor(corner**2), x, x).sqrt_().sub_(corner)
        return torch.lerp(x, root, 0.5 - 0.5 * slope, out=root)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        slope, learnt = per_channel(weight, x), None
        square = torch.addcmul(x.new_tensor(ctx.corner**2), x, x)
        if ctx.needs_input_grad[1]:
            root = square.sqrt()
            each = torch.sub(x, root).add_(ctx.corner).mul_(gradient)
            learnt = each.sum_to_size(slope.shape).mul_(0.5).view_as(weight)
            turn = torch.div(x, root, out=root)
        else:
            turn = square.rsqrt_().mul_(x)
        return turn.mul_(0.5 - 0.5 * slope).add_(0.5 + 0.5 * slope).mul_(gradient), learnt, None


Sizes = tuple[int, ...]


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution without bias, `kernel` odd and padded to it, with the gradients of `conv2d`."""

    def __init__(self, channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        padding = cast(Sizes, self.padding)
        return conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Tensor:
    """As `torch.nn.functional.conv2d`; in bf16 on a CPU the input gradient of a strided depthwise one is itself a
    convolution, since oneDNN's takes 15 to 60 times as long.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    depthwise = groups == len(weight) == x.shape[1] and dilation == (1, 1) and stride != (1, 1)
    within = all(2 * one <= size for one, size in zip(padding, weight.shape[2:], strict=True))
    if not (depthwise and within) or dtype != torch.bfloat16 or x.device.type != "cpu" or not torch.is_grad_enabled():
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    filtered: Tensor = _StridedDepthwise.apply(x.to(dtype), weight.to(dtype), stride, padding)  # type: ignore[no-untyped-call]
    return filtered if bias is None else filtered + bias.to(dtype).view(-1, 1, 1)


class _StridedDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        (down, right), padding, groups = ctx.stride, ctx.padding, len(weight)
        rest = [size - 1 - one for size, one in zip(weight.shape[2:], padding, strict=True)]
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            # Every output spread its gradient over the inputs it had seen: the mirrored filter, on outputs put back
            # where they were taken.
            height, width = (x.shape[2 + one] + padding[one] - rest[one] for one in (0, 1))
            placed = torch.zeros_like(x[:, :, :height, :width])
            placed[:, :, ::down, ::right] = gradient
            of_x = F.conv2d(placed, weight.flip(2, 3), None, 1, rest, groups=groups)
        if ctx.needs_input_grad[1]:
            _, of_weight, _ = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, [down, right], padding, [1, 1], False, [0, 0], groups, [False, True, False]
            )
        return of_x, of_weight, None, None


# Bounded, as all that a file states: what is built from it takes memory.
Depth = Annotated[int, Field(le=256)]
Blocks = tuple[Depth, Depth, Depth, Depth]
Width = Annotated[float, Field(gt=0, le=64)]
LARGEST_IMAGE = 512
"""Pixels of a side. Time and memory grow with the area, whatever the weights are; published recognisers take 384."""


class Description(BaseModel):
    """What networks of every family say of themselves; each family adds its own options (`FamilyOptions`).

    `image_size` is (height, width) in pixels; a single number means a square. Pixels in 0..255 are normalised as
    (x - mean) / std. `corner` rounds the activations (`PReLU`); published networks have 0.
    """

    model_config = ConfigDict(frozen=True)

    name: str = "mobilefacenet"
    embedding_size: int = Field(default=512, ge=1, le=65536)
    image_size: tuple[int, int] = (112, 112)
    mean: float = Field(default=127.5, allow_inf_nan=False)
    std: float = Field(default=127.5, gt=0, allow_inf_nan=False)
    corner: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @field_validator("image_size")
    @classmethod
    def _large_enough(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 16:
            raise ValueError(f"image_size {value} is below 16 pixels, which four halvings need")
        if max(value) > LARGEST_IMAGE:
            raise ValueError(f"image_size {value} is above {LARGEST_IMAGE} pixels")
        return value

    @property
    def feature_size(self) -> tuple[int, int]:
        """(height, width) of the last feature map: ceil of a sixteenth of the image."""
        height, width = self.image_size
        return -(-height // 16), -(-width // 16)


class FamilyOptions(BaseModel):
    """What one family of networks says of itself beyond a `Description`; written beside that, under its own keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of(cls, name: str, given: dict[str, Any]) -> Self:
        """Those of the network `name`, with what is `given`. Raises pydantic's ValidationError."""
        return cls.model_validate({**cls.implied(name), **given})

    @classmethod
    def implied(cls, name: str) -> dict[str, Any]:  # noqa: ARG003 - a family of one network has nothing to tell apart
        """What the network's name stands for where it is not given."""
        return {}


class Backbone(nn.Module, ABC):
    """A network from aligned faces to raw embeddings. Submodules carry the key names of the published weights."""

    differentiable = True
    notes: tuple[str, ...] = ()
    """What a user should know of the file that the weights came from."""

    def __init__(self, architecture: Description) -> None:
        super().__init__()
        self.architecture = architecture

    def forward(self, images: Tensor) -> Tensor:
        """Embed `images` (B, 3, H, W), RGB in [0, 1]: raw embeddings (B, D), not L2-normalised.

        The pixels are normalised here and nowhere else, so that a perturbation budget always means pixels. Raises
        InvalidInput where the images are not of the size that the network was made for.
        """
        if images.shape[1:] != (3, *self.architecture.image_size):
            height, width = self.architecture.image_size
            raise InvalidInput(
                f"images of shape {tuple(images.shape)} do not fit this backbone, which takes "
                f"(B, 3, {height}, {width}); load the faces at {height} x {width}"
            )
        architecture = self.architecture
        pixels = images * (255.0 / architecture.std) - architecture.mean / architecture.std
        return self.embed(pixels)

    def __call__(self, images: Tensor) -> Tensor:  # the base class would hide the return type
        return cast(Tensor, super().__call__(images))

    def round_corners(self, corner: float) -> None:
        """Rounds the activations, `base.PReLU`, over that half-width (0: not at all); the weights stay."""
        self.architecture = self.architecture.model_copy(update={"corner": corner})
        for part in self.modules():
            if isinstance(part, PReLU):
                part.corner = corner

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images that the network takes."""
        return self.architecture.image_size

    @property
    def embedding_size(self) -> int:
        return self.architecture.embedding_size

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
