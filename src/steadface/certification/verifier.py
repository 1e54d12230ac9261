"""The smoothed verifier: what it makes of an image, drawn so that what is computed is what the theorem speaks of.

    e ~ N(0, sigma^2 I),   c(x) = cos(f([x + e]), template),   [.] rounds to whole grey levels

The theorem holds for exact sums. In float32 `x + e` rounds, and the rounded digits tell which `x` they came from: what
looks like a certificate then is none (Jin et al., Getting a-Round Guarantees, 2022). So rounding to grey levels is part
of the verifier (compare Voracek and Hein, Sound Randomized Smoothing in Floating-Point Arithmetics, ICLR 2023): images
are whole grey levels, and `[x + e] = x + [e]` is a sum of small whole numbers, which is exact. The noise is drawn in
double precision, of which a grey level keeps the least part. Nothing is clipped: a network is given levels below 0
and above 255, unless it clips them itself, which is then part of it.

Cosines that are within `ROUNDING` of the threshold count as wrong, since a network computes a little differently in
batches of another size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from steadface.errors import InvalidInput
from steadface.evaluation.embedding import MirrorEmbedder

LEVELS = 255
ROUNDING = 1e-5
"""Of a cosine of float32 embeddings."""

Levels = NDArray[np.float64]
"""Images (n, 3, H, W) in grey levels: whole numbers from 0 to 255 as they come, any between once attacked."""


def levels_of(images: NDArray[np.uint8]) -> Levels:
    """Images (n, H, W, 3) as they are read, in grey levels."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float64)


def draws_of(seed: int, name: str) -> np.random.Generator:
    """Noise that depends on the seed and on whose it is, and on nothing that was drawn before."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, crc32(name.encode())])))


@dataclass(frozen=True, kw_only=True)
class SmoothedVerifier:
    """An embedder under noise of standard deviation `sigma`, on the pixel range 0..1; `batch` images at a time.

    `run` embeds as `embedder` does, perhaps faster.
    """

    embedder: MirrorEmbedder
    run: Callable[[Tensor], Tensor]
    sigma: float
    batch: int
    device: torch.device

    def noisy(self, levels: Levels, count: int, rng: np.random.Generator) -> Tensor:
        """`count` noisy versions (count, 3, H, W) of one image (3, H, W), on the pixel range."""
        noise = rng.standard_normal((count, *levels.shape))
        noise *= self.sigma * LEVELS
        noise += levels
        return torch.from_numpy(np.floor(noise + 0.5, out=noise)).to(torch.float32).div_(LEVELS)

    def embeddings(self, levels: Levels, draws: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Unit embeddings (draws, D) of noisy versions of one image (3, H, W).

        Raises InvalidInput where the network gives NaN or infinity for one.
        """
        parts = []
        with torch.inference_mode():
            for start in range(0, draws, self.batch):
                images = self.noisy(levels, min(self.batch, draws - start), rng)
                parts.append(self.run(images.to(self.device)).cpu())
        found: NDArray[np.float32] = torch.cat(parts).numpy()
        if not np.isfinite(found).all():
            raise InvalidInput(
                f"the recogniser gives NaN or infinity for a face with noise of sigma {self.sigma:g}, so that nothing "
                "can be certified: give a smaller --sigma, or a recogniser that was hardened against noise"
            )
        return found

    def template(self, levels: Levels, draws: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """What is enrolled of an image (3, H, W): the normalised mean (D,) of unit embeddings under noise."""
        return template_of(self.embeddings(levels, draws, rng))


def template_of(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """The normalised mean (D,) of unit embeddings (draws, D)."""
    return np.asarray(F.normalize(torch.from_numpy(embeddings).mean(0), dim=0).numpy(), dtype=np.float32)
