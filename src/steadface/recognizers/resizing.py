"""A network on images of another size than it was made for, differentiably."""

import torch.nn.functional as F
from torch import Tensor, nn

from steadface.data.faces import OLDER_CROP_MARGIN
from steadface.errors import SteadfaceError
from steadface.recognizers.base import OpenedRecognizer


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
        raise SteadfaceError(
            f"{surrogate.name} has no gradients, so that nothing can be crafted on it; name a surrogate that has: "
            "weights, a torch module, or an ONNX file that converts"
        )
    return fitted(surrogate.network, size)
