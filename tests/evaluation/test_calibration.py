from dataclasses import replace

import numpy as np
import pytest

from steadface.errors import SteadfaceError
from steadface.evaluation.calibration import (
    calibrate,
    capped,
    count_impostors,
    cross_similarities,
    split_for_attack,
)
from steadface.evaluation.labelled import pairs_from_labels

from ..rounding import rounding
from .faces import noise_faces, without_people

MANY = pairs_from_labels(noise_faces(60, 4), 200, seed=3)


def unit(rows: int, seed: int = 0) -> np.ndarray:
    raw = np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_cross_similarities_are_those_of_two_loops(rows: int) -> None:
    embeddings, people = unit(30), np.random.default_rng(1).integers(0, 6, 30)
    genuine, impostor = [], []
    for i in range(30):
        for j in range(i + 1, 30):
            (genuine if people[i] == people[j] else impostor).append(embeddings[i] @ embeddings[j])
    cross = cross_similarities(embeddings, people, rows=rows)
    np.testing.assert_allclose(np.sort(cross.genuine), np.sort(genuine), atol=rounding(8))
    np.testing.assert_allclose(np.sort(cross.impostor), np.sort(impostor), atol=rounding(8))
    assert count_impostors(people) == len(impostor)


def test_capping_draws_without_repeats() -> None:
    images = np.arange(100, 200)
    few = capped(images, np.random.default_rng(0), 30)
    assert len(np.unique(few)) == 30
    assert np.isin(few, images).all()
    assert capped(images, np.random.default_rng(0), 100) is images


def test_attacked_and_calibration_people_are_others() -> None:
    split = split_for_attack(MANY, fmr=1e-2, max_pairs=10, seed=0)
    assert split.images is not None
    attacked = np.concatenate([split.genuine, split.impostor])
    people = MANY.people[np.concatenate([MANY.first[attacked], MANY.second[attacked]])]
    assert not np.isin(MANY.people[split.images], people).any()
    assert MANY.same[split.genuine].all()
    assert not MANY.same[split.impostor].any()
    # One pair of each kind from each of the ten folds.
    for chosen in (split.genuine, split.impostor):
        assert np.bincount(MANY.fold[chosen], minlength=10).tolist() == [1] * 10
    assert split.impostor_pairs == count_impostors(MANY.people[split.images])


def test_half_of_the_folds_stay_clean_when_the_pairs_touch_most_people() -> None:
    split = split_for_attack(MANY, fmr=1e-2, max_pairs=100, seed=0)
    attacked = np.concatenate([split.genuine, split.impostor])
    assert np.unique(MANY.fold[attacked]).tolist() == [0, 2, 4, 6, 8]
    assert split.images is not None
    assert len(np.unique(MANY.people[split.images])) == 30


def test_without_people_the_listed_pairs_of_other_folds_calibrate() -> None:
    pairs = without_people(MANY)
    split = split_for_attack(pairs, fmr=0.05, max_pairs=20, seed=0)
    assert split.images is None
    attacked = np.concatenate([split.genuine, split.impostor])
    assert not np.isin(np.unique(pairs.fold[split.listed]), pairs.fold[attacked]).any()
    assert split.impostor_pairs == len(split.listed) == np.sum(~pairs.same & (pairs.fold % 2 == 1))
    embeddings = unit(len(pairs.faces))
    found = calibrate(split, pairs, embeddings)
    listed = (embeddings[pairs.first[split.listed]] * embeddings[pairs.second[split.listed]]).sum(1)
    assert np.mean(listed >= found.threshold) == found.measured_fmr <= 0.05
    assert found.to_json()["pairs"] == "listed pairs of other folds"


def test_the_seed_decides() -> None:
    first, again, other = (split_for_attack(MANY, fmr=1e-2, max_pairs=10, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.genuine, again.genuine)
    assert not np.array_equal(first.genuine, other.genuine)


def test_threshold_is_that_of_the_other_people() -> None:
    split = split_for_attack(MANY, fmr=1e-2, max_pairs=10, seed=0)
    embeddings = unit(len(MANY.faces))
    found = calibrate(split, MANY, embeddings)
    moved = embeddings.copy()
    moved[np.setdiff1d(np.arange(len(embeddings)), split.images)] = -1  # whatever the attacked people look like
    assert calibrate(split, MANY, moved).threshold == found.threshold
    assert found.measured_fmr <= 1e-2 < found.measured_fmr + 2 / found.impostor_pairs
    assert found.impostor_pairs == split.impostor_pairs


def test_too_few_impostors_are_refused_with_the_remedy() -> None:
    with pytest.raises(SteadfaceError, match=r"FMR 1e-06 needs 3000000 impostor pairs .*max_pairs is 10"):
        split_for_attack(MANY, fmr=1e-6, max_pairs=10, seed=0)
    split = split_for_attack(MANY, fmr=1e-2, max_pairs=10, seed=0)
    unreadable = np.full((len(MANY.faces), 8), np.nan, dtype=np.float32)
    with pytest.raises(SteadfaceError, match="readable impostor pairs, and there are 0"):
        calibrate(split, MANY, unreadable)


def test_senseless_requests_are_refused() -> None:
    with pytest.raises(SteadfaceError, match="between 0 and 1"):
        split_for_attack(MANY, fmr=2.0, max_pairs=10, seed=0)
    with pytest.raises(SteadfaceError, match="at least one genuine"):
        split_for_attack(MANY, fmr=0.1, max_pairs=0, seed=0)
    genuine_only = replace(MANY, same=np.ones(len(MANY), dtype=bool))
    with pytest.raises(SteadfaceError, match="lack one of them"):
        split_for_attack(genuine_only, fmr=0.1, max_pairs=5, seed=0)
