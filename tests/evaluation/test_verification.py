import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from steadface.errors import SteadfaceError
from steadface.evaluation.verification import (
    best_threshold,
    cross_validated_accuracy,
    equal_error_rate,
    lowest_fmr,
    operating_points,
    roc,
    supports,
    threshold_at,
    verify,
)


def scores(seed: int, pairs: int = 60, levels: int = 25) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Overlapping genuine and impostor scores with many ties."""
    rng = np.random.default_rng(seed)
    same = rng.random(pairs) < 0.5
    raw = rng.normal(loc=np.where(same, 0.5, 0.0), scale=0.4)
    return (np.round(raw * levels) / levels).astype(np.float32), same


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fmr", [0.02, 0.1, 0.29, 0.5, 0.99])
def test_threshold_is_the_smallest_that_keeps_the_fmr(dtype: type[np.floating], fmr: float) -> None:
    for seed in range(20):
        impostor = scores(seed)[0].astype(dtype)
        threshold = threshold_at(impostor, fmr)
        below = np.nextafter(dtype(threshold), dtype(-np.inf))
        assert np.mean(impostor >= threshold) <= fmr + 1e-12
        assert np.mean(impostor >= below) > fmr


def test_threshold_allows_exactly_the_share_asked_for() -> None:
    impostor = np.linspace(0, 1, 1000, dtype=np.float32)
    for fmr in (0.1, 0.01, 0.001, 0.29):
        assert np.mean(impostor >= threshold_at(impostor, fmr)) == pytest.approx(fmr, abs=1e-12)


def test_threshold_refuses_equal_impostors_together() -> None:
    impostor = np.array([0.1, 0.5, 0.5, 0.5, 0.2, 0.3, 0.4, 0.0, 0.0, 0.0])
    assert threshold_at(impostor, 0.2) > 0.5  # two could pass, but three are equal
    assert threshold_at(impostor, 0.3) <= 0.5


@pytest.mark.parametrize("fmr", [0.0, 1.0, -0.1, float("nan")])
def test_threshold_refuses_what_is_no_rate(fmr: float) -> None:
    with pytest.raises(SteadfaceError, match="between 0 and 1"):
        threshold_at(np.array([0.1, 0.2]), fmr)


def correct(similarity: NDArray[np.floating], same: NDArray[np.bool_], threshold: float) -> int:
    return sum(bool(value >= threshold) == bool(truth) for value, truth in zip(similarity, same, strict=True))


@pytest.mark.parametrize("seed", range(30))
def test_best_threshold_is_the_best_of_all(seed: int) -> None:
    similarity, same = scores(seed, pairs=41)
    everything = np.concatenate([np.unique(similarity), [similarity.max() + 1]])
    best = max(correct(similarity, same, threshold) for threshold in everything)
    assert correct(similarity, same, best_threshold(similarity, same)) == best


def test_best_threshold_lies_midway_in_the_gap() -> None:
    assert best_threshold(np.array([0.1, 0.2, 0.6, 0.9]), np.array([False, False, True, True])) == pytest.approx(0.4)


def test_best_threshold_can_accept_or_refuse_everything() -> None:
    similarity = np.array([0.1, 0.7])
    assert best_threshold(similarity, np.array([True, True])) <= 0.1
    assert best_threshold(similarity, np.array([False, False])) > 0.7


def test_cross_validated_accuracy_equals_the_readable_reference() -> None:
    similarity, same = scores(3, pairs=200)
    fold = np.arange(200) % 10
    accuracies, thresholds = cross_validated_accuracy(similarity, same, fold)
    for number in range(10):
        own = fold == number
        threshold = best_threshold(similarity[~own], same[~own])
        assert thresholds[number] == threshold
        assert accuracies[number] == correct(similarity[own], same[own], threshold) / own.sum()


def test_a_fold_does_not_choose_its_own_threshold() -> None:
    same = np.tile([True, False], 8)
    similarity = np.where(same, 0.8, 0.2)
    fold = np.repeat([0, 1, 2, 3], 4)
    similarity[fold == 3] += 1  # separable on its own, but not at the threshold of the others
    accuracies, _ = cross_validated_accuracy(similarity, same, fold)
    assert accuracies.tolist() == [1.0, 1.0, 1.0, 0.5]


def test_roc_points_are_what_counting_gives() -> None:
    similarity, same = scores(5)
    curve = roc(similarity[same], similarity[~same])
    for threshold, fmr, tar in zip(curve.thresholds, curve.fmr, curve.tar, strict=True):
        assert fmr == pytest.approx(np.mean(similarity[~same] >= threshold))
        assert tar == pytest.approx(np.mean(similarity[same] >= threshold))
    assert (curve.fmr[0], curve.tar[0]) == (1, 1)
    assert (curve.fmr[-1], curve.tar[-1]) == (0, 0)


def test_eer_of_two_normal_distributions() -> None:
    quantiles = ndtri((np.arange(20_000) + 0.5) / 20_000)
    assert equal_error_rate(roc(quantiles + 2, quantiles)) == pytest.approx(ndtr(-1), abs=1e-4)


@pytest.mark.parametrize(
    ("genuine", "impostor", "expected"),
    [
        ([0.8, 0.9], [0.1, 0.2], 0.0),
        ([0.1, 0.2], [0.8, 0.9], 1.0),
        ([0.5, 0.5], [0.5, 0.5], 0.5),  # one step from all accepted to all refused
        ([0.4, 0.8, 0.9], [0.1, 0.2, 0.6], 1 / 3),
        ([0.4, 0.8], [0.1, 0.2, 0.3, 0.6], 0.25),  # at FMR 1/4 the FNMR rises from 0 to 1/2
    ],
)
def test_eer_by_hand(genuine: list[float], impostor: list[float], expected: float) -> None:
    assert equal_error_rate(roc(np.array(genuine), np.array(impostor))) == pytest.approx(expected)


def test_thinning_keeps_the_ends_and_invents_nothing() -> None:
    rng = np.random.default_rng(0)
    curve = roc(rng.normal(2, 1, 4000), rng.normal(0, 1, 4000))
    thin = curve.thinned(200)
    assert 100 < len(thin.fmr) <= 200
    assert (thin.fmr[0], thin.fmr[-1], thin.tar[0], thin.tar[-1]) == (1, 0, 1, 0)
    points = set(zip(curve.fmr, curve.tar, strict=True))
    assert all(point in points for point in zip(thin.fmr, thin.tar, strict=True))
    decades = np.floor(np.log10(thin.fmr[thin.fmr > 0]))
    assert all(np.sum(decades == decade) >= 10 for decade in (-1, -2, -3))  # log axes are served as well


def test_operating_points_end_where_the_impostors_do() -> None:
    rng = np.random.default_rng(1)
    points = operating_points(rng.normal(3, 1, 500), rng.normal(0, 1, 3000))
    assert [point.fmr for point in points] == [1e-1, 1e-2, 1e-3]
    assert lowest_fmr(3000) == 1e-3
    assert supports(3000, 1e-3)
    assert not supports(2999, 1e-3)
    for point in points:
        assert point.measured_fmr <= point.fmr
        assert point.tar + point.fnmr == pytest.approx(1)
        assert point.tar_ci[0] <= point.tar <= point.tar_ci[1]
        assert point.fnmr_ci == pytest.approx((1 - point.tar_ci[1], 1 - point.tar_ci[0]))


def test_json_has_plain_types_and_what_log_axes_can_show() -> None:
    similarity, same = scores(7, pairs=600)
    content = json.loads(json.dumps(verify(similarity, same, np.arange(600) % 10).to_json(), allow_nan=False))
    assert content["genuine_pairs"] + content["impostor_pairs"] == 600
    assert content["accuracy"] == pytest.approx(np.mean(content["fold_accuracies"]))
    assert content["accuracy_std"] == pytest.approx(np.std(content["fold_accuracies"]))
    assert min(content["det"]["fmr"]) > 0
    assert min(content["det"]["fnmr"]) > 0
    assert content["genuine_mean"] > content["impostor_mean"]


@pytest.mark.parametrize("kind", [True, False])
def test_pairs_of_one_kind_are_refused(kind: bool) -> None:
    with pytest.raises(SteadfaceError, match="some of both"):
        verify(np.ones(4), np.full(4, kind), np.arange(4))


def test_a_single_fold_and_nan_are_refused() -> None:
    same = np.array([True, False])
    with pytest.raises(SteadfaceError, match="single fold"):
        verify(np.array([0.5, 0.1]), same, np.zeros(2, dtype=np.int64))
    with pytest.raises(SteadfaceError, match="not finite"):
        verify(np.array([np.nan, 0.1]), same, np.arange(2))
