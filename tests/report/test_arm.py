import math

import numpy as np
import pytest

from steadface.report.arm import (
    Rate,
    Setting,
    attacked,
    clean_fnmr,
    curve,
    radii,
    settings,
    supported_fmr,
)

LINF = Setting(norm="linf", fmr=1e-2)


def _attack(**changes):
    attack = {"attack": "pgd", "norm": "linf", "eps": 4 / 255, "goal": "dodging", "fmr": 1e-2, "error_rate": 0.5}
    return attack | {"ci": [0.4, 0.6], "pairs": 100, "threshold": 0.3} | changes


def test_the_worst_attack_counts(make_arm):
    arm = make_arm(evaluation={"attacks": [_attack(error_rate=r, attack=str(r)) for r in (0.2, 0.7, 0.5)]})
    assert attacked(arm, LINF, "dodging")[4 / 255].rate == 0.7


def test_clean_rate_stands_at_eps_0(make_arm):
    measured = make_arm(evaluation={"attacks": [_attack(clean_error_rate=0.07, clean_ci=[0.03, 0.13])]})
    assert attacked(measured, LINF, "dodging")[0.0] == Rate(rate=0.07, low=0.03, high=0.13)
    arm = make_arm()
    tar = 0.01**0.05
    assert attacked(arm, LINF, "dodging")[0.0].rate == pytest.approx(1 - tar)
    assert clean_fnmr(arm, 1e-2).low == pytest.approx(1 - tar - 0.02)  # TAR's upper end is FNMR's lower end
    assert attacked(arm, LINF, "impersonation")[0.0].rate == 1e-2


def test_settings_and_radii_are_sorted_and_shared(make_arm):
    one = make_arm("a", evaluation={"attacks": [_attack(norm="l2", eps=2.0), _attack(eps=8 / 255)]})
    two = make_arm("b", evaluation={"attacks": [_attack(eps=1 / 255), _attack(eps=4 / 255, error_rate=None)]})
    assert settings([one, two]) == [LINF, Setting(norm="l2", fmr=1e-2)]
    assert radii([one, two], LINF) == [1 / 255, 8 / 255]


def test_supported_fmr_falls_back(make_arm):
    assert supported_fmr(make_arm(evaluation={"lowest_fmr": 2e-3})) == 2e-3
    assert supported_fmr(make_arm(evaluation={"lowest_fmr": None})) == 1e-3
    bare = {"lowest_fmr": None, "operating_points": []}
    det = {"fmr": [0.0, 0.05, 1.0], "fnmr": [0.5, 0.2, 0.0]}
    assert supported_fmr(make_arm(evaluation={**bare, "det": det})) == 0.05
    assert math.isnan(supported_fmr(make_arm(evaluation={**bare, "det": None})))


def test_curve_keeps_the_best_point_of_every_fmr_and_drops_nan(make_arm):
    roc = {"fmr": [0.5, 0.1, 0.1, np.nan, 1.0], "tar": [0.9, 0.2, 0.6, 0.7, 1.0]}
    det = {"fmr": [0.5, 0.1, 0.1], "fnmr": [0.1, 0.8, 0.4]}
    arm = make_arm(evaluation={"roc": roc, "det": det})
    x, y = curve(arm, "roc", "tar")
    assert (x.tolist(), y.tolist()) == ([0.1, 0.5, 1.0], [0.6, 0.9, 1.0])
    assert curve(arm, "det", "fnmr")[1].tolist() == [0.4, 0.1]
    assert len(curve(make_arm(evaluation={"roc": {"fmr": [1.0], "tar": []}}), "roc", "tar")[0]) == 0


def test_intervals_overlap():
    low, high, unknown = Rate(rate=0.1, low=0.0, high=0.2), Rate(rate=0.5, low=0.4, high=0.6), Rate(rate=0.5)
    assert not low.overlaps(high)
    assert not high.overlaps(low)
    assert low.overlaps(Rate(rate=0.3, low=0.2, high=0.4))
    assert low.overlaps(unknown)
