from math import inf

import numpy as np
import pytest

from steadface.errors import SteadfaceError
from steadface.evaluation import gallery as searching
from steadface.evaluation.gallery import (
    Gallery,
    enrol,
    highest_similarities,
    missed,
    search,
    taken_for,
    threshold_at_fpir,
)

from ..rounding import rounding

AXES = Gallery(templates=np.eye(3, dtype=np.float32), people=np.array([2, 5, 9]))


def unit(rows: int, width: int = 8, seed: int = 0) -> np.ndarray:
    raw = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


def test_a_template_is_the_normalised_mean_of_the_readable_images() -> None:
    images = unit(7)
    images[3] = np.nan
    found = enrol(images, np.array([4, 1, 4, 4, 1, 8, 4]))
    assert found.people.tolist() == [1, 4, 8]
    for row, own in enumerate(([1, 4], [0, 2, 6], [5])):
        mean = images[own].mean(0)
        np.testing.assert_allclose(found.templates[row], mean / np.linalg.norm(mean), atol=rounding(8))


def test_somebody_without_a_readable_image_is_not_enrolled() -> None:
    images = unit(3)
    images[1] = np.nan
    assert enrol(images, np.array([0, 1, 2])).people.tolist() == [0, 2]
    with pytest.raises(SteadfaceError, match="none of the 3 images of the gallery can be read"):
        enrol(np.full_like(images, np.nan), np.array([0, 1, 2]))


def test_opposite_images_make_a_template_like_nobody() -> None:
    image = unit(1)
    found = enrol(np.concatenate([image, -image]), np.array([0, 0]))
    assert highest_similarities(found, image).tolist() == [0]


@pytest.mark.parametrize("block", [1, 60, 2**22])
def test_searches_are_those_of_two_loops(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "BLOCK", block)
    known, probes = enrol(unit(40), np.arange(40) % 20), unit(33, seed=1)
    people = np.random.default_rng(2).integers(0, 20, 33)
    highest, ahead = [], []
    for probe, person in zip(probes, people, strict=True):
        cosines = [float(probe @ template) for template in known.templates]
        highest.append(max(cosines))
        ahead.append(sum(cosine > cosines[person] for cosine in cosines))
    standing = search(known, probes, people)
    np.testing.assert_allclose(highest_similarities(known, probes), highest, atol=rounding(8))
    assert standing.ahead.tolist() == ahead
    assert not standing.level.any()
    np.testing.assert_allclose(standing.similarity, (probes * known.templates[people]).sum(1), atol=rounding(8))


def test_rank_and_threshold_both_have_to_be_met() -> None:
    probe = np.array([[0.8, 0.6, 0]], dtype=np.float32)
    best, second, last = (search(AXES, probe, np.array([person])) for person in AXES.people)
    assert not missed(best, 0.8).any()
    assert missed(best, 0.81).all()
    assert missed(second, 0.5).all(), "rank 2"
    assert not missed(second, 0.5, rank=2).any()
    assert not missed(second, 0.5, rank=None).any()
    assert missed(second, 0.7, rank=None).all()
    assert missed(last, rank=2).all()
    assert taken_for(best, 0.8).all()
    assert not taken_for(best, 0.81).any()
    assert not taken_for(second).any()


def test_equals_are_ranked_against_the_recogniser() -> None:
    alike = Gallery(templates=np.ones((4, 1), dtype=np.float32), people=np.arange(4))
    standing = search(alike, np.ones((4, 1), dtype=np.float32), np.arange(4))
    assert missed(standing).all()
    assert taken_for(standing).all()
    assert not missed(standing, rank=4).any()


def test_closed_set_errors_are_the_limit_of_low_thresholds() -> None:
    known, probes, people = enrol(unit(20), np.arange(20)), unit(200, seed=3), np.arange(200) % 20
    standing = search(known, probes, people)
    assert np.array_equal(missed(standing, -2), missed(standing))
    assert missed(standing, inf).all()
    levels = np.linspace(-1, 1, 21)
    assert (np.diff([missed(standing, level).sum() for level in levels]) >= 0).all()
    assert (np.diff([taken_for(standing, level).sum() for level in levels]) <= 0).all()
    assert np.array_equal(taken_for(standing), ~missed(standing)), "no equals here"


def test_somebody_who_is_not_enrolled_cannot_be_designated() -> None:
    for stranger in (0, 3, 10):
        with pytest.raises(ValueError, match="not enrolled"):
            search(AXES, np.eye(3, dtype=np.float32)[:1], np.array([stranger]))


@pytest.mark.parametrize("fpir", [0.01, 0.037, 0.5])
def test_the_threshold_is_the_smallest_within_the_fpir(fpir: float) -> None:
    highest = highest_similarities(enrol(unit(30), np.arange(30)), unit(1000, seed=4))
    threshold = threshold_at_fpir(highest, fpir)
    accepted = np.sum(highest >= threshold)
    assert accepted <= fpir * 1000 < accepted + 1
    assert np.sum(highest >= np.nextafter(np.float32(threshold), np.float32(-1))) > fpir * 1000


def test_too_few_strangers_are_refused_with_the_remedy() -> None:
    highest = np.linspace(0, 1, 299, dtype=np.float32)
    with pytest.raises(SteadfaceError, match=r"needs 300 strangers, .* there are 299; ask for an FPIR of 0.01 or more"):
        threshold_at_fpir(highest, 0.01)
    with pytest.raises(SteadfaceError, match=r"there are 0; bring more people"):
        threshold_at_fpir(highest[:0], 0.01)
    with pytest.raises(SteadfaceError, match=r"FPIR 1 is not a rate"):
        threshold_at_fpir(highest, 1)
