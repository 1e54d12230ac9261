"""1:1 verification from similarities alone: curves, operating points and cross-validated accuracy.

Words after ISO/IEC 19795-1: a pair is accepted iff its similarity >= threshold; FMR is the share of impostor pairs
accepted, FNMR the share of genuine pairs refused, TAR = 1 - FNMR.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadface.errors import InvalidInput
from steadface.evaluation.intervals import clopper_pearson

Floats = NDArray[np.floating[Any]]

DECADES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
RULE_OF_THREE = 3
"""No false match in n trials bounds the FMR by 3/n (95 %), so n impostor pairs speak of FMR >= 3/n."""


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What a verifier does at the threshold of an asked FMR; `measured_fmr` never exceeds `fmr`."""

    fmr: float
    threshold: float
    measured_fmr: float
    tar: float
    tar_ci: tuple[float, float]
    fnmr: float
    fnmr_ci: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "fmr": self.fmr,
            "threshold": self.threshold,
            "measured_fmr": self.measured_fmr,
            "tar": self.tar,
            "tar_ci": list(self.tar_ci),
            "fnmr": self.fnmr,
            "fnmr_ci": list(self.fnmr_ci),
        }


@dataclass(frozen=True, kw_only=True)
class Curve:
    """ROC points in the order of rising thresholds, from everything accepted to everything refused."""

    thresholds: Floats
    fmr: Floats
    tar: Floats

    def thinned(self, points: int = 400) -> "Curve":
        """At most `points` of the points, even along the curve drawn on both linear and log axes."""
        if len(self.fmr) <= points:
            return self
        drawn = np.stack([self.fmr, self.tar, _log(self.fmr), _log(1 - self.tar)])
        length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(drawn), axis=0))])
        keep = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)))
        keep[-1] = len(length) - 1
        return Curve(thresholds=self.thresholds[keep], fmr=self.fmr[keep], tar=self.tar[keep])

    def roc_json(self) -> dict[str, list[float]]:
        return {"fmr": self.fmr.tolist(), "tar": self.tar.tolist(), "threshold": self.thresholds.tolist()}

    def det_json(self) -> dict[str, list[float]]:
        """The points that log axes can show: those at which both errors occur."""
        both = (self.fmr > 0) & (self.tar < 1)
        return {"fmr": self.fmr[both].tolist(), "fnmr": (1 - self.tar[both]).tolist()}


@dataclass(frozen=True, kw_only=True)
class Verification:
    """All figures of one pair list; `curve` is thinned for drawing, the figures are not."""

    fold_accuracies: tuple[float, ...]
    fold_thresholds: tuple[float, ...]
    eer: float
    genuine_mean: float
    impostor_mean: float
    genuine_pairs: int
    impostor_pairs: int
    operating_points: tuple[OperatingPoint, ...]
    curve: Curve

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.fold_accuracies))

    @property
    def accuracy_std(self) -> float:
        return float(np.std(self.fold_accuracies))

    @property
    def lowest_fmr(self) -> float:
        return lowest_fmr(self.impostor_pairs)

    def to_json(self) -> dict[str, Any]:
        return {
            "accuracy": self.accuracy,
            "accuracy_std": self.accuracy_std,
            "fold_accuracies": list(self.fold_accuracies),
            "fold_thresholds": list(self.fold_thresholds),
            "eer": self.eer,
            "genuine_mean": self.genuine_mean,
            "impostor_mean": self.impostor_mean,
            "genuine_pairs": self.genuine_pairs,
            "impostor_pairs": self.impostor_pairs,
            "operating_points": [point.to_json() for point in self.operating_points],
            "lowest_fmr": self.lowest_fmr,
            "roc": self.curve.roc_json(),
            "det": self.curve.det_json(),
        }


