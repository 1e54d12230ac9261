"""Two audits of the same pairs in plain words: which recogniser resists better, and whether tests tell them apart."""

import math

from steadface.report.audit_data import GOALS, Data, Named, block, failed_checks, norm_of, records, word
from steadface.report.audit_words import QUICK, is_quick, of_ten
from steadface.report.history import number
from steadface.report.text import DASH, SPACE, count, decimal, listing, percent, radius, share

LEVEL = 0.05


def opening(data: Data, audits: tuple[Named, Named]) -> str:
    """The first paragraph: the verdict first, the figures behind it, and what stands against it."""
    parts = (verdict(data, audits), _same(data, audits), _rates(data, audits), _distances(data, audits))
    against = [_doubt(audit) for audit in audits if failed_checks(audit.data)]
    quick = any(is_quick(source) for source in (data, *(audit.data for audit in audits)))
    return " ".join(part for part in (*parts, *against, QUICK if quick else "") if part)


def level(data: Data) -> float:
    """The p-value below which a test counts: 5 % shared among all tests of the page (Bonferroni)."""
    return LEVEL / max(1, len(_tests(data)))


def _tests(data: Data) -> list[Data]:
    tests = [*records(data, "tests"), *records(data, "distance_tests")]
    return [test for test in tests if math.isfinite(number(test, "p"))]


def winners(data: Data) -> list[int | None]:
    """For each test the number of the model that resists better in it, None where it does not tell them apart."""
    limit = level(data)
    return [_better(test) if number(test, "p") < limit else None for test in _tests(data)]


def _better(test: Data) -> int | None:
    difference = number(test, "difference")
    if math.isfinite(difference):
        return None if difference == 0 else int(difference < 0)
    medians = test.get("medians")
    if not isinstance(medians, list | tuple) or len(medians) != 2 or medians == [None, None]:
        return None
    first, second = (math.inf if median is None else float(median) for median in medians)
    return None if first == second else int(second > first)


def verdict(data: Data, audits: tuple[Named, Named]) -> str:
    """Which one resists better, in one sentence."""
    names = [f"“{audit.name}”" for audit in audits]
    found = winners(data)
    told = {winner for winner in found if winner is not None}
    if not found:
        return f"{names[0]} and {names[1]} were not tested against each other."
    if not told:
        return (
            f"These pairs do not tell {names[0]} and {names[1]} apart: no paired test finds a difference that chance "
            "could not explain."
        )
    if len(told) == 2:
        return f"Neither is better throughout: {names[0]} resists better in some tests, {names[1]} in others."
    winner = told.pop()
    certain = found.count(winner)
    how = "every paired test tells" if certain == len(found) else f"{certain} of {len(found)} paired tests tell"
    return f"{names[winner]} resists attack better than {names[1 - winner]}: {how} them apart."


def _same(data: Data, audits: tuple[Named, Named]) -> str:
    tests = {word(test, "goal"): count(number(test, "pairs")) for test in records(data, "tests")}
    kinds = {"dodging": "pairs of one person", "impersonation": "pairs of different people"}
    pairs = listing([f"{tests[goal]} {kinds[goal]}" for goal in GOALS if goal in tests])
    if not pairs:
        return ""
    thresholds = [number(audit.data, "threshold") for audit in audits]
    own = f" ({decimal(thresholds[0])} and {decimal(thresholds[1])})" if all(map(math.isfinite, thresholds)) else ""
    return f"Both were attacked in the same way on the same {pairs}, each at its own threshold{own}."


def _rates(data: Data, audits: tuple[Named, Named]) -> str:
    """The error rates of both at the smallest radius."""
    tests = [test for test in records(data, "tests") if number(test, "eps") > 0]
    eps = min((number(test, "eps") for test in tests), default=math.nan)
    told = []
    for test in tests:
        pair = rates_of(test)
        if number(test, "eps") != eps or not all(map(math.isfinite, pair)):
            continue
        first, second = (f"{of_ten(rate)} pairs of “{a.name}”" for rate, a in zip(pair, audits, strict=True))
        figures = f"{percent(pair[0])} against {share(pair[1])}, {probability(number(test, 'p'))}"
        told.append(f"{word(test, 'goal')} breaks {first} and {second} ({figures})")
    norm = word(tests[0], "norm", norm_of(data)) if tests else ""
    return f"At {norm} {radius(eps, norm)}, the smallest change tried, {'; '.join(told)}." if told else ""


def rates_of(test: Data, key: str = "rates") -> tuple[float, float]:
    """The two figures of a test, NaN where they are not known."""
    pair = test.get(key)
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        return math.nan, math.nan
    return number({"rate": pair[0]}, "rate"), number({"rate": pair[1]}, "rate")


def _distances(data: Data, audits: tuple[Named, Named]) -> str:
    told = []
    for test in records(data, "distance_tests"):
        ratio, reached = number(test, "ratio"), [math.isfinite(median) for median in rates_of(test, "medians")]
        if reached.count(True) == 1:
            held, fell = audits[reached.index(False)].name, audits[reached.index(True)].name
            told.append(f"{word(test, 'goal')} finds a change for “{fell}”, and none within reach for “{held}”")
        elif ratio > 0:
            far, near = (1, 0) if ratio >= 1 else (0, 1)
            times, p = decimal(max(ratio, 1 / ratio), 1), probability(number(test, "p"))
            models = f"for “{audits[far].name}” as for “{audits[near].name}”"
            told.append(f"{word(test, 'goal')} takes a change {times} times as large {models} ({p})")
    return f"To break half of the pairs, {'; '.join(told)}." if told else ""


def _doubt(audit: Named) -> str:
    failed = listing([f"“{name}”" for name in failed_checks(audit.data)])
    return f"The attacks on “{audit.name}” cannot be fully believed ({failed} fails): it may resist less than it seems."


def probability(p: float) -> str:
    """`p = 0.013`, `p < 0.001`; how likely so large a difference is by chance."""
    if not math.isfinite(p):
        return f"p{SPACE}{DASH}"
    return f"p{SPACE}<{SPACE}0.001" if p < 0.001 else f"p{SPACE}={SPACE}{p:.2g}"


def names_of(data: Data) -> tuple[str, str]:
    """The two names, from `names`, else the models', else A and B; never the same twice."""
    given = data.get("names")
    names = [str(name) for name in given] if isinstance(given, list | tuple) and len(given) == 2 else []
    names = names or [word(model, "name") for model in records(data, "models")]
    first, second = names if len(names) == 2 and names[0] != names[1] and all(names) else ("A", "B")
    return first, second


def audits_of(data: Data) -> tuple[Named, Named]:
    """Both audits under their names, empty where they are not given."""
    first, second = names_of(data)
    found = [*records(data, "audits"), {}, {}]
    return Named(name=first, data=block({"a": found[0]}, "a")), Named(name=second, data=block({"a": found[1]}, "a"))
