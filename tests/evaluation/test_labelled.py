import numpy as np
import pytest

from steadface.attacks import PGD, Linf
from steadface.data.pairs import PairSet
from steadface.errors import SteadfaceError
from steadface.evaluation.intervals import paired_difference
from steadface.evaluation.labelled import ValidationMetrics, pairs_from_labels, validation_metrics
from steadface.evaluation.robustness import AttackPlan

from .faces import Damaged, LinearBackbone, noise_faces

UNEVEN = noise_faces(30, [2, 3, 60, 1, 5] * 6)


def people_of(pairs: PairSet, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return UNEVEN.labels[pairs.first[chosen]], UNEVEN.labels[pairs.second[chosen]]


def test_pairs_are_true_and_drawn_once() -> None:
    pairs = pairs_from_labels(UNEVEN, 300, seed=1)
    first, second = people_of(pairs, np.arange(len(pairs)))
    assert np.array_equal(first == second, pairs.same)
    assert (pairs.first != pairs.second).all()
    ends = np.sort(np.stack([pairs.first, pairs.second]), axis=0)
    assert len(np.unique(ends, axis=1).T) == len(pairs)
    assert 150 < pairs.same.sum() <= 300  # folds without a person of 60 images have fewer
    assert 200 < (~pairs.same).sum() <= 300


def test_folds_share_no_person() -> None:
    pairs = pairs_from_labels(UNEVEN, 300, folds=10, seed=1)
    seen = [set(np.concatenate(people_of(pairs, pairs.fold == fold)).tolist()) for fold in range(10)]
    assert all(seen)
    assert sum(len(people) for people in seen) == len(set.union(*seen))


def test_a_person_with_many_images_counts_like_the_others() -> None:
    faces = noise_faces(8, [60, 4, 4, 4, 4, 4, 4, 4])
    pairs = pairs_from_labels(faces, 40, folds=2)
    genuine = np.bincount(faces.labels[pairs.first[pairs.same]])
    assert genuine.sum() == 40
    assert genuine.max() == 5
    assert genuine.min() == 5


def test_all_genuine_pairs_come_when_all_are_asked_for() -> None:
    faces = noise_faces(4, [2, 3, 5, 7])
    pairs = pairs_from_labels(faces, 1000)
    assert np.bincount(faces.labels[pairs.first[pairs.same]]).tolist() == [1, 3, 10, 21]


def test_the_seed_decides() -> None:
    first, again, other = (pairs_from_labels(UNEVEN, 50, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.first, again.first)
    assert not np.array_equal(first.first, other.first)


def test_labels_that_give_no_pairs_are_refused() -> None:
    with pytest.raises(SteadfaceError, match="needs 4 people, and there are 3"):
        pairs_from_labels(noise_faces(3, 5), 10)
    with pytest.raises(SteadfaceError, match="nobody has two images"):
        pairs_from_labels(noise_faces(6, 1), 10)
    with pytest.raises(SteadfaceError, match="at least one pair"):
        pairs_from_labels(UNEVEN, 0)


def test_validation_tells_clear_people_from_noise() -> None:
    clear = validation_metrics(LinearBackbone(), noise_faces(20, 5, spread=20), max_pairs=60)
    noisy = validation_metrics(LinearBackbone(), noise_faces(20, 5, spread=400), max_pairs=60)
    assert clear.tar == 1
    assert clear.eer == 0
    assert clear.genuine_mean > 0.8 > clear.impostor_mean
    assert noisy.tar < 0.5
    assert noisy.eer > 0.2
    assert clear.impostor_pairs > 1000  # cross pairs, not the 60 listed
    assert clear.to_json()["attacks"] == []


def test_validation_under_attack_and_with_unreadable_images() -> None:
    source = noise_faces(20, 5, spread=20)
    plan = AttackPlan(attacks={"pgd": PGD(ball=Linf(0.5), steps=5)}, balls=[Linf(0.5)])
    found = validation_metrics(
        LinearBackbone(), Damaged(source, frozenset({0, 1, 2})), max_pairs=60, attack=plan, attacked_pairs=5
    )
    assert found.tar == 1
    assert [result.goal for result in found.attacks] == ["dodging", "impersonation"]
    assert all(result.error_rate == 1 for result in found.attacks)


def test_noise_to_compare_by_is_the_same_for_every_network() -> None:
    faces = noise_faces(12, 4, spread=60)

    def look(sigma: float, seed: int = 3) -> ValidationMetrics:
        return validation_metrics(LinearBackbone(), faces, fmr=0.2, max_pairs=60, sigma=sigma, compared=True, seed=seed)

    low, high = look(1e-9), look(2.0)
    assert low.clean is not None
    assert low.attacked is not None
    assert high.attacked is not None
    assert low.attacked.value == pytest.approx(low.clean.value, abs=1e-6)
    assert low.attacked.without == pytest.approx(low.clean.without, abs=1e-6)
    assert high.clean == low.clean
    assert high.attacked.value > low.attacked.value + 0.1
    assert look(2.0).attacked == high.attacked


def test_an_fmr_beyond_the_people_is_refused_before_any_embedding() -> None:
    backbone = LinearBackbone()
    with pytest.raises(SteadfaceError, match=r"FMR 1e-06 needs 3000000 impostor pairs"):
        validation_metrics(backbone, noise_faces(20, 5), fmr=1e-6, max_pairs=60)
    assert backbone.seen == 0


def test_figures_to_compare_by_are_those_of_the_people_left() -> None:
    faces = noise_faces(12, [2, 3, 4] * 4, spread=200)
    around = Linf(8 / 255)
    plan = AttackPlan(attacks={"pgd": PGD(ball=around, steps=2)}, balls=[Linf(2 / 255), around], examples=0)

    def look(backbone: LinearBackbone) -> ValidationMetrics:
        return validation_metrics(
            backbone, faces, fmr=0.2, max_pairs=60, attack=plan, attacked_pairs=8, compared=True, seed=3
        )

    found = look(LinearBackbone())
    assert found.clean is not None
    assert found.attacked is not None
    assert found.clean.value == pytest.approx(found.eer, abs=1e-9)
    assert len(found.clean.without) == len(found.attacked.without) == 12
    worst = [max(one.error_rate for one in found.attacks if one.eps == eps) for eps in (2 / 255, 8 / 255)]
    assert found.attacked.value == pytest.approx(np.mean(worst))

    pairs = pairs_from_labels(faces, 60, seed=3)
    slow = []
    for person in range(12):
        by_radius = {2 / 255: 0.0, 8 / 255: 0.0}
        for one in found.attacks:
            owners = [{faces.labels[pairs.first[pair]], faces.labels[pairs.second[pair]]} for pair in one.attacked]
            left = [pair for pair, people in zip(one.attacked, owners, strict=True) if person not in people]
            rate = sum(pair in one.wrong for pair in left) / len(left)
            by_radius[one.eps] = max(by_radius[one.eps], rate)
        slow.append(sum(by_radius.values()) / 2)
    assert sorted(found.attacked.without) == pytest.approx(sorted(slow))
    same = paired_difference(found.clean, look(LinearBackbone()).clean)  # type: ignore[arg-type]
    assert (same.value, same.low, same.high) == (0, 0, 0)
