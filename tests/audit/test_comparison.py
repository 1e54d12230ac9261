"""Paired comparison of two audits: it sees only what differs, and refuses what cannot be compared."""

import math

import pytest

from steadface.audit.comparison import compare_audits
from steadface.audit_record import Audit, PairOutcome
from steadface.errors import InvalidInput

from ..report.audits import audit, record


def small(broken: list[float | None], distance: list[float | None], warning: str = "careful") -> Audit:
    """An audit whose pairs, of either goal, break at these radii and distances; 0.02 was tried."""
    pairs = [
        PairOutcome(
            goal=goal,
            first=f"a{i}",
            second=f"b{i}",
            cosine=0.5,
            attacked={},
            broken_at=at,
            broken_by=None,
            distance=far,
            censored=far is None,
        )
        for goal in ("dodging", "impersonation")
        for i, (at, far) in enumerate(zip(broken, distance, strict=True))
    ]
    whole = record(audit())
    rate = sum(at is not None for at in broken) / len(broken)
    worst = [entry.model_copy(update={"eps": 0.02, "error_rate": rate}) for entry in whole.worst_case[::2]]
    median = None if None in distance else sorted(distance)[len(distance) // 2]
    medians = {"linf": dict.fromkeys(("dodging", "impersonation"), median)}
    changes = {"pairs": pairs, "worst_case": worst, "median_distance": medians, "warnings": (warning,)}
    return whole.model_copy(update={key: tuple(v) if isinstance(v, list) else v for key, v in changes.items()})


WEAK = small([0.01, 0.02, 0.01, 0.02, 0.0], [0.005, 0.015, 0.006, 0.013, 0.0])
STRONG = small([None, 0.02, None, None, 0.0], [0.03, 0.018, 0.03, 0.04, 0.0])


def test_pairs_decide() -> None:
    data = compare_audits(WEAK, STRONG, ("weak", "strong"))
    test = data.tests[0]
    assert (test.only_first, test.only_second, test.pairs) == (3, 0, 5)
    assert test.difference == pytest.approx(-0.6)
    assert test.ci[0] <= -0.6 <= test.ci[1]
    assert test.p == pytest.approx(2 * 0.5**3)
    far = data.distance_tests[0]
    assert far.p == pytest.approx(2 * 0.5**4)
    assert far.ratio == pytest.approx(0.03 / 0.006)
    assert data.warnings == ("weak: careful", "strong: careful")


def test_a_model_beside_itself_is_no_different() -> None:
    data = compare_audits(WEAK, WEAK, ("one", "same"))
    assert data.tests[0].p == 1.0
    assert data.tests[0].difference == 0
    assert data.distance_tests[0].ratio == 1.0


def test_a_smaller_radius_counts_only_what_broke_inside_it() -> None:
    one, other = (
        part.model_copy(update={"worst_case": tuple(e.model_copy(update={"eps": 0.01}) for e in part.worst_case)})
        for part in (WEAK, STRONG)
    )
    test = compare_audits(one, other, ("a", "b")).tests[0]
    assert (test.only_first, test.only_second) == (2, 0)


def test_a_pair_that_holds_is_further_than_any_that_breaks() -> None:
    held = small([None] * 5, [None] * 5)
    (dodging, _) = compare_audits(WEAK, held, ("a", "b")).distance_tests
    assert dodging.medians == (0.006, None)
    assert dodging.ratio is None
    assert dodging.p == pytest.approx(2 * 0.5**5)
    assert math.isfinite(dodging.p)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": WEAK.settings.model_copy(update={"seed": 1})}, "differ in seed"),
        ({"pairs": WEAK.pairs[1:]}, "different pairs"),
        ({"worst_case": WEAK.worst_case[1:]}, "radii"),
        ({"median_distance": {}}, "distances"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        compare_audits(WEAK, STRONG.model_copy(update=changes), ("a", "b"))
