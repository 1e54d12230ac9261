"""A few faces and what a network made of them: looked at before any work is done with it, and again after it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadface.attacks.gradients import crafting
from steadface.backbones.soundness import (
    STEADY,
    all_alike,
    apart,
    check_steady,
    gradient_fault,
    noise_for,
    weights_digest,
)
from steadface.data.faces import FaceSource
from steadface.data.loading import as_tensor, read_images
from steadface.errors import InvalidInput
from steadface.evaluation.embedding import MirrorEmbedder

FACES, LOOKED_AT = 2, 16
"""Faces that are embedded, and how many are looked at for those that can be read and differ."""

ALIKE = 1e-3
"""Mean difference of the pixels of what may be one picture twice."""


@dataclass(frozen=True, kw_only=True)
class Witness:
    """`images` (n, 3, H, W), their unit `embeddings` (n, D), and the digest of the network's `state` by then.

    `indices` are those of the faces, none for noise.
    """

    name: str
    indices: tuple[int, ...]
    images: Tensor
    embeddings: Tensor
    state: str

    @classmethod
    def of(
        cls, embedder: MirrorEmbedder, faces: FaceSource, indices: NDArray[np.int64], *, name: str = "the recogniser"
    ) -> "Witness":
        """Of some of the faces at `indices`, or of noise where fewer than two of them can be read and differ.

        Raises InvalidInput, which says why, for a network that does not behave like a recogniser: one that is random,
        depends on the batch, gives NaN, all zeros, or one embedding for different faces.
        """
        state = weights_digest(embedder)
        taken, images = _different(faces, indices, embedder)
        with crafting(embedder):
            embeddings = check_steady(embedder, images, name)
        if all_alike(embeddings):
            what = "nothing but zeros for" if not embeddings.any() else "one and the same embedding for different"
            raise InvalidInput(
                f"{name} gives {what} faces: it does not look at them, or its weights are damaged; use another model"
            )
        return cls(name=name, indices=taken, images=images, embeddings=embeddings, state=state)

    def gradient_fault(self, embedder: MirrorEmbedder) -> str | None:
        """Why the gradients of the network cannot be followed, in words; None where they can, or it has none."""
        if not embedder.differentiable:
            return None
        with crafting(embedder):
            return gradient_fault(embedder, self.images)

    def confirm(self, *embedders: MirrorEmbedder, rows: NDArray[np.float32] | None = None) -> None:
        """Raises InvalidInput unless the network, and fast copies of it, are what they were before the work; and unless
        `rows` (n, D), what it gave for these faces among all others, are that too.
        """
        if rows is not None and len(rows) and not _same(torch.from_numpy(rows), self.embeddings):
            raise InvalidInput(
                f"{self.name} embedded a face among many others otherwise than alone: what it answers depends on who "
                "else is asked for, or changed. Give it in evaluation mode, or wrapped so that each image is embedded "
                "by itself"
            )
        for embedder in embedders:
            with crafting(embedder), torch.no_grad():
                embeddings = embedder((self.images * 255).round() / 255).cpu()
            if not _same(embeddings, self.embeddings):
                raise InvalidInput(
                    f"{self.name} changed while it was at work: a face that was embedded before and after it has two "
                    "embeddings. What was found is of no one model; switch off what learns or counts in it"
                )
        if weights_digest(embedders[0]) != self.state:
            raise InvalidInput(
                f"{self.name} changed while it was at work: its state dict is not what it was. What was found is of no "
                "one model; switch off what learns or counts in it, and give it in evaluation mode"
            )


def _same(one: Tensor, other: Tensor) -> bool:
    return apart(one.double(), other) <= STEADY


def _different(
    faces: FaceSource, indices: NDArray[np.int64], embedder: MirrorEmbedder
) -> tuple[tuple[int, ...], Tensor]:
    """A readable face and the next that is another picture, and which they are; noise where there are none.

    Drawn from all over, so that they stand at other places of their batches than the first ones.
    """
    kept, taken = torch.empty(0, 3, *embedder.size), []
    for index in np.random.default_rng(0).permutation(indices)[:LOOKED_AT]:
        read, _ = read_images(faces, [index], embedder.size, skip_unreadable=True)
        image = as_tensor(read)
        if len(image) and (not len(kept) or float((image - kept).abs().mean()) > ALIKE):
            kept = torch.cat([kept, image])
            taken.append(int(index))
        if len(kept) == FACES:
            return tuple(taken), kept.to(embedder.device)
    return (), noise_for(embedder.backbone)
