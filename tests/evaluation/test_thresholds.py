"""Thresholds to deploy: exact on pairs that can be counted, with intervals that hold what they promise."""

import tracemalloc
from math import ceil

import numpy as np
import pytest

from steadface.errors import SteadfaceError
from steadface.evaluation.calibration import cross_similarities
from steadface.evaluation.thresholds import (
    MOST_PER_PERSON,
    CrossPairs,
    Thresholds,
    images_to_measure,
    least_threshold,
    measure_thresholds,
    most_alike_strangers,
)
from steadface.evaluation.verification import supports, threshold_at

from ..rounding import rounding


def measured_on(embeddings, people):
    return measure_thresholds(CrossPairs.of(embeddings, people))


def people_of(count, images, *, noise=0.8, size=16, seed=0):
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(count), images)
    rows = rng.normal(size=(count, size))[people] + noise * rng.normal(size=(len(people), size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), people


@pytest.fixture(scope="module")
def measured():
    embeddings, people = people_of(40, 6)
    return measured_on(embeddings, people), cross_similarities(embeddings, people)


def test_each_threshold_accepts_just_the_share_of_impostors_that_it_stands_for(measured):
    thresholds, pairs = measured
    assert thresholds.impostor_pairs == len(pairs.impostor) == 40 * 39 // 2 * 36
    for point in thresholds.points:
        accepted = np.mean(pairs.impostor >= point.threshold)
        assert accepted <= point.fmr
        assert accepted > point.fmr - 2 / len(pairs.impostor)
        assert point.fnmr == pytest.approx(np.mean(pairs.genuine < point.threshold))


def test_intervals_surround_their_figures_and_widen_where_impostors_are_few(measured):
    points = measured[0].points
    for point in points:
        assert point.threshold_ci[0] <= point.threshold <= point.threshold_ci[1]
        assert point.fnmr_ci[0] <= point.fnmr <= point.fnmr_ci[1]
    widths = [high - low for low, high in (point.threshold_ci for point in points)]
    assert widths[-1] > 1.5 * widths[0]


def test_intervals_hold_the_true_threshold_about_as_often_as_they_say():
    true = {point.fmr: point.threshold for point in measured_on(*people_of(400, 3, seed=99)).points}
    held = 0
    for seed in range(20):
        (point,) = [one for one in measured_on(*people_of(40, 3, seed=seed)).points if one.fmr == 0.05]
        held += point.threshold_ci[0] <= true[0.05] <= point.threshold_ci[1]
    assert held >= 16


def test_between_measured_rates_thresholds_lie_on_a_line_in_the_logarithm(measured):
    thresholds = measured[0]
    one, other = thresholds.at(1e-1), thresholds.at(5e-2)
    middle = thresholds.at((1e-1 * 5e-2) ** 0.5)
    assert middle == pytest.approx((one + other) / 2)
    assert thresholds.at(1e-2) == next(point.threshold for point in thresholds.points if point.fmr == 1e-2)


@pytest.mark.parametrize("fmr", [0.5, 1e-6, 0.0, -1.0, float("nan")])
def test_no_threshold_is_made_up_outside_of_what_was_measured(measured, fmr):
    measured_there = r"calibrated for, .* to 0\.1 \(40 people, 28080 impostor pairs\).*; ask for one of 0\.1, 0\.05, "
    with pytest.raises(SteadfaceError, match=measured_there):
        measured[0].at(fmr)


def test_a_rate_without_a_row_says_what_it_would_take(measured):
    thresholds = measured[0]
    images = ceil(thresholds.images * (60_000 / 28_080) ** 0.5)  # pairs grow with the square of images
    with pytest.raises(SteadfaceError, match=f"takes 60,000 impostor pairs, about {images} images of more people"):
        thresholds.at(5e-5)
    with pytest.raises(SteadfaceError, match="takes 3,000,000,000 impostor pairs, more than any calibration"):
        thresholds.at(1e-9)


def test_few_people_with_many_images_do_not_pass_for_many_people(measured):
    thresholds = measured[0]  # 780 pairs of people
    assert thresholds.lowest_fmr < 1e-3
    assert thresholds.rests_on_few_people(1e-3)
    assert not thresholds.rests_on_few_people(1e-2)


def test_it_can_be_written_down(measured):
    assert Thresholds.from_json(measured[0].to_json()) == measured[0]
    with pytest.raises(SteadfaceError, match="no points"):
        Thresholds.from_json({**measured[0].to_json(), "points": []})


def test_unreadable_images_are_left_out():
    embeddings, people = people_of(20, 4)
    whole = measured_on(embeddings, people)
    holed = np.concatenate([embeddings, np.full((3, 16), np.nan, dtype=np.float32)])
    assert measured_on(holed, np.concatenate([people, [0, 1, 20]])) == whole


def test_too_few_people_are_refused():
    embeddings, people = people_of(3, 2)
    with pytest.raises(SteadfaceError, match=r"30 impostor pairs, and 6 images of 3 people make 12"):
        measured_on(embeddings, people)
    with pytest.raises(SteadfaceError, match="nobody has two"):
        measured_on(*people_of(20, 1))


def test_pairs_are_those_of_the_whole_matrix_and_take_a_fraction_of_the_memory():
    embeddings, people = people_of(200, 5)
    embeddings[7] = np.nan
    tracemalloc.start()
    pairs = CrossPairs.of(embeddings, people)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    used = np.delete(np.arange(len(people)), 7)
    matrix = embeddings[used] @ embeddings[used].T
    first, second = np.triu_indices(len(used), 1)
    same = people[used][first] == people[used][second]
    np.testing.assert_array_equal(pairs.genuine, matrix[first, second][same])
    np.testing.assert_array_equal(pairs.impostor, matrix[first, second][~same])
    np.testing.assert_array_equal(pairs.genuine_owner, people[used][first[same]])
    np.testing.assert_array_equal(pairs.rows[pairs.first], used[first[~same]])
    np.testing.assert_array_equal(pairs.rows[pairs.second], used[second[~same]])
    assert peak < 3 * matrix.nbytes
    best = pairs.highest(50)
    np.testing.assert_array_equal(pairs.impostor[best], np.sort(pairs.impostor)[::-1][:50])


def test_nobody_is_drawn_more_often_than_others_with_many_images():
    people = np.repeat([0, 1, 2], [500, 40, 7])
    chosen = images_to_measure(people, seed=1)
    assert np.bincount(people[chosen]).tolist() == [MOST_PER_PERSON, MOST_PER_PERSON, 7]
    assert np.array_equal(chosen, np.unique(chosen))
    assert not np.array_equal(chosen, images_to_measure(people, seed=2))


def test_one_person_under_two_names_is_found():
    embeddings, people = people_of(30, 4, noise=0.3)
    renamed = people.copy()
    renamed[[0, 1]] = 77
    (first, second, similarity), *others = most_alike_strangers(CrossPairs.of(embeddings, renamed))
    assert {int(renamed[first]), int(renamed[second])} == {0, 77}
    assert similarity == pytest.approx(float(embeddings[first] @ embeddings[second]), abs=rounding(embeddings.shape[1]))
    assert similarity > 1.1 * others[0][2]
    named = [frozenset((int(renamed[one]), int(renamed[other]))) for one, other, _ in others]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("threshold", value) for value in (float("nan"), float("-inf"), 40.0, -2.0, "0.3", "-1", True, None, [0.3])),
        *(("fmr", value) for value in (0.0, 1.0, -0.1, float("nan"), "0.1", None)),
        *(("fnmr", value) for value in (-0.1, 1.5, float("inf"), "0")),
        *(("threshold_ci", value) for value in ([0.5, 0.1], [0.1], [0.1, "0.2"], [-9.0, 0.2], 0.2, [0.1, 0.2, 0.3])),
        ("fnmr_ci", [0.9, 0.1]),
    ],
)
def test_points_in_a_file_are_what_they_may_be(
    measured: tuple[Thresholds, object, object], key: str, value: object
) -> None:
    data = measured[0].to_json()
    with pytest.raises(SteadfaceError, match=rf"points.0.{key}"):
        Thresholds.from_json({**data, "points": [{**data["points"][0], key: value}, *data["points"][1:]]})


