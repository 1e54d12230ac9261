"""Two audits side by side, pair by pair: the same pairs, so that paired tests can tell the models apart.

- Error rates: McNemar's exact test on the pairs that only one of the models gets wrong.
- Distances: the sign test over pairs; a censored distance counts as further than any that was found.
"""

from collections.abc import Sequence

from steadface.audit_record import Audit, Comparison, DistanceTest, Goal, PairOutcome, RateTest
from steadface.errors import InvalidInput
from steadface.evaluation.intervals import mcnemar, paired_interval

MUST_AGREE = ("preset", "norm", "eps", "fmr", "threshold", "max_pairs", "seed", "mirror", "detail", "budget")


def compare_audits(first: Audit, second: Audit, names: tuple[str, str]) -> Comparison:
    """Two audits side by side under `names`, but for versions and command.

    Raises `InvalidInput` where pairs or settings differ.
    """
    _check(first, second)
    return Comparison(
        title=f"{names[0]} beside {names[1]}",
        kind="audit comparison",
        models=(first.model, second.model),
        names=names,
        settings=first.settings,
        audits=(first, second),
        tests=tuple(rate_tests(first, second)),
        distance_tests=tuple(distance_tests(first, second)),
        warnings=tuple(
            f"{name}: {warning}"
            for name, audit in zip(names, (first, second), strict=True)
            for warning in audit.warnings
        ),
    )


def rate_tests(first: Audit, second: Audit) -> list[RateTest]:
    """For every goal and radius of the worst case: rates, difference with its interval, discordant pairs, p."""
    tests = []
    for one, other in zip(first.worst_case, second.worst_case, strict=True):
        broken = [_broken(audit.pairs, one.goal, one.eps) for audit in (first, second)]
        only_first = sum(a and not b for a, b in zip(*broken, strict=True))
        only_second = sum(b and not a for a, b in zip(*broken, strict=True))
        pairs = len(broken[0])
        tests.append(
            RateTest(
                goal=one.goal,
                norm=one.norm,
                eps=one.eps,
                fmr=one.fmr,
                rates=(one.error_rate, other.error_rate),
                difference=(only_second - only_first) / pairs,
                ci=paired_interval(only_second, only_first, pairs),
                only_first=only_first,
                only_second=only_second,
                pairs=pairs,
                p=mcnemar(only_first, only_second),
            )
        )
    return tests


def distance_tests(first: Audit, second: Audit) -> list[DistanceTest]:
    """For every goal: medians, their ratio, and the sign test over pairs."""
    tests = []
    for norm, by_goal in first.median_distance.items():
        for goal, median in by_goal.items():
            far = [_distances(audit.pairs, goal) for audit in (first, second)]
            nearer = sum(a < b for a, b in zip(*far, strict=True))
            further = sum(a > b for a, b in zip(*far, strict=True))
            other = second.median_distance[norm][goal]
            tests.append(
                DistanceTest(
                    goal=goal,
                    norm=norm,
                    medians=(median, other),
                    ratio=other / median if median and other else None,
                    p=mcnemar(nearer, further),
                    pairs=len(far[0]),
                )
            )
    return tests


def _broken(pairs: Sequence[PairOutcome], goal: Goal, eps: float) -> list[bool]:
    return [pair.broken_at is not None and pair.broken_at <= eps * (1 + 1e-9) for pair in pairs if pair.goal == goal]


def _distances(pairs: Sequence[PairOutcome], goal: Goal) -> list[float]:
    return [float("inf") if pair.distance is None else pair.distance for pair in pairs if pair.goal == goal]


def _check(first: Audit, second: Audit) -> None:
    both = (first, second)
    for key in MUST_AGREE:
        one, other = (getattr(audit.settings, key) for audit in both)
        if one != other:
            raise InvalidInput(
                f"the audits differ in {key} ({one} and {other}): models are compared under the same settings"
            )
    tried = [([(e.goal, e.eps) for e in a.worst_case], {n: set(g) for n, g in a.median_distance.items()}) for a in both]
    if tried[0] != tried[1]:
        raise InvalidInput("the audits have not the same radii and distances: give two of the same version")
    ends = [[(pair.goal, pair.first, pair.second) for pair in audit.pairs] for audit in both]
    if ends[0] != ends[1]:
        raise InvalidInput("the audits attacked different pairs: give both the same images, pairs and seed")
