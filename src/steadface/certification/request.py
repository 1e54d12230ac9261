"""What is asked of a certification."""

from dataclasses import dataclass, field
from math import ceil, inf, sqrt
from typing import Any

import torch

from steadface.arguments import count, flag, number, rate, seed
from steadface.attacks.gaussian import WIDEST_BLUR
from steadface.audit.request import checked_radii
from steadface.certification.smoothing import draws_needed
from steadface.data.pairs import PairSet
from steadface.devices import resolve_device
from steadface.errors import InvalidInput
from steadface.evaluation.thresholds import checked_threshold
from steadface.evaluation.verification import pairs_needed
from steadface.recognizers import OpenedRecognizer

RADII = (0.25, 0.5)
TEMPLATE_DRAWS = 64
"""Noisy versions of an enrolled image, and of each that the threshold comes from; a mean of so many is known to an
eighth of their own spread."""
EAGER_ON_CPU, FILLS = 16, 128
"""Images at a time: on a CPU feature maps that fit into its caches are worth more than long loops, unless compiled."""
CALIBRATION_IMAGES = 400
"""Whose cross pairs, some 80,000, the threshold comes from, or listed pairs; more where the FMR takes more."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked: `sigma` of the noise and the l2 `radii` to report are on the pixel range 0..1; `draws` of each
    pair; all statements together hold with `confidence`. `attacked` pairs of each goal are attacked, as a check.

    Raises `SteadfaceError` for what cannot be, and where the draws are too few for a radius.
    """

    model: OpenedRecognizer
    pairs: PairSet
    sigma: float = 0.25
    radii: tuple[float, ...] = RADII
    draws: int = 1000
    confidence: float = 0.95
    fmr: float = 1e-2
    threshold: float | None = None
    max_pairs: int = 100
    attacked: int = 10
    seed: int = 0
    mirror: bool = False
    blur: float = 0.0
    """Pixels by which the verifier blurs what it sees, noise and all."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    compile: bool = False
    """Pays where some 50,000 images are embedded, since compiling takes a minute or so."""
    batch_size: int | None = None
    """Images embedded at once; none given: what is fastest, `EAGER_ON_CPU` or `FILLS`, as is set with the request."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "radii", tuple(sorted({*checked_radii(self.radii, "l2")})))
        object.__setattr__(self, "device", resolve_device(self.device))
        if not 0 < number("sigma", self.sigma) < inf:
            raise InvalidInput(f"sigma {self.sigma:g} is no standard deviation; give a positive number, such as 0.25")
        for name, least in (("draws", 1), ("max_pairs", 1), ("attacked", 0)):
            count(name, getattr(self, name), least=least)
        rate("confidence", self.confidence)
        rate("FMR", self.fmr)
        seed(self.seed)
        flag("mirror", self.mirror)
        flag("compile", self.compile)
        if not 0 <= number("blur", self.blur) <= WIDEST_BLUR:
            raise InvalidInput(f"blur {self.blur:g} is no width in pixels from 0 to {WIDEST_BLUR:g}; 1 is usual")
        if self.batch_size is None:
            eager_on_cpu = self.device.type == "cpu" and not self.compile
            object.__setattr__(self, "batch_size", EAGER_ON_CPU if eager_on_cpu else FILLS)
        count("batch_size", self.batch_size)
        if self.threshold is not None:
            checked_threshold(self.threshold)

    @property
    def batch(self) -> int:
        """How many images are embedded at once."""
        assert self.batch_size is not None
        return self.batch_size

    @property
    def calibration_images(self) -> int:
        """Images whose cross pairs the threshold comes from: half as many again as the FMR takes, if that is more."""
        return max(CALIBRATION_IMAGES, ceil(1.5 * sqrt(2 * pairs_needed(self.fmr))))

    @property
    def calibration_pairs(self) -> int:
        """Listed pairs that it comes from where nobody says who the images show."""
        return max(CALIBRATION_IMAGES, pairs_needed(self.fmr))

    def statements(self, pairs: int) -> int:
        """Statements about so many pairs: of each its radius, and how far its cosine can fall, or rise, at each of
        `radii`.
        """
        return pairs * (1 + len(self.radii))

    def alpha(self, pairs: int) -> float:
        """How probably one statement may be wrong so that all hold with `confidence`: their share (Bonferroni), which
        asks nothing of how they depend on each other. Raises `SteadfaceError` where the draws are too few for a radius.
        """
        alpha = (1 - self.confidence) / self.statements(pairs)
        needed = draws_needed(max(self.radii), sigma=self.sigma, alpha=alpha)
        if needed > self.draws:
            raise InvalidInput(
                f"{self.draws:,} draws of {pairs} pairs at sigma {self.sigma:g} cannot certify a radius of "
                f"{max(self.radii):g}, even where all agree: that takes {needed:,}. Draw more with --samples (more "
                "than that leaves room for some that disagree), ask for a smaller --radius, or give a larger --sigma"
            )
        return alpha

    def settings(self) -> dict[str, Any]:
        """What is printed in the report."""
        return {
            "sigma": self.sigma,
            "radii": list(self.radii),
            "draws": self.draws,
            "template_draws": TEMPLATE_DRAWS,
            "confidence": self.confidence,
            "fmr": self.fmr,
            "threshold": self.threshold,
            "max_pairs": self.max_pairs,
            "attacked": self.attacked,
            "seed": self.seed,
            "mirror": self.mirror,
            "blur": self.blur,
        }

    def identity(self) -> dict[str, Any]:
        """What decides every figure, as plain JSON."""
        return self.settings() | {
            "model": self.model.fingerprint,
            "pairs": self.pairs.fingerprint(),
            "batch_size": self.batch,
            "compile": self.compile,
        }
