"""Two audits side by side, pair by pair: the same pairs, so that paired tests can tell the models apart.

- Error rates: McNemar's exact test on the pairs that only one of the models gets wrong.
- Distances: the sign test over pairs; a censored distance counts as further than any that was found.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from steadface.errors import InvalidInput
from steadface.evaluation.intervals import mcnemar, paired_interval

MUST_AGREE = ("preset", "norm", "eps", "fmr", "threshold", "max_pairs", "seed", "mirror", "detail", "budget")


def compare_audits(first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """What `comparison.json` holds of two audits (the contents of `audit.json`), under `names`.

    Raises `SteadfaceError` where pairs or settings differ.
    """
    _check(first, second, names)
    return {
        "kind": "audit comparison",
        "models": [first["model"], second["model"]],
        "names": list(names),
        "settings": first["settings"],
        "audits": [first, second],
        "tests": rate_tests(first, second),
        "distance_tests": distance_tests(first, second),
        "warnings": [
            f"{name}: {warning}"
            for name, audit in zip(names, (first, second), strict=True)
            for warning in audit["warnings"]
        ],
    }


def rate_tests(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For every goal and radius of the worst case: rates, difference with its interval, discordant pairs, p."""
    tests = []
    for one, other in zip(first["worst_case"], second["worst_case"], strict=True):
        goal, eps = one["goal"], one["eps"]
        broken = [_broken(audit["pairs"], goal, eps) for audit in (first, second)]
        only_first = sum(a and not b for a, b in zip(*broken, strict=True))
        only_second = sum(b and not a for a, b in zip(*broken, strict=True))
        pairs = len(broken[0])
        tests.append(
            {
                "goal": goal,
                "norm": one["norm"],
                "eps": eps,
                "fmr": one["fmr"],
                "rates": [one["error_rate"], other["error_rate"]],
                "difference": (only_second - only_first) / pairs,
                "ci": list(paired_interval(only_second, only_first, pairs)),
                "only_first": only_first,
                "only_second": only_second,
                "pairs": pairs,
                "p": mcnemar(only_first, only_second),
            }
        )
    return tests


def distance_tests(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For every goal: medians, their ratio, and the sign test over pairs."""
    tests = []
    for measured, by_goal in first["median_distance"].items():
        for goal, median in by_goal.items():
            far = [_distances(audit["pairs"], goal) for audit in (first, second)]
            nearer = sum(a < b for a, b in zip(*far, strict=True))
            further = sum(a > b for a, b in zip(*far, strict=True))
            medians = [median, second["median_distance"][measured][goal]]
            known = all(medians)
            tests.append(
                {
                    "goal": goal,
                    "norm": measured,
                    "medians": medians,
                    "ratio": medians[1] / medians[0] if known else None,
                    "p": mcnemar(nearer, further),
                    "pairs": len(far[0]),
                }
            )
    return tests


def _broken(pairs: Sequence[Mapping[str, Any]], goal: str, eps: float) -> list[bool]:
    return [
        pair["broken_at"] is not None and pair["broken_at"] <= eps * (1 + 1e-9)
        for pair in pairs
        if pair["goal"] == goal
    ]


def _distances(pairs: Sequence[Mapping[str, Any]], goal: str) -> list[float]:
    return [float("inf") if pair["distance"] is None else pair["distance"] for pair in pairs if pair["goal"] == goal]


def _check(first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, str]) -> None:
    for audit, name in zip((first, second), names, strict=True):
        if audit.get("kind") != "audit":
            raise InvalidInput(f"{name} is no audit: give folders that `steadface audit` has written")
    for key in MUST_AGREE:
        one, other = first["settings"].get(key), second["settings"].get(key)
        if one != other:
            raise InvalidInput(
                f"the audits differ in {key} ({one} and {other}): models are compared under the same settings"
            )
    ends = [[(pair["goal"], pair["first"], pair["second"]) for pair in audit["pairs"]] for audit in (first, second)]
    if ends[0] != ends[1]:
        raise InvalidInput("the audits attacked different pairs: give both the same images, pairs and seed")
