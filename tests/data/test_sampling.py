import numpy as np
import pytest

from steadface.data.sampling import BalancedSampler, PersonImages, UniformSampler
from steadface.errors import SteadfaceError

UNEVEN = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3, 4], [2, 3, 10, 40, 200]))


def drawn(sampler, steps):
    return np.concatenate([sampler.draw(step) for step in range(steps)])


@pytest.mark.parametrize("batch_size", [1, 7, 64, 255, 300])
def test_uniform_sees_every_image_once_per_pass(batch_size):
    sampler = UniformSampler(UNEVEN, batch_size=batch_size, seed=0)
    images = drawn(sampler, 3 * sampler.steps_per_epoch)
    for start in (0, 255, 510):
        np.testing.assert_array_equal(np.sort(images[start : start + 255]), np.arange(255))
    assert not np.array_equal(images[:255], images[255:510])


@pytest.mark.parametrize(("batch_size", "each"), [(4, 1), (10, 2), (64, 4), (6, 6)])
def test_balanced_draws_people_as_evenly_as_counts_allow(batch_size, each):
    sampler = BalancedSampler(UNEVEN, batch_size=batch_size, seed=0, images_per_person=each)
    people = UNEVEN[drawn(sampler, 57)]
    visits = np.bincount(people, minlength=5) / each
    assert visits.max() - visits.min() <= 1


def test_balanced_shows_all_of_a_persons_images_before_one_again():
    images = drawn(BalancedSampler(UNEVEN, batch_size=8, seed=0, images_per_person=2), 200)
    for person, count in enumerate([2, 3, 10, 40, 200]):
        own = images[UNEVEN[images] == person]
        whole = own[: len(own) // count * count].reshape(-1, count)
        assert all(len(set(passing)) == count for passing in whole)
        assert len(whole) >= 1


def test_images_of_a_person_stand_together():
    people = UNEVEN[BalancedSampler(UNEVEN, batch_size=12, seed=0, images_per_person=3).draw(5)].reshape(4, 3)
    np.testing.assert_array_equal(people, np.repeat(people[:, :1], 3, axis=1))


@pytest.mark.parametrize("kind", [UniformSampler, BalancedSampler])
def test_a_draw_depends_on_seed_and_step_alone(kind):
    sampler = kind(UNEVEN, batch_size=32, seed=5)
    forward = [sampler.draw(step) for step in range(30)]
    backward = [sampler.draw(step) for step in reversed(range(30))][::-1]
    fresh = [kind(UNEVEN, batch_size=32, seed=5).draw(step) for step in range(30)]
    np.testing.assert_array_equal(forward, backward)
    np.testing.assert_array_equal(forward, fresh)
    assert forward[0].shape == (32,)
    assert forward[0].dtype == np.int64
    other = [kind(UNEVEN, batch_size=32, seed=6).draw(step) for step in range(30)]
    assert not np.array_equal(forward, other)


@pytest.mark.parametrize("kind", [UniformSampler, BalancedSampler])
def test_an_epoch_is_as_many_images_as_there_are(kind):
    assert kind(UNEVEN, batch_size=64, seed=0).steps_per_epoch == 4
    assert kind(UNEVEN, batch_size=255, seed=0).steps_per_epoch == 1
    assert kind(UNEVEN, batch_size=1000, seed=0).steps_per_epoch == 1


def test_uniform_leaves_global_random_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - that it is left alone is the point
    BalancedSampler(UNEVEN, batch_size=8, seed=0).draw(3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_person_images_agree_with_a_search():
    labels = np.array([7, 3, 7, 7, 3, 9])
    groups = PersonImages(labels)
    assert groups.people == 3
    for label in (3, 7, 9):
        np.testing.assert_array_equal(groups.of_label(label), np.flatnonzero(labels == label))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0, "seed": 0}, "batch size is 0"),
        ({"batch_size": 4, "seed": -1}, "seed is -1"),
        ({"batch_size": 9, "seed": 0, "images_per_person": 2}, "not a multiple"),
        ({"batch_size": 9, "seed": 0, "images_per_person": 0}, "images_per_person 0"),
    ],
)
def test_impossible_options_are_named(options, said):
    with pytest.raises(SteadfaceError, match=said):
        BalancedSampler(UNEVEN, **options)


def test_no_images_is_an_error():
    with pytest.raises(SteadfaceError, match="no images"):
        UniformSampler([], batch_size=4, seed=0)
