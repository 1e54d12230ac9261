"""An opened recogniser: a network, what is known of it and noise tells of it, and images of another size."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadface.backbones.soundness import digest, noise_for, why_not_finite
from steadface.data.faces import OLDER_CROP_MARGIN
from steadface.errors import InvalidInput, SteadfaceError, Unsupported, first_line
from steadface.recognizers.convention import Convention


@dataclass(frozen=True, kw_only=True)
class OpenedRecognizer:
    """`network` takes images (B, 3, H, W), RGB in [0, 1], to raw embeddings (B, D), in evaluation mode; it has
    `image_size` (height, width) and `differentiable`.

    `fingerprint` is the SHA-256 (hex) of the weights, the file or the source code and of the convention: where it is
    the same so is every figure, as far as `notes` do not say that something could not be seen. `path` is what was asked
    for; `content` the digest of the weights, the file or the source code alone; `output` which of several outputs is
    taken, None where there is one.
    """

    network: nn.Module
    name: str
    fingerprint: str
    convention: Convention
    notes: tuple[str, ...] = ()
    path: str | None = None
    embedding_size: int | None = None
    content: str | None = None
    output: str | None = None

    @property
    def differentiable(self) -> bool:
        return bool(self.network.differentiable)

    def to_json(self) -> dict[str, Any]:
        """All but the network."""
        return {
            "name": self.name,
            "path": self.path,
            "fingerprint": self.fingerprint,
            "output": self.output,
            "embedding_size": self.embedding_size,
            "image_size": list(self.convention.size),
            "differentiable": self.differentiable,
            "convention": self.convention.to_json(),
            "notes": list(self.notes),
        }


def fingerprint(content: str, convention: Convention) -> str:
    """That of a recogniser: its content's digest and what its pixels are taken for, however that is known."""
    mean, std = convention.normalisation
    return digest([content.encode(), repr((convention.size, mean, std, convention.channel_order)).encode()])


def embedding_size_of(network: nn.Module, name: str) -> int:
    """D, found by embedding two images of noise. Raises SteadfaceError where the network fails on them, says why, and
    where D is 1.
    """
    noise = noise_for(network)
    height, width = noise.shape[2:]
    try:
        with torch.no_grad():
            embeddings = network(noise)
    except SteadfaceError:
        raise
    except Exception as error:  # whatever somebody's module raises
        raise InvalidInput(
            f"{name} fails on images (2, 3, {height}, {width}): {type(error).__name__}: {first_line(error)}; state "
            "the image_size that it takes if this is not it, or try it on such images by itself"
        ) from error
    if not torch.isfinite(embeddings).all():
        raise InvalidInput(why_not_finite(network, noise, name))
    if embeddings.shape[1] < 2:
        raise InvalidInput(
            f"{name} gives one number for an image, which is not an embedding; where it has other outputs, say which "
            "is one with --output NAME (output= in Python)"
        )
    return int(embeddings.shape[1])


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, 3, H, W) at `size` (height, width); differentiable.

    The 112 x 96 crop of a face of 112 x 112 is that face without 8 columns on either side; any other size is reached
    bilinearly, averaging where it shrinks.
    """
    have = tuple(images.shape[2:])
    if have == tuple(size):
        return images
    if have == (112, 112) and tuple(size) == (112, 96):
        return images[..., OLDER_CROP_MARGIN:-OLDER_CROP_MARGIN]
    shrinks = size[0] < have[0] or size[1] < have[1]
    return F.interpolate(images, size=tuple(size), mode="bilinear", align_corners=False, antialias=shrinks)


class Fitted(nn.Module):
    """`network` on images (B, 3, H, W) of `size`, which are brought to its own."""

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.image_size = network, size
        self.differentiable = bool(network.differentiable)

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.network(resized(images, self.network.image_size))  # type: ignore[arg-type]
        return embeddings


def fitted(network: nn.Module, size: tuple[int, int]) -> nn.Module:
    """`network` for images of `size` (height, width): itself where that is its size."""
    return network if network.image_size == size else Fitted(network, size)


def surrogate_embed(surrogate: OpenedRecognizer, size: tuple[int, int]) -> nn.Module:
    """A surrogate that takes a victim's images of `size`, for transfer attacks.

    Raises SteadfaceError for one without gradients: nothing can be crafted on it.
    """
    if not surrogate.differentiable:
        raise Unsupported(
            f"{surrogate.name} has no gradients, so that nothing can be crafted on it; name a surrogate that has: "
            "weights, a torch module, or an ONNX file that converts"
        )
    return fitted(surrogate.network, size)