def verify(similarity: Floats, same: NDArray[np.bool_], fold: NDArray[np.int64]) -> Verification:
    """Every figure of a pair list: `similarity`, `same`, `fold` are (P,).

    Raises `SteadfaceError` where genuine or impostor pairs are missing, or there is a single fold.
    """
    genuine, impostor = similarity[same], similarity[~same]
    _check(genuine, impostor)
    accuracies, thresholds = cross_validated_accuracy(similarity, same, fold)
    curve = roc(genuine, impostor)
    return Verification(
        fold_accuracies=tuple(accuracies.tolist()),
        fold_thresholds=tuple(thresholds.tolist()),
        eer=equal_error_rate(curve),
        genuine_mean=float(genuine.mean(dtype=np.float64)),
        impostor_mean=float(impostor.mean(dtype=np.float64)),
        genuine_pairs=len(genuine),
        impostor_pairs=len(impostor),
        operating_points=operating_points(genuine, impostor),
        curve=curve.thinned(),
    )


def lowest_fmr(impostor_pairs: int) -> float:
    """The lowest FMR of which so many impostor pairs can speak: 3/n, the rule of three."""
    return min(1.0, RULE_OF_THREE / impostor_pairs) if impostor_pairs else 1.0


def supports(impostor_pairs: int, fmr: float) -> bool:
    return impostor_pairs * fmr >= RULE_OF_THREE - 1e-9


def pairs_needed(fmr: float) -> int:
    """How many impostor pairs it takes to speak of an FMR."""
    return ceil(RULE_OF_THREE / fmr - 1e-9)


def why_no_row(impostor_pairs: int, fmrs: Iterable[float] = DECADES) -> str:
    """Why a table of `fmrs` ends where it does; empty where it has them all."""
    missing = [fmr for fmr in fmrs if not supports(impostor_pairs, fmr)]
    if not missing:
        return ""
    return (
        f"no row for FMR {missing[0]:g} or less: that takes {pairs_needed(missing[0]):,} impostor pairs, and there are "
        f"{impostor_pairs:,}"
    )


def threshold_at(impostor: Floats, fmr: float) -> float:
    """The smallest threshold at which the share of `impostor` (n,) accepted does not exceed `fmr`.

    It is the next number, in the precision of the similarities, above the highest impostor that must be
    refused; equal impostors are refused together. Raises `SteadfaceError` unless 0 < fmr < 1.

    >>> impostor = np.array([0.1, 0.2, 0.3, 0.9])
    >>> threshold = threshold_at(impostor, 0.25)  # one of four may be accepted
    >>> impostor >= threshold
    array([False, False, False,  True])
    """
    if not 0 < fmr < 1:
        raise InvalidInput(f"FMR {fmr} is not a rate between 0 and 1; ask for e.g. 1e-2")
    rank = len(impostor) - 1 - min(int(fmr * len(impostor) + 1e-9), len(impostor) - 1)
    refused = np.partition(impostor, rank)[rank]
    return float(np.nextafter(refused, impostor.dtype.type(np.inf)))


def operating_point(genuine: Floats, impostor: Floats, fmr: float) -> OperatingPoint:
    """TAR and FNMR with their 95 % Clopper-Pearson intervals at the threshold of `fmr`.

    >>> genuine, impostor = np.array([0.5, 0.8, 0.9, 0.95]), np.array([0.1, 0.2, 0.3, 0.6])
    >>> point = operating_point(genuine, impostor, 0.25)
    >>> point.measured_fmr, point.fnmr
    (0.25, 0.0)
    """
    threshold = threshold_at(impostor, fmr)
    accepted, trials = int(np.count_nonzero(genuine >= threshold)), len(genuine)
    return OperatingPoint(
        fmr=fmr,
        threshold=threshold,
        measured_fmr=float(np.count_nonzero(impostor >= threshold) / len(impostor)),
        tar=accepted / trials,
        tar_ci=clopper_pearson(accepted, trials),
        fnmr=(trials - accepted) / trials,
        fnmr_ci=clopper_pearson(trials - accepted, trials),
    )


