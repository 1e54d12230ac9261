import numpy as np
import pytest

from steadface.data.faces import ArrayFaces, split_people
from steadface.errors import SteadfaceError


@pytest.fixture
def faces() -> ArrayFaces:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(20), np.arange(1, 21)))
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    return ArrayFaces(images, labels, [f"p{person:02d}" for person in range(20)])


@pytest.mark.parametrize("choice", [{"fraction": 0.25}, {"count": 5}])
def test_nobody_is_on_both_sides_and_nobody_is_lost(faces, choice):
    train, validation = split_people(faces, seed=3, **choice)
    assert len(validation.people) == 5
    assert not set(train.people) & set(validation.people)
    assert set(train.people) | set(validation.people) == set(faces.people)
    assert sorted([*train.indices, *validation.indices]) == list(range(len(faces)))
    np.testing.assert_array_equal(validation.read(4), faces.read(validation.indices[4]))


def test_the_seed_decides(faces):
    splits = [split_people(faces, count=5, seed=seed)[1].people for seed in (1, 1, 2)]
    assert splits[0] == splits[1]
    assert splits[0] != splits[2]


def test_who_has_one_image_is_never_held_out():
    labels = np.concatenate([np.arange(40), np.arange(0, 40, 4)])
    faces = ArrayFaces(np.zeros((50, 2, 2, 3), np.uint8), labels, [f"p{person:02d}" for person in range(40)])
    several = {f"p{person:02d}" for person in range(0, 40, 4)}
    train, validation = split_people(faces, fraction=0.5, seed=0)
    assert len(validation.people) == 5
    assert set(validation.people) < several
    assert len(train.people) == 35
    with pytest.raises(SteadfaceError, match="11 people with two images or more, and among 40 people there are 10"):
        split_people(faces, count=11, seed=0)


def test_a_small_fraction_is_one_person(faces):
    assert len(split_people(faces, fraction=0.001, seed=0)[1].people) == 1


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({}, "one of the two"),
        ({"fraction": 0.5, "count": 3}, "one of the two"),
        ({"fraction": 0.0}, "0.0"),
        ({"fraction": 1.0}, "1.0"),
        ({"count": 0}, "0 validation people"),
        ({"count": 19}, "19 of 20 leaves 1"),
        ({"fraction": 0.99}, "leaves 1"),
    ],
)
def test_impossible_splits_are_explained(faces, choice, said):
    with pytest.raises(SteadfaceError, match=said):
        split_people(faces, seed=0, **choice)
