"""Several recognisers as one, whose cosine is the mean of theirs.

    z(x) = (z_1(x) / ||z_1(x)||, ..., z_n(x) / ||z_n(x)||)        cos(z(x), z(y)) = 1/n sum_i cos(z_i(x), z_i(y))

The sum rule of Kittler, Hatef, Duin and Matas (On Combining Classifiers, PAMI 1998), in biometrics fusion at the level
of scores. Since it is an embedding again, templates, galleries, thresholds and attacks with all gradients are as usual.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from steadface.backbones.soundness import digest
from steadface.errors import InvalidInput, Unsupported
from steadface.recognizers.adapters import Adapted
from steadface.recognizers.convention import Convention
from steadface.recognizers.network import OpenedRecognizer, fingerprint, resized


class Fused(nn.Module):
    """`members` on images (B, 3, H, W), RGB in [0, 1]: (B, D_1 + ... + D_n), their unit embeddings side by side."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        embeddings = [_embedded(member, images).float() for member in self.members]
        return torch.cat([one / torch.linalg.vector_norm(one, dim=1, keepdim=True) for one in embeddings], 1)

    def __call__(self, images: Tensor) -> Tensor:
        return cast(Tensor, super().__call__(images))


def _embedded(member: nn.Module, images: Tensor) -> Tensor:
    pixels = resized(images, cast("tuple[int, int]", member.image_size))
    if isinstance(member, Adapted):  # its check of what comes out would fix the number of images once it is traced
        pixels, member = member.pixels(pixels), member.core
    return cast(Tensor, member(pixels)).flatten(1)


def fused(members: Sequence[OpenedRecognizer]) -> OpenedRecognizer:
    """Two recognisers or more as one, which takes the images of all of them: RGB of their size, or of 112 x 112 where
    some take the crop of 112 x 96 out of it.

    Raises SteadfaceError for fewer than two, for the same one twice, for images of different sizes, and for members
    without gradients: functions, and ONNX files that do not convert to torch.
    """
    if len(members) < 2:
        raise InvalidInput(f"{len(members)} recogniser is given, and fusing takes two or more")
    for place, one in enumerate(members):
        if not one.differentiable:
            raise Unsupported(f"{one.name} has no gradients, and only networks that have can be fused; leave it out")
        if one.fingerprint in {other.fingerprint for other in members[:place]}:
            raise InvalidInput(f"{one.name} is given twice, which says no more than once; give another recogniser")
    convention = Convention(size=_common_size(members), pixel_range="0..1")
    content, name = digest([one.fingerprint.encode() for one in members]), "+".join(one.name for one in members)
    return OpenedRecognizer(
        network=Adapted(Fused([one.network for one in members]), convention, name=name).eval(),
        name=name,
        fingerprint=fingerprint(content, convention),
        content=content,
        convention=convention,
        notes=tuple(dict.fromkeys(note for one in members for note in one.notes)),
        embedding_size=sum(one.embedding_size or 0 for one in members),
    )


def _common_size(members: Sequence[OpenedRecognizer]) -> tuple[int, int]:
    sizes = sorted({one.convention.size for one in members}, reverse=True)
    if len(sizes) > 1 and sizes != [(112, 112), (112, 96)]:
        said = ", ".join(f"{one.name} {one.convention.size[0]} x {one.convention.size[1]}" for one in members)
        raise InvalidInput(f"they take images of different sizes ({said}); fuse recognisers of one size")
    return sizes[0]
