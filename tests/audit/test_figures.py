"""What the figures of an audit state, on outcomes written down by hand."""

import numpy as np
import pytest

from steadface.attacks import Linf
from steadface.audit import figures
from steadface.audit.execution import Found
from steadface.audit.figures import Attacked
from steadface.audit_record import Queries
from steadface.evaluation.calibration import Calibration
from steadface.evaluation.intervals import clopper_pearson
from steadface.evaluation.series import Aim, Outcome

BALLS = (Linf(0.01), Linf(0.02))


def outcome(*cosines: list[float], images: int = 0) -> Outcome:
    cosine = np.array(cosines, dtype=np.float32)
    shown = np.full((*cosine.shape, 3, 2, 2), images, dtype=np.uint8)
    return Outcome(cosine=cosine, cosine_8bit=cosine, own=cosine, images=shown)


def calibration(threshold: float, fmr: float = 0.01) -> Calibration:
    return Calibration(
        fmr=fmr, threshold=threshold, measured_fmr=fmr, impostor_mean=0.0, impostor_pairs=1000, images=None, people=None
    )


def dodged() -> Attacked:
    """Threshold 0.3. Pair 0 breaks at the first radius by A, 1 at the second by B, 2 never, 3 is wrong at first."""
    return Attacked(
        aim=Aim(goal="dodging", threshold=0.3),
        balls=BALLS,
        clean=np.array([0.8, 0.7, 0.9, 0.1], dtype=np.float32),
        found={
            "A": Found(outcome=outcome([0.2, 0.6, 0.8, 0.1], [0.2, 0.5, 0.8, 0.1], images=1)),
            "B": Found(
                outcome=outcome([0.7, 0.65, 0.7, 0.1], [0.6, 0.25, 0.7, 0.1], images=2),
                distance=np.array([0.03, 0.015, 0.04, 0.0], dtype=np.float32),
                censored=np.array([False, False, True, False]),
                queries=np.array([10, 20, 30, 0]),
            ),
            "C": Found(outcome=outcome([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0])),
        },
        worst=("A", "B"),
        radius=0.04,
    )


def test_the_worst_case_is_the_union_of_its_attacks_and_no_others() -> None:
    attacked = dodged()
    union = figures.union(attacked)
    assert union.cosine.tolist() == np.array([[0.2, 0.6, 0.7, 0.1], [0.2, 0.25, 0.7, 0.1]], dtype=np.float32).tolist()
    assert union.images[1, :, 0, 0, 0].tolist() == [1, 2, 2, 1]  # each pair's furthest image
    rates = figures.worst_case(attacked, union, calibration(0.3))
    assert [rate.error_rate for rate in rates] == [0.5, 0.75]
    assert rates[1].by == {"A": 1, "B": 1, figures.BEFORE: 1}
    assert rates[1].ci == clopper_pearson(3, 4)


def test_one_run_serves_every_threshold() -> None:
    attacked = dodged()
    stricter = figures.worst_case(attacked, figures.union(attacked), calibration(0.65, 0.001))
    assert [rate.error_rate for rate in stricter] == [0.75, 0.75]
    assert "by" not in stricter[0].to_json()


def test_impersonation_counts_what_is_accepted() -> None:
    attacked = Attacked(
        aim=Aim(goal="impersonation", threshold=0.3),
        balls=BALLS,
        clean=np.array([0.0, 0.1], dtype=np.float32),
        found={"A": Found(outcome=outcome([0.3, 0.2], [0.5, 0.29]))},
        worst=("A",),
        radius=0.04,
    )
    rates = figures.worst_case(attacked, figures.union(attacked), calibration(0.3))
    assert [rate.error_rate for rate in rates] == [0.5, 0.5]


def test_distances_take_what_an_attack_inside_a_ball_found_and_censor_what_none_did() -> None:
    attacked = dodged()
    found = figures.nearest(attacked)
    assert found is not None
    assert found[0].tolist() == pytest.approx([0.01, 0.015, 0.04, 0.0])  # A broke pair 0 inside 0.01
    assert found[1].tolist() == [False, False, True, False]
    told = figures.distances(attacked)
    assert told is not None
    assert told.median == pytest.approx(0.0125)
    assert told.censored == 1
    assert told.already_wrong == 1


def test_a_median_beyond_the_search_is_none() -> None:
    held = outcome([0.9, 0.9, 0.9], [0.9, 0.9, 0.9])
    attacked = Attacked(
        aim=Aim(goal="dodging", threshold=0.3),
        balls=BALLS,
        clean=np.full(3, 0.9, dtype=np.float32),
        found={"A": Found(outcome=held, distance=np.full(3, 0.04, dtype=np.float32), censored=np.ones(3, dtype=bool))},
        worst=("A",),
        radius=0.04,
    )
    told = figures.distances(attacked)
    assert told is not None
    assert told.median is None
    assert told.censored == 3


def test_pairs_say_when_by_what_and_how_near() -> None:
    attacked = dodged()
    names = [(f"a{pair}", f"b{pair}") for pair in range(4)]
    told = figures.pair_outcomes(attacked, figures.union(attacked), names, {0: ("x.png", True)})
    assert [pair.broken_at for pair in told] == [0.01, 0.02, None, 0.0]
    assert [pair.broken_by for pair in told] == ["A", "B", None, figures.BEFORE]
    assert told[0].png == "x.png"
    assert told[2].distance is None
    assert told[2].censored
    assert told[1].attacked == {"0.01": pytest.approx(0.6), "0.02": pytest.approx(0.25)}


def test_single_attacks_tell_their_queries_and_their_part() -> None:
    entries = figures.single_attacks(dodged(), calibration(0.3))
    by_name = {entry.attack: entry for entry in entries}
    assert by_name["B"].queries == Queries(median=15.0, most=30)
    assert by_name["A"].queries is None
    assert not by_name["C"].part_of_worst_case
    assert by_name["C"].error_rate == 1.0
