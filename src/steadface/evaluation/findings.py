"""What an attack found, and what should make a reader doubt it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadface.attacks.base import Attack
from steadface.evaluation.calibration import Calibration
from steadface.evaluation.intervals import clopper_pearson
from steadface.evaluation.series import Goal

COLLAPSED = 0.5
"""Mean impostor cosine above which everybody looks alike, and a small attack cannot change much."""

RETREAT = 0.01
"""A larger ball that brings the cosine this much less far than a smaller one did points at masked gradients."""


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """`errors` of `pairs` are wrong at some radius up to `eps`; `errors_8bit` still are when saved as 8-bit images.

    Cosines are means over all pairs: clean, and the furthest that the attack has brought them up to `eps`.
    Attacks end soon after the threshold, so the latter says how far pairs that hold were moved, no more. `attacked`
    are the pairs by their index in the set, and `wrong` those of them that `errors` counts.
    """

    attack: str
    norm: str
    eps: float
    goal: Goal
    fmr: float
    threshold: float
    pairs: int
    errors: int
    errors_8bit: int
    clean_errors: int
    clean_cosine: float
    cosine: float
    attacked: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()

    @property
    def error_rate(self) -> float:
        return self.errors / self.pairs

    def to_json(self) -> dict[str, Any]:
        return {
            "attack": self.attack,
            "norm": self.norm,
            "eps": self.eps,
            "goal": self.goal,
            "fmr": self.fmr,
            "threshold": self.threshold,
            "error_rate": self.error_rate,
            "ci": list(clopper_pearson(self.errors, self.pairs)),
            "pairs": self.pairs,
            "clean_error_rate": self.clean_errors / self.pairs,
            "clean_ci": list(clopper_pearson(self.clean_errors, self.pairs)),
            "error_rate_8bit": self.errors_8bit / self.pairs,
            "clean_cosine": self.clean_cosine,
            "cosine": self.cosine,
        }


@dataclass(frozen=True, kw_only=True)
class AttackExample:
    """One attacked pair for a sheet of images, each (H, W, 3) float32 in [0, 1].

    The adversarial image is the attack's best one, rounded to 8 bits, found inside the ball of radius `eps`.
    """

    attack: str
    norm: str
    eps: float
    goal: Goal
    threshold: float
    source: NDArray[np.float32]
    reference: NDArray[np.float32]
    adversarial: NDArray[np.float32]
    cosine_before: float
    cosine_after: float


@dataclass(frozen=True, kw_only=True)
class Robustness:
    calibration: Calibration
    results: tuple[AttackResult, ...]
    examples: tuple[AttackExample, ...]
    warnings: tuple[str, ...]


def masking(name: str, goal: Goal, attacks: Sequence[Attack], gained: NDArray[np.float32]) -> list[str]:
    """Warnings where a larger ball gained less than the smaller one before it, on the pairs attacked in both.

    `gained` (K, n) is what the attacker maximised at each of K rising radii, NaN where a pair was left alone. Since
    the smaller ball lies in the larger one, an attack that can be trusted gains at least as much.
    """
    warnings = []
    for number in range(1, len(attacks)):
        both = np.isfinite(gained[number]) & np.isfinite(gained[number - 1])
        if not both.any():
            continue
        change = float((gained[number] - gained[number - 1])[both].mean())
        if change < -RETREAT:
            ball = attacks[number].ball
            warnings.append(
                f"{name}, {goal}: at {ball.norm} {ball.radius:.4g} the attack moves the cosine {-change:.3f} less far "
                f"than at {attacks[number - 1].ball.radius:.4g}; gradients may be masked, so use more steps or "
                "restarts, or another attack, before trusting this row"
            )
    return warnings


def doubts(results: Sequence[AttackResult]) -> list[str]:
    """Warnings about attacks that changed nothing, and about verifiers that fail before any attack."""
    warnings = []
    for goal in ("dodging", "impersonation"):
        rows = [result for result in results if result.goal == goal]
        if rows and rows[0].clean_errors * 2 > rows[0].pairs:
            warnings.append(
                f"{goal}: {rows[0].clean_errors} of {rows[0].pairs} pairs are wrong before any attack at the threshold "
                f"of FMR {rows[0].fmr:g}; the rates under attack say little"
            )
    return warnings + [
        f"{result.attack}, {result.goal}: no pair broke up to {result.norm} {result.eps:.4g}; try a larger eps, which "
        "must break them in the end, before believing in robustness"
        for result in _largest(results)
        if result.errors == result.clean_errors < result.pairs and result.eps > 0
    ]


def collapse(name: str, impostor_mean: float) -> list[str]:
    """A warning where different people look alike: a collapsed embedding seems robust and recognises nobody."""
    if impostor_mean <= COLLAPSED:
        return []
    return [
        f"{name}: the mean cosine of different people is {impostor_mean:.2f}; the embedding has collapsed, and low "
        "error rates under attack mean nothing then"
    ]


def _largest(results: Sequence[AttackResult]) -> list[AttackResult]:
    last = {(result.attack, result.norm, result.goal): result for result in results}  # radii rise
    return list(last.values())