@pytest.mark.parametrize("key", ["people", "images", "genuine_pairs", "impostor_pairs", "seed"])
@pytest.mark.parametrize("value", [-1, 10**30, 3.5, 1e9, "40", True, None, [40]])
def test_counts_in_a_file_are_counts(measured: tuple[Thresholds, object, object], key: str, value: object) -> None:
    with pytest.raises(SteadfaceError, match=key):
        Thresholds.from_json({**measured[0].to_json(), key: value})


def test_counts_in_a_file_fit_each_other(measured: tuple[Thresholds, object, object]) -> None:
    for changed in ({"impostor_pairs": 10**9}, {"images": 10}, {"people": 241}):
        with pytest.raises(SteadfaceError, match="do not make"):
            Thresholds.from_json({**measured[0].to_json(), **changed})


def test_points_in_a_file_are_in_order(measured: tuple[Thresholds, object, object]) -> None:
    data = measured[0].to_json()
    with pytest.raises(SteadfaceError, match="order"):
        Thresholds.from_json({**data, "points": data["points"][::-1]})
    first, second, *others = data["points"]
    with pytest.raises(SteadfaceError, match="order"):  # rises with the FMR
        Thresholds.from_json({**data, "points": [{**first, "threshold": 0.99}, second, *others]})


def test_a_threshold_that_no_unit_vectors_can_have_is_refused(measured: tuple[Thresholds, object, object]) -> None:
    data = measured[0].to_json()
    for low in (-1.0, -0.5, -0.2):
        with pytest.raises(SteadfaceError, match="lower than any"):
            Thresholds.from_json({**data, "points": [{**one, "threshold": low} for one in data["points"]]})


@pytest.mark.parametrize(("people", "each"), [(12, 2), (2, 30), (60, 3)])
def test_the_lowest_threshold_is_below_that_of_people_as_far_apart_as_can_be(people: int, each: int) -> None:
    # Two opposite poles, a simplex, and a circle: where impostors are as unlike as geometry allows.
    angles = np.linspace(0, 2 * np.pi, people, endpoint=False)
    simplex = np.eye(people) - 1 / people
    for directions in (np.stack([np.cos(angles), np.sin(angles)], 1), simplex, np.resize([[1.0], [-1.0]], (people, 1))):
        unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        labels = np.arange(people).repeat(each)
        pairs = CrossPairs.of(unit[labels].astype(np.float32), labels)
        for fmr in (0.1, 0.02):
            if supports(len(pairs.impostor), fmr):
                at = threshold_at(pairs.impostor, fmr)
                assert at >= least_threshold(fmr, len(labels), len(pairs.genuine), len(pairs.impostor))
