"""Modules that take images (B, 3, H, W), RGB in [0, 1], and hand them to a recogniser as it expects them.

All offer what an embedder asks of a network: `image_size` (height, width) and `differentiable`. Of several outputs of a
recogniser the embedding is told by the shapes that they have on a batch of images.
"""

import copy
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steadface.backbones.base import Backbone
from steadface.errors import InvalidInput, NotFound, SteadfaceError, Unsupported
from steadface.recognizers.convention import Convention

LEAST = 32
"""Embeddings have more numbers; points of a face, ages and attributes mostly fewer."""

Shape = tuple[int, ...]

Service = Callable[[NDArray[np.uint8]], Any]
"""Faces (B, H, W, 3) uint8 to embeddings (B, D)."""


class Adapted(nn.Module):
    """A module `core` from normalised pixels (B, 3, H, W) to embeddings, under a convention.

    Axes of length one beside (B, D) are dropped. Raises SteadfaceError for images of another size, and for outputs that
    are no (B, D).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, core: nn.Module, convention: Convention, *, name: str, differentiable: bool = True) -> None:
        super().__init__()
        self.core, self.convention = core, convention
        self.name, self.differentiable = name, differentiable
        mean, std = (torch.tensor(part, dtype=torch.float64).view(1, 3, 1, 1) for part in convention.normalisation)
        self.register_buffer("mean", mean / 255, persistent=False)
        self.register_buffer("std", std / 255, persistent=False)

    @property
    def image_size(self) -> tuple[int, int]:
        return self.convention.size

    def forward(self, images: Tensor) -> Tensor:
        return _embeddings(self.core(self.pixels(images)), len(images), self.name)

    def pixels(self, images: Tensor) -> Tensor:
        """What the core is given for them."""
        _check_size(images, self.image_size, self.name)
        # Of the images' type and device: where there are no weights nothing else says where they lie.
        pixels = (images - self.mean.to(images)) / self.std.to(images)
        if self.convention.channel_order == "bgr":
            pixels = pixels.flip(1)
        kind = next((value.dtype for value in self.core.parameters() if value.is_floating_point()), None)
        return pixels if kind is None else pixels.to(kind)

    def __call__(self, images: Tensor) -> Tensor:
        return cast(Tensor, super().__call__(images))


class External(nn.Module):
    """A core that computes outside of torch, which can neither fold nor compile it, nor take its gradients."""


class Picked(nn.Module):
    """One of several outputs of a module: by its key, or its place from 0 on."""

    def __init__(self, module: nn.Module, output: str) -> None:
        super().__init__()
        self.module, self.output = module, output

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = outputs_of(self.module(pixels))[self.output]
        return found


def outputs_of(answer: Any) -> dict[str, Any]:
    """What a module returned, by name: its keys, or places from 0 on."""
    if isinstance(answer, Mapping):
        return {str(key): value for key, value in answer.items()}
    return {str(place): value for place, value in enumerate(answer if isinstance(answer, tuple | list) else [answer])}


def dimension(shape: Shape, count: int) -> int | None:
    """D of an output (count, D), whatever axes of length one there are beside; None for any other shape."""
    if len(shape) < 2 or shape[0] != count or max(shape[1:]) != prod(shape[1:]):
        return None
    return max(shape[1:])


def embedding_output(name: str, shapes: Mapping[str, Shape], count: int, wanted: str | None = None) -> str:
    """The output of `name` that is `wanted`, or else the only one that is an embedding of `count` images.

    Raises SteadfaceError, which lists them, where there is none of that name, where none is an embedding, or several.
    """
    if wanted is not None and wanted not in shapes:
        raise NotFound(f"{name} has no output {wanted!r}; its outputs are {_listed(shapes)}")
    if wanted is not None:
        return wanted
    if len(shapes) == 1:
        return next(iter(shapes))
    sizes = {output: dimension(shape, count) or 0 for output, shape in shapes.items()}
    for least in (LEAST, 2):
        found = [output for output, size in sizes.items() if size >= least]
        if len(found) == 1:
            return found[0]
        if found:
            break
    many = f"{len(found)} of them may be embeddings" if found else "none of them is an embedding (B, D)"
    raise InvalidInput(
        f"{name} has {len(shapes)} outputs, and {many}: {_listed(shapes)}; say which it is with --output NAME (output= "
        "in Python)"
    )


def _listed(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name} ({' x '.join(map(str, shape[1:])) or 'no axis'})" for name, shape in shapes.items())


class ReversedChannels(nn.Module):
    """A network of RGB images that is given BGR: for weights that were trained so."""

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network = network

    @property
    def image_size(self) -> tuple[int, int]:
        return self.network.image_size

    @property
    def differentiable(self) -> bool:
        return self.network.differentiable

    def for_rgb(self) -> Backbone:
        """A network of its own that gives RGB images the same embeddings: its first kernel has its colours turned."""
        network = copy.deepcopy(self.network)
        first = next(part for part in network.modules() if isinstance(part, nn.Conv2d))
        with torch.no_grad():
            first.weight.copy_(first.weight.flip(1))
        return network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.flip(1))


class BlackBox(nn.Module):
    """A Python callable that embeds uint8 faces, somebody's service perhaps; no gradients.

    What it raises, and outputs that are no finite (B, D), become SteadfaceErrors.
    """

    differentiable = False

    def __init__(self, service: Service, convention: Convention, *, name: str) -> None:
        super().__init__()
        self.service, self.convention, self.name = service, convention, name

    @property
    def image_size(self) -> tuple[int, int]:
        return self.convention.size

    def forward(self, images: Tensor) -> Tensor:
        _check_size(images, self.image_size, self.name)
        pixels = images.detach().mul(255).round().clamp(0, 255).to(torch.uint8)
        if self.convention.channel_order == "bgr":
            pixels = pixels.flip(1)
        faces = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return torch.from_numpy(self._ask(faces)).to(images.device)

    def __call__(self, images: Tensor) -> Tensor:
        return cast(Tensor, super().__call__(images))

    def _ask(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            answer = self.service(faces)
        except SteadfaceError:
            raise
        except (Exception, SystemExit) as error:  # whatever somebody's service raises
            raise InvalidInput(
                f"{self.name} raised {type(error).__name__}: {error}; it was given uint8 faces of shape {faces.shape}"
            ) from error
        if isinstance(answer, Tensor):
            answer = answer.detach().cpu().numpy()
        try:
            found = np.asarray(answer, dtype=np.float32)
        except (TypeError, ValueError):
            found = np.empty(0, dtype=np.float32)
        if found.ndim != 2 or len(found) != len(faces) or found.shape[1] < 1:
            raise InvalidInput(
                f"{self.name} returned {_described(answer)} for faces of shape {faces.shape}; it must return an array "
                f"({len(faces)}, D), an embedding for each face"
            )
        if not np.isfinite(found).all():
            row = int(np.flatnonzero(~np.isfinite(found).all(1))[0])
            raise InvalidInput(f"{self.name} returned NaN or infinity (row {row} of {len(found)}); return numbers")
        return found


def under(network: nn.Module, convention: Convention) -> nn.Module:
    """`network`, as `open_recognizer` made it, under another convention; the weights are shared, not copied.

    Raises SteadfaceError where a backbone's weights fix another size or a function the range, and TypeError for modules
    of another origin.
    """
    if isinstance(network, Adapted):
        return Adapted(network.core, convention, name=network.name, differentiable=network.differentiable).train(
            network.training
        )
    if isinstance(network, BlackBox):
        if convention.pixel_range != network.convention.pixel_range:
            raise Unsupported(f"{network.name} is a function of uint8 faces, whose range is 0..255 and no other")
        return BlackBox(network.service, convention, name=network.name)
    if isinstance(network, ReversedChannels):
        network = network.network
    if not isinstance(network, Backbone):
        raise TypeError(f"{type(network).__name__} was not made by open_recognizer")
    return _backbone_under(network, convention)


def without_gradients(network: nn.Module) -> nn.Module:
    """`network`, declared to have no gradients; the weights are shared, not copied, and it stays as it is."""
    if isinstance(network, ReversedChannels):
        return ReversedChannels(cast(Backbone, without_gradients(network.network)))
    other: Any = copy.copy(network)
    other.differentiable = False
    return cast(nn.Module, other)


def _backbone_under(backbone: Backbone, convention: Convention) -> nn.Module:
    (mean, *means), (std, *stds) = convention.normalisation
    if convention.size != backbone.image_size or {mean, std} != {mean, std, *means, *stds}:
        height, width = backbone.image_size
        raise Unsupported(
            f"a {backbone.architecture.name} cannot take {convention}: its weights are for {height}x{width} and one "
            "mean and standard deviation for all colours"
        )
    other = copy.copy(backbone)  # shares parameters and buffers
    other.architecture = backbone.architecture.model_copy(update={"mean": mean, "std": std})
    return ReversedChannels(other) if convention.channel_order == "bgr" else other


def _check_size(images: Tensor, size: tuple[int, int], name: str) -> None:
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, *size):
        height, width = size
        raise InvalidInput(
            f"images of shape {tuple(images.shape)} do not fit {name}, which takes (B, 3, {height}, {width}); load the "
            f"faces at {height} x {width}, or state its image_size"
        )


def _embeddings(output: Any, count: int, name: str) -> Tensor:
    if isinstance(output, tuple | list) and output:  # of a module that was not opened, which would be `Picked`
        output = output[0]
    if isinstance(output, Tensor) and output.is_floating_point() and dimension(tuple(output.shape), count) is not None:
        return output.flatten(1)
    raise InvalidInput(
        f"{name} returned {_described(output)} for {count} images; it must return embeddings ({count}, D)"
    )


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is None:
        return f"a {type(value).__name__}"
    return f"a {type(value).__name__} of shape {tuple(shape)} and type {getattr(value, 'dtype', 'unknown')}"
