"""Paired tests: their closed forms, and that they see only what differs."""

import copy
from typing import Any

import pytest

from steadface.audit.comparison import compare_audits
from steadface.errors import SteadfaceError


def audit(broken: list[float | None], distance: list[float | None]) -> dict[str, Any]:
    pairs = [
        {"goal": "dodging", "first": f"a{i}", "second": f"b{i}", "broken_at": at, "distance": far}
        for i, (at, far) in enumerate(zip(broken, distance, strict=True))
    ]
    rate = sum(at is not None for at in broken) / len(broken)
    return {
        "kind": "audit",
        "model": {"name": "m"},
        "settings": {"preset": "quick", "seed": 0},
        "warnings": ["careful"],
        "worst_case": [{"goal": "dodging", "norm": "linf", "eps": 0.02, "fmr": 0.01, "error_rate": rate}],
        "median_distance": {"linf": {"dodging": None if None in distance else sorted(distance)[len(distance) // 2]}},
        "pairs": pairs,
    }


WEAK = audit([0.01, 0.02, 0.01, 0.02, 0.0], [0.005, 0.015, 0.006, 0.013, 0.0])
STRONG = audit([None, 0.02, None, None, 0.0], [0.03, 0.018, 0.03, 0.04, 0.0])


def test_pairs_decide() -> None:
    data = compare_audits(WEAK, STRONG, ("weak", "strong"))
    (test,) = data["tests"]
    assert (test["only_first"], test["only_second"], test["pairs"]) == (3, 0, 5)
    assert test["difference"] == pytest.approx(-0.6)
    assert test["ci"][0] <= -0.6 <= test["ci"][1]
    assert test["p"] == pytest.approx(2 * 0.5**3)
    (far,) = data["distance_tests"]
    assert far["p"] == pytest.approx(2 * 0.5**4)
    assert far["ratio"] == pytest.approx(0.03 / 0.006)
    assert data["warnings"] == ["weak: careful", "strong: careful"]


def test_a_model_beside_itself_is_no_different() -> None:
    data = compare_audits(WEAK, copy.deepcopy(WEAK), ("one", "same"))
    assert data["tests"][0]["p"] == 1.0
    assert data["tests"][0]["difference"] == 0
    assert data["distance_tests"][0]["ratio"] == 1.0


def test_a_smaller_radius_counts_only_what_broke_inside_it() -> None:
    one, other = (copy.deepcopy(part) for part in (WEAK, STRONG))
    for part in (one, other):
        part["worst_case"][0]["eps"] = 0.01
    (test,) = compare_audits(one, other, ("a", "b"))["tests"]
    assert (test["only_first"], test["only_second"]) == (2, 0)


def test_what_cannot_be_compared_is_refused() -> None:
    other = copy.deepcopy(STRONG)
    other["settings"]["seed"] = 1
    with pytest.raises(SteadfaceError, match="differ in seed"):
        compare_audits(WEAK, other, ("a", "b"))
    other = copy.deepcopy(STRONG)
    other["pairs"][0]["first"] = "somebody else"
    with pytest.raises(SteadfaceError, match="different pairs"):
        compare_audits(WEAK, other, ("a", "b"))
    with pytest.raises(SteadfaceError, match="b is no audit"):
        compare_audits(WEAK, {"kind": "report"}, ("a", "b"))
