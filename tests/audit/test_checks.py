"""The masking checks: silent on an honest model, set off by a masked and by a collapsed one."""

import numpy as np
import pytest

from steadface.attacks import Linf
from steadface.audit.checks import Again, Tried, holding, masking_checks
from steadface.audit.execution import Found
from steadface.evaluation.series import Aim, Outcome

from .audits import ABLE, Collapsed, Masked, audited, request

NAMES = {
    "single": "iterative beats single step",
    "rises": "a larger radius is never worse",
    "far": "a huge radius breaks every pair",
    "square": "white-box beats black-box (Square)",
    "transfer": "white-box beats transfer",
    "longer": "twice the steps add little",
    "starts": "random starts matter little",
    "collapse": "different people look different",
}


def found(*cosines: list[float]) -> Found:
    cosine = np.array(cosines, dtype=np.float32)
    images = np.zeros((*cosine.shape, 3, 1, 1), dtype=np.uint8)
    return Found(outcome=Outcome(cosine=cosine, cosine_8bit=cosine, own=cosine, images=images))


def again(starts: list[list[float]], longer: list[float]) -> Again:
    return Again(radius=0.02, starts=np.array(starts, dtype=np.float32), longer=np.array(longer, dtype=np.float32))


STRONG, WEAK = found([0.5, 0.6, 0.2], [0.1, 0.5, 0.1]), found([0.6, 0.7, 0.6], [0.5, 0.6, 0.4])
SOUND = again([[0.5, 0.5], [0.51, 0.5]], [0.5, 0.49])


def judged(*, impostor_mean: float = 0.0, far: bool = True, runs: Again | None = SOUND, **attacks: Found):
    everything = {"APGD": STRONG, "FMN": STRONG, "FGSM": WEAK, "Square": WEAK, "transfer": WEAK} | attacks
    tried = Tried(
        aim=Aim(goal="dodging", threshold=0.3),
        radii=(Linf(0.01).radius, Linf(0.02).radius),
        found={name: one for name, one in everything.items() if one is not None},
        far=np.array([True, True, far]),
        again=runs,
    )
    checks = masking_checks([tried], impostor_mean=impostor_mean, norm="linf", differentiable=True)
    return {check.name: check.passed for check in checks}


def test_an_honest_model_passes_them_all() -> None:
    assert judged() == dict.fromkeys(NAMES.values(), True)


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("single", {"FGSM": found([0.1, 0.1, 0.1], [0.1, 0.1, 0.1])}),
        ("square", {"Square": found([0.1, 0.1, 0.1], [0.1, 0.1, 0.1])}),
        ("transfer", {"transfer": found([0.1, 0.1, 0.1], [0.1, 0.1, 0.1])}),
        ("far", {"far": False}),
        ("longer", {"runs": again([[0.5, 0.5], [0.5, 0.5]], [0.4, 0.4])}),
        ("starts", {"runs": again([[0.5, 0.5], [0.4, 0.6]], [0.5, 0.5])}),
        ("collapse", {"impostor_mean": 0.6}),
        ("rises", {"APGD": found([0.1, 0.2, 0.1], [0.2, 0.3, 0.2])}),
    ],
)
def test_each_check_fails_on_what_it_is_for(check: str, changes: dict) -> None:
    passed = judged(**changes)
    assert passed[NAMES[check]] is False


def test_what_was_not_run_is_not_judged() -> None:
    passed = judged(transfer=None, runs=None)
    assert passed[NAMES["transfer"]] is None
    assert passed[NAMES["longer"]] is passed[NAMES["starts"]] is None


def test_pairs_that_hold_are_taken_from_the_largest_radius_that_leaves_enough() -> None:
    aim = Aim(goal="dodging", threshold=0.3)
    number, rows = holding(aim, STRONG, 2, 10)
    assert (number, rows.tolist()) == (0, [0, 1])
    number, rows = holding(aim, STRONG, 1, 10)
    assert (number, rows.tolist()) == (1, [1])
    assert holding(aim, found([0.1, 0.1]), 1, 10)[1].tolist() == []


@pytest.fixture(scope="module")
def audits(tmp_path_factory):
    networks = {"honest": None, "masked": Masked(), "collapsed": Collapsed()}
    return {
        name: audited(request(network, preset=ABLE, batch_size=12), tmp_path_factory.mktemp(name))
        for name, network in networks.items()
    }


def failed(data: dict) -> set[str]:
    return {check["name"] for check in data["checks"] if check["passed"] is False}


def test_a_planted_masked_model_sets_the_checks_off(audits) -> None:
    assert NAMES["square"] in failed(audits["masked"])
    assert NAMES["far"] in failed(audits["masked"])
    assert any("masks" in warning for warning in audits["masked"]["warnings"])
    white = [rate for rate in audits["masked"]["attacks"] if rate["attack"] == "APGD"]
    black = [rate for rate in audits["masked"]["attacks"] if rate["attack"] == "Square"]
    assert sum(rate["error_rate"] for rate in white) < sum(rate["error_rate"] for rate in black)
    worst = audits["masked"]["worst_case"]  # and the worst case is not taken in
    assert all(w["error_rate"] >= b["error_rate"] for w, b in zip(worst, black, strict=True))


def test_a_planted_collapsed_model_sets_its_check_off(audits) -> None:
    assert NAMES["collapse"] in failed(audits["collapsed"])
    assert any("collapsed" in warning for warning in audits["collapsed"]["warnings"])


def test_an_honest_model_sets_none_off(audits) -> None:
    assert not failed(audits["honest"])
