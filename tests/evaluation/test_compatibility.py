"""Old templates against new probes: closed forms for models that changed in known ways."""

import numpy as np
import pytest

from steadface.errors import SteadfaceError
from steadface.evaluation.compatibility import compatibility

from ..rounding import rounding

ONE_PAIR = 1 / (20 * 6)
"""The genuine ones of 20 people with 4 images each: the threshold may lie within rounding of one similarity."""


def embeddings(people=20, images=4, noise=0.5, size=32, seed=0):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(people), images)
    rows = rng.normal(size=(people, size))[owner] + noise * rng.normal(size=(len(owner), size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), owner


def test_a_model_that_did_not_change_is_its_own_replacement():
    old, people = embeddings()
    found = compatibility(old, old, people)
    assert found.drift == pytest.approx(1, abs=rounding(32))
    for pairs in (found.new, found.mixed):
        assert pairs.genuine == pytest.approx(found.old.genuine, abs=rounding(32))
        assert pairs.impostor == pytest.approx(found.old.impostor, abs=rounding(32))
        assert pairs.fnmr == pytest.approx(found.old.fnmr, abs=ONE_PAIR)
        assert pairs.fmr == pytest.approx(found.old.fmr, abs=ONE_PAIR)
    assert found.old.fmr <= 0.01
    assert (found.images, found.people) == (80, 20)


def test_a_rotated_space_keeps_new_pairs_and_loses_old_templates():
    old, people = embeddings()
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(32, 32)))
    found = compatibility(old, (old @ rotation).astype(np.float32), people)
    assert found.new.fnmr == pytest.approx(found.old.fnmr, abs=ONE_PAIR)
    assert found.new.genuine == pytest.approx(found.old.genuine, abs=rounding(32))
    assert found.mixed.fnmr > 0.9
    assert abs(found.mixed.genuine) < 0.2


def test_the_threshold_stays_that_of_the_old_model():
    old, people = embeddings()
    centre = old.mean(0)
    new = old + 2 * centre / np.linalg.norm(centre)
    new /= np.linalg.norm(new, axis=1, keepdims=True)
    found = compatibility(old, new.astype(np.float32), people)
    assert found.threshold == compatibility(old, old, people).threshold
    assert found.new.fmr > 0.9, "everybody looks alike now, at a threshold that knows nothing of it"


def test_what_cannot_be_compared_is_refused():
    old, people = embeddings()
    with pytest.raises(SteadfaceError, match="32 and 16 numbers"):
        compatibility(old, old[:, :16], people)
    with pytest.raises(SteadfaceError, match="genuine pairs, and there are 0"):
        compatibility(old[::4], old[::4], people[::4])
    with pytest.raises(SteadfaceError, match="FMR 1e-06"):
        compatibility(old, old, people, fmr=1e-6)


def test_unreadable_images_are_left_out():
    old, people = embeddings()
    new = old.copy()
    new[3] = np.nan
    kept = np.arange(len(old)) != 3
    assert compatibility(old, new, people) == compatibility(old[kept], new[kept], people[kept])