def operating_points(genuine: Floats, impostor: Floats, fmrs: Iterable[float] = DECADES) -> tuple[OperatingPoint, ...]:
    """The operating points of those `fmrs` that the number of impostor pairs supports."""
    return tuple(operating_point(genuine, impostor, fmr) for fmr in fmrs if supports(len(impostor), fmr))


def roc(genuine: Floats, impostor: Floats) -> Curve:
    """FMR and TAR at every threshold that changes either, and above them all."""
    levels = np.unique(np.concatenate([genuine, impostor]))
    thresholds = np.append(levels, np.nextafter(levels[-1], levels.dtype.type(np.inf)))
    return Curve(thresholds=thresholds, fmr=_share_from(impostor, thresholds), tar=_share_from(genuine, thresholds))


def equal_error_rate(curve: Curve) -> float:
    """Where FMR = FNMR on the straight lines that join the points of the curve.

    >>> equal_error_rate(roc(np.array([0.4, 0.8]), np.array([0.1, 0.6])))
    0.5
    """
    excess = (1 - curve.tar) - curve.fmr  # rises from -1, everything accepted, to 1, everything refused
    after = int(np.argmax(excess >= 0))
    before = after - 1
    weight = -excess[before] / (excess[after] - excess[before])
    return float(curve.fmr[before] + weight * (curve.fmr[after] - curve.fmr[before]))


def best_threshold(similarity: Floats, same: NDArray[np.bool_]) -> float:
    """The threshold that classifies most of the pairs (P,) rightly: exact over all that differ.

    Thresholds lie midway between neighbouring similarities; of several that are equally good, the middle one.
    """
    order = np.argsort(similarity, kind="stable")
    values, genuine = similarity[order].astype(np.float64), same[order]
    refused_impostors = np.concatenate([[0], np.cumsum(~genuine)])
    accepted_genuine = genuine.sum() - np.concatenate([[0], np.cumsum(genuine)])
    cuts = np.flatnonzero(np.concatenate([[True], values[1:] > values[:-1], [True]]))  # between unequal only
    right = (refused_impostors + accepted_genuine)[cuts]
    best = cuts[right == right.max()]
    cut = int(best[len(best) // 2])
    if cut == 0 or cut == len(values):
        return float(values[0] if cut == 0 else np.nextafter(values[-1], np.inf))
    return float((values[cut - 1] + values[cut]) / 2)


def cross_validated_accuracy(
    similarity: Floats, same: NDArray[np.bool_], fold: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy and threshold of each fold, its threshold chosen on all other folds (the LFW protocol).

    Raises `SteadfaceError` for fewer than two folds.
    """
    names = np.unique(fold)
    if len(names) < 2:
        raise InvalidInput("the pairs lie in a single fold; accuracy needs two folds or more (LFW has ten)")
    exact = similarity.astype(np.float64)
    thresholds = np.array([best_threshold(exact[fold != name], same[fold != name]) for name in names])
    right = (exact >= thresholds[np.searchsorted(names, fold)]) == same
    return np.array([right[fold == name].mean() for name in names]), thresholds


def _check(genuine: Floats, impostor: Floats) -> None:
    if not len(genuine) or not len(impostor):
        raise InvalidInput(
            f"{len(genuine)} genuine and {len(impostor)} impostor pairs; verification needs some of both"
        )
    if not (np.isfinite(genuine).all() and np.isfinite(impostor).all()):
        raise InvalidInput("some similarities are not finite; the embeddings hold NaN or infinity")


def _share_from(values: Floats, thresholds: Floats) -> NDArray[np.float64]:
    return 1 - np.searchsorted(np.sort(values), thresholds, side="left") / len(values)


def _log(rate: Floats) -> Floats:
    positive = rate[rate > 0]
    return np.log10(np.maximum(rate, positive.min() / 2 if len(positive) else 1.0))
