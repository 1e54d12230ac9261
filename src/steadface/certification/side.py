"""The pairs of one goal and their draws: what is certified of each."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from steadface.certification import smoothing
from steadface.certification.verifier import ROUNDING
from steadface.evaluation.series import Aim

Floats = NDArray[np.float64]


def on_right_side(aim: Aim, cosines: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the verifier is right about noisy `cosines`, and no rounding of the network would change that."""
    return np.asarray(~aim.broken(cosines + aim.sign * ROUNDING))


@dataclass(frozen=True, kw_only=True)
class Side:
    """n pairs `chosen` of the pair set, their templates `enrolled` (n, D) and noisy `cosines` (n, draws); a statement
    about one may be wrong with probability `alpha`. A genuine pair is certified against `dodging`, which lowers its
    cosine, an impostor pair against `impersonation`.
    """

    aim: Aim
    chosen: NDArray[np.int64]
    enrolled: NDArray[np.float32]
    cosines: NDArray[np.float32]
    sigma: float
    alpha: float

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def draws(self) -> int:
        return int(self.cosines.shape[1])

    @cached_property
    def smoothed(self) -> Floats:
        """(n,) medians of the draws: what the smoothed verifier compares with its threshold."""
        return np.asarray(np.median(self.cosines, axis=1), dtype=np.float64)

    @cached_property
    def right(self) -> NDArray[np.int64]:
        """(n,) draws on the right side of the threshold."""
        return np.asarray(on_right_side(self.aim, self.cosines).sum(axis=1), dtype=np.int64)

    @cached_property
    def least(self) -> Floats:
        """(n,) shares of all noise that are on the right side at least."""
        return smoothing.least_share(self.right, self.draws, self.alpha)

    @cached_property
    def radii(self) -> Floats:
        """(n,) certified radii; 0 or less where nothing is certified."""
        return smoothing.certified_radius(self.right, self.draws, sigma=self.sigma, alpha=self.alpha)

    def bounds(self, radius: float) -> Floats:
        """(n,) how far the smoothed cosines can go towards the attacker's goal within a radius."""
        low_and_high = smoothing.cosine_bounds(self.cosines, radius, sigma=self.sigma, alpha=self.alpha)
        return low_and_high[:, 0 if self.aim.sign < 0 else 1]
