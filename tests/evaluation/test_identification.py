from dataclasses import replace

import numpy as np
import pytest

from steadface.errors import SteadfaceError
from steadface.evaluation.calibration import AttackSplit, split_for_attack
from steadface.evaluation.gallery import enrol
from steadface.evaluation.identification import (
    Attacked,
    Identification,
    IdentificationPlan,
    Identifier,
    Rate,
    open_gallery,
    plan_identification,
)
from steadface.evaluation.intervals import clopper_pearson
from steadface.evaluation.labelled import pairs_from_labels

from .faces import noise_faces, without_people

MANY = pairs_from_labels(noise_faces(90, 4), 300, seed=3)
SPLIT = split_for_attack(MANY, fmr=1e-2, max_pairs=20, seed=0)
AXES = Identifier(gallery=enrol(np.eye(4, dtype=np.float32), np.arange(4)), fpir=0.1, threshold=0.5, strangers=30)
NAN = np.full((1, 4), np.nan, dtype=np.float32)


def embedded(spread: float, seed: int = 0) -> np.ndarray:
    """A direction for each person of MANY, every image off it by about `spread`."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(90, 32)) / 32**0.5
    raw = base[MANY.people] + spread * rng.normal(size=(len(MANY.people), 32)) / 32**0.5
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def planned(split: AttackSplit = SPLIT, most: int = 1000, seed: int = 0) -> IdentificationPlan:
    plan = plan_identification(MANY, split, seed=seed, fpir=0.2, most=most)
    assert isinstance(plan, IdentificationPlan), plan
    return plan


def people(images: np.ndarray) -> set[int]:
    return set(MANY.people[images].tolist())


def towards(*columns: int) -> np.ndarray:
    """Unit probes, each halfway between the first person and that of its column."""
    probes = np.eye(4, dtype=np.float32)[list(columns)] + np.eye(4, dtype=np.float32)[0]
    return probes / np.linalg.norm(probes, axis=1, keepdims=True)


def test_strangers_enrolled_and_impersonators_are_different_people() -> None:
    plan = planned()
    attacked = np.concatenate([SPLIT.genuine, SPLIT.impostor])
    shown = people(np.concatenate([MANY.first[attacked], MANY.second[attacked]]))
    enrolled, strangers = people(plan.gallery), people(plan.strangers)
    assert not strangers & (shown | enrolled)
    assert len(strangers) == len(plan.strangers) >= 15
    assert not people(MANY.first[plan.impersonation]) & enrolled
    assert people(MANY.second[plan.impersonation]) <= enrolled
    assert people(MANY.first[plan.mated]) <= enrolled
    assert not np.isin(MANY.first[plan.mated], plan.gallery).any()
    assert np.isin(plan.mated, SPLIT.genuine).all()
    assert np.isin(plan.impersonation, SPLIT.impostor).all()
    assert len(plan.impersonation) > 0
    assert set(plan.images()) == set(plan.gallery) | set(plan.strangers)


def test_pairs_serve_unless_their_probe_is_enrolled() -> None:
    chosen = {
        "genuine": [(0, 1), (1, 2), (4, 5)],  # image 1 is enrolled by the first pair; person 0 twice
        "impostor": [(8, 12), (13, 16), (0, 20), (24, 6)],  # person 3 enrolled by the first; 0 and 1 by genuine pairs
    }
    ends = np.array([*chosen["genuine"], *chosen["impostor"]])
    same = np.arange(7) < 3
    pairs = replace(MANY, first=ends[:, 0], second=ends[:, 1], same=same, fold=np.zeros(7, dtype=np.int64))
    images = np.arange(100, 200)
    split = replace(SPLIT, genuine=np.arange(3), impostor=np.arange(3, 7), images=images)
    plan = plan_identification(pairs, split, seed=0, fpir=0.2)
    assert isinstance(plan, IdentificationPlan)
    assert plan.mated.tolist() == [0, 2]
    assert plan.impersonation.tolist() == [3, 6]
    assert [image for image in plan.gallery if image < 100] == [1, 2, 5, 6, 12]


def test_the_gallery_is_filled_up_but_strangers_keep_half_and_what_they_need() -> None:
    attacked = len(people(planned(most=0).gallery))
    free = len(planned(most=0).strangers)
    assert len(people(planned(most=attacked + 5).gallery)) == attacked + 5
    assert len(planned(most=attacked + 5).strangers) == free - 5
    assert len(planned().strangers) == max(15, free - free // 2)


def test_the_seed_decides() -> None:
    first, again, other = (planned(seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.images(), again.images())
    assert not np.array_equal(first.images(), other.images())
    assert np.array_equal(first.mated, other.mated)


def test_reasons_why_there_is_no_identification() -> None:
    unknown = without_people(MANY)
    split = split_for_attack(unknown, fmr=0.05, max_pairs=20, seed=0)
    assert "do not say who is who" in str(plan_identification(unknown, split, seed=0))
    reason = plan_identification(MANY, SPLIT, seed=0, fpir=1e-2)
    assert isinstance(reason, str)
    assert "needs 300 strangers" in reason
    assert "bring more people" in reason
    nobody = replace(SPLIT, genuine=SPLIT.genuine[:0], impostor=SPLIT.impostor[:0])
    assert "every probe" in str(plan_identification(MANY, nobody, seed=0, fpir=0.2))
    with pytest.raises(SteadfaceError, match="FPIR 0 is not a rate"):
        plan_identification(MANY, SPLIT, seed=0, fpir=0)


def test_separable_people_are_all_found_and_noise_finds_nobody() -> None:
    plan = planned()
    for spread, worst in ((0.05, 0.0), (50.0, 1.0)):
        identifier = open_gallery(plan, MANY, embedded(spread))
        found = identifier.mated(MANY.people[MANY.first[plan.mated]], embedded(spread)[MANY.first[plan.mated]])
        for rate in (found.fnir, found.rank1_miss):
            assert rate.probes == len(plan.mated)
            assert rate.value == pytest.approx(worst, abs=0.2)


def test_the_threshold_is_that_of_the_strangers_alone() -> None:
    plan, embeddings = planned(), embedded(0.5)
    identifier = open_gallery(plan, MANY, embeddings)
    gallery = identifier.gallery.templates
    share = np.mean((embeddings[plan.strangers] @ gallery.T).max(1) >= identifier.threshold)
    assert 0.2 - 1 / len(plan.strangers) <= share <= 0.2
    moved = embeddings.copy()
    moved[np.setdiff1d(np.arange(len(embeddings)), plan.images())] = 0  # however the probes are attacked
    assert open_gallery(plan, MANY, moved).threshold == identifier.threshold


def test_unreadable_strangers_are_left_out_until_too_few_remain() -> None:
    plan, embeddings = planned(), embedded(0.5)
    embeddings[plan.strangers[:2]] = np.nan
    assert open_gallery(plan, MANY, embeddings).strangers == len(plan.strangers) - 2
    embeddings[plan.strangers[10:]] = np.nan
    with pytest.raises(SteadfaceError, match=r"needs 15 strangers, .* there are 8"):
        open_gallery(plan, MANY, embeddings)


def test_open_and_closed_set_errors_of_dodging() -> None:
    away = 0.4 * np.eye(4, dtype=np.float32)  # still the best candidate, but below the threshold
    found = AXES.mated(np.arange(4), away)
    assert (found.fnir.value, found.rank1_miss.value) == (1, 0)
    confused = AXES.mated(np.arange(4), np.roll(np.eye(4, dtype=np.float32), 1, axis=1))
    assert (confused.fnir.value, confused.rank1_miss.value) == (1, 1)
    assert AXES.mated(np.arange(4), np.eye(4, dtype=np.float32)).fnir.errors == 0


def test_only_the_designated_person_at_rank_one_counts_for_impersonation() -> None:
    wanted = np.array([1, 2, 3])
    toward = AXES.targeted(wanted, np.eye(4, dtype=np.float32)[wanted])
    assert (toward.fpir.value, toward.rank1.value) == (1, 1)
    somebody = AXES.targeted(wanted, np.eye(4, dtype=np.float32)[[0, 0, 0]])
    assert (somebody.fpir.value, somebody.rank1.value) == (0, 0)
    weak = AXES.targeted(wanted, 0.4 * np.eye(4, dtype=np.float32)[wanted])
    assert (weak.fpir.value, weak.rank1.value) == (0, 1)


def test_the_worst_version_counts_so_that_errors_only_rise() -> None:
    clean, attacked = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[[1, 1, 2, 3]]
    everybody = np.arange(4)
    assert AXES.mated(everybody, clean, attacked).fnir.errors == 1
    assert AXES.mated(everybody, clean, attacked, clean).fnir.errors == 1
    assert AXES.targeted(np.array([1, 1, 1, 1]), clean, attacked).fpir.errors == 2


def test_what_cannot_be_judged_is_left_out() -> None:
    clean = np.eye(4, dtype=np.float32)
    assert AXES.mated(np.array([0, 1, 7, 3]), clean).fnir == Rate(errors=0, probes=3)
    unreadable = np.concatenate([NAN, clean[1:]])
    assert AXES.mated(np.arange(4), unreadable).fnir == Rate(errors=0, probes=3)
    assert AXES.mated(np.arange(4), unreadable, clean).fnir == Rate(errors=0, probes=4)
    nobody = AXES.targeted(np.array([7]), clean[:1])
    assert nobody.fpir.value is None
    assert nobody.fpir.ci == (0, 1)


def test_the_json_holds_the_contract() -> None:
    clean = AXES.mated(np.arange(4), np.eye(4, dtype=np.float32)[[0, 1, 2, 2]])
    attacks = (
        Attacked(norm="linf", eps=0.1, found=AXES.mated(np.arange(4), towards(1, 2, 3, 0))),
        Attacked(norm="linf", eps=0.1, found=AXES.targeted(np.array([0]), towards(0))),
    )
    found = Identification(identifier=AXES, clean=clean, attacks=attacks).to_json()
    assert found.keys() == {"fpir", "threshold", "gallery", "strangers", "clean", "attacks"}
    assert (found["fpir"], found["threshold"], found["gallery"], found["strangers"]) == (0.1, 0.5, 4, 30)
    interval = list(clopper_pearson(1, 4))
    assert found["clean"] == {
        **{"fnir": 0.25, "fnir_ci": interval, "probes": 4},
        **{"rank1": 0.75, "rank1_ci": list(clopper_pearson(3, 4))},
    }
    dodging, impersonation = found["attacks"]
    assert dodging.keys() == {"goal", "norm", "eps", "fnir", "fnir_ci", "rank1_miss", "rank1_miss_ci", "probes"}
    assert dodging["goal"] == "dodging"
    assert impersonation == {
        **{"goal": "impersonation", "norm": "linf", "eps": 0.1, "probes": 1},
        **{"targeted_fpir": 1.0, "targeted_fpir_ci": list(clopper_pearson(1, 1))},
        **{"targeted_rank1": 1.0, "targeted_rank1_ci": list(clopper_pearson(1, 1))},
    }
