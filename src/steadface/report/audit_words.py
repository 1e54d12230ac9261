"""An audit in plain words, made from its numbers: what was tried, what an attacker reaches, what follows from it."""

import math
from collections.abc import Sequence
from typing import Any

from steadface.report.arm import Rate
from steadface.report.audit_data import (
    GOALS,
    Data,
    block,
    clean_rate,
    failed_checks,
    name_of,
    norm_of,
    security,
    word,
)
from steadface.report.history import number
from steadface.report.text import count, decimal, listing, radius, share

# From these shares of broken pairs on, at the smallest radius tried, a model counts as open to attack.
MANY, SOME = 0.5, 0.1
HOPELESS = 0.5

QUICK = "This was a quick run, made to try out that everything works: it supports no claim about the recogniser."
STANDARDS = (
    "The error rates are the false match rate (FMR: pairs of different people that are accepted) and the false "
    "non-match rate (FNMR: pairs of one person that are refused) as ISO/IEC 19795-1, the standard on testing biometric "
    "performance, defines them for ordinary use. That standard describes no attacks.",
    "ISO/IEC 30107-3 tests the detection of presentation attacks: masks, printouts and screens held before the capture "
    "device. The attacks here change the picture after the camera, and so lie outside it.",
    "No standard defines a metric for digital attacks of this kind. What stands here is therefore not a certificate: "
    "the same rates are measured again on attacked pictures, at a threshold frozen on clean pairs.",
    "An attack that fails proves little, since a better one may exist: the true error under attack is at least the one "
    "shown. Intervals cover the choice of the pairs, not that of the people, of the data set or of the attacks.",
)


def opening(data: Data) -> str:
    """The first paragraph, for a reader who knows nothing of the field."""
    told = (_tried(data), _clean(data), *_attacked(data), meaning(data))
    return " ".join(sentence for sentence in told if sentence)


def _tried(data: Data) -> str:
    clean, threshold = block(data, "clean"), number(data, "threshold")
    genuine, impostor = (count(number(clean, key)) for key in ("genuine_pairs", "impostor_pairs"))
    pairs = ""
    if math.isfinite(number(clean, "genuine_pairs") + number(clean, "impostor_pairs")):
        pairs = f" with {genuine} pairs of pictures of one person and {impostor} pairs of different people"
    text = f"This audit tried to deceive the face recogniser “{name_of(data)}”{pairs}."
    if not math.isfinite(threshold):
        return text
    fmr = number(data, "fmr")
    odds = f", the threshold at which it takes {odds_of(fmr)} pairs of different people for one" if fmr > 0 else ""
    return f"{text} It accepts two pictures as one person from a similarity of {decimal(threshold)}{odds}."


def odds_of(rate: float) -> str:
    """A rare rate in (0, 1) as people say it: 0.01 is `1 in 100`."""
    inverse = 1 / rate
    if math.isclose(inverse, round(inverse), rel_tol=1e-3):
        return f"1 in {round(inverse):,}"
    return f"{share(rate, 1 if rate > 1e-3 else 3)} of"


def _clean(data: Data) -> str:
    missed, accepted = (clean_rate(data, goal).rate for goal in GOALS)
    facts = []
    if math.isfinite(missed):
        facts.append(f"misses {counted(missed, 'pairs of one person')}")
    if math.isfinite(accepted):
        facts.append(f"accepts {counted(accepted, 'pairs of different people')}")
    return f"Left alone, it {listing(facts)}." if facts else "How often it errs when left alone was not measured."


def counted(rate: float, things: str) -> str:
    """`7 of 10 pairs (68.0 %)`, or `3 of 100 pairs` where that is the figure itself."""
    words = f"{of_ten(rate)} {things}".rstrip()
    exact = math.isclose(100 * rate, round(100 * rate), abs_tol=1e-6) and (" of 100" in words or rate in (0, 1))
    return words if exact else f"{words} ({share(rate)})"


def of_ten(rate: float) -> str:
    """A rate as people count: `none of the`, `1 of 100`, `7 of 10`, `all`; rounded, so the figure belongs beside it."""
    if rate <= 0:
        return "none of the"
    if rate >= 1:
        return "all"
    tenths = round(10 * rate)
    if 0 < tenths < 10 and abs(rate - tenths / 10) <= min(0.03, 0.15 * rate, 0.15 * (1 - rate)):
        return f"{tenths} of 10"
    hundredths = round(100 * rate)
    if hundredths == 0:
        return "fewer than 1 of 100"
    return f"{hundredths} of 100" if hundredths < 100 else "nearly all"


def _attacked(data: Data) -> list[str]:
    """One sentence for the smallest radius and one for the largest."""
    curves = [security(data, goal) for goal in GOALS]
    eps = sorted({e for curve in curves for e in curve if e > 0})
    if not eps:
        return ["It was not attacked."]
    told = [_first(data, eps[0], [curve.get(eps[0]) for curve in curves])]
    return told if len(eps) == 1 else [*told, _last(data, eps[-1], [curve.get(eps[-1]) for curve in curves])]


def _first(data: Data, eps: float, rates: Sequence[Rate | None]) -> str:
    missed, accepted = rates
    facts = []
    if missed:
        after = ", who then is not recognised" if missed.rate > 0 else ""
        facts.append(f"refuse {counted(missed.rate, f'pairs of one person{after}')}")
    if accepted:
        facts.append(f"accept {counted(accepted.rate, 'strangers as the person whom the attacker chose')}")
    return f"An attacker who {budget(data, eps)} makes it {listing(facts)}."


def _last(data: Data, eps: float, rates: Sequence[Rate | None]) -> str:
    missed, accepted = rates
    facts = [f"{counted(missed.rate, 'pairs')} refused"] if missed else []
    facts += [f"{counted(accepted.rate, 'strangers')} accepted"] if accepted else []
    if norm_of(data) == "linf":
        return f"With up to {255 * eps:.3g} of 255, {share_of_range(255 * eps)}, that becomes {listing(facts)}."
    return f"At {norm_of(data)} {radius(eps, norm_of(data))} that becomes {listing(facts)}."


def budget(data: Data, eps: float) -> str:
    """What a radius means for the picture: `changes no pixel by more than 2 of 255 grey levels, ...`."""
    norm, levels, pixels = norm_of(data), 255 * eps, _pixels(data)
    if norm == "linf":
        return f"changes no pixel by more than {levels:.3g} of 255 grey levels, {share_of_range(levels)},"
    if norm != "l2" or not pixels:
        return f"stays within {norm} distance {radius(eps, norm)} of the picture"
    mean = levels / math.sqrt(3 * pixels)
    return f"changes the pixels by {mean:.2g} of 255 grey levels in the root mean square (l2 {radius(eps, norm)})"


def _pixels(data: Data) -> float:
    """Pixels of a picture, 0 where its size is not known."""
    size: Any = block(data, "model").get("image_size")
    if not isinstance(size, list | tuple) or not all(isinstance(side, int | float) for side in size):
        return 0.0
    return float(math.prod(size)) if len(size) == 2 else 0.0


def share_of_range(levels: float) -> str:
    """So many of 255 grey levels as a part of what a pixel can be: `0.8 % of the way from black to white`."""
    return f"{share(levels / 255)} of the way from black to white"


def meaning(data: Data) -> str:
    """What follows, or why nothing does."""
    if not any(len(security(data, goal)) for goal in GOALS):
        return "So nothing is known about how it resists."
    parts = [_resists(*_ends(data)), _hopeless(data), _doubted(data), QUICK if is_quick(data) else ""]
    return " ".join(part for part in parts if part)


def _ends(data: Data) -> tuple[float, float]:
    """The worse goal's error at the smallest and at the largest radius of each."""
    curves = [[rate.rate for eps, rate in security(data, goal).items() if eps > 0] for goal in GOALS]
    attacked = [curve for curve in curves if curve]
    return max((curve[0] for curve in attacked), default=0.0), max((curve[-1] for curve in attacked), default=0.0)


def _resists(first: float, last: float) -> str:
    if first >= MANY:
        return (
            "That means: it does not resist. Where people can hand in picture files of their own, its decisions must "
            "not be relied on without another safeguard."
        )
    if first >= SOME:
        return (
            "That means: it resists in part. An attacker with a few tries will get through; where people can hand in "
            "picture files of their own it needs another safeguard."
        )
    if last >= MANY:
        return (
            "That means: it withstands the smallest of these changes, but not the largest: whether that is enough "
            "depends on how closely somebody looks at the pictures that are handed in."
        )
    return "That means: it resisted most of what was tried, which is no proof that nothing better exists."


def _hopeless(data: Data) -> str:
    if not any(clean_rate(data, goal).rate > HOPELESS for goal in GOALS):
        return ""
    return "As more than half of the pairs of one kind are decided wrongly without any attack, these rates say little."


def _doubted(data: Data) -> str:
    failed = failed_checks(data)
    if not failed:
        return ""
    which = f"A check of the attacks themselves does not hold (“{failed[0]}”)"
    if len(failed) > 1:
        which = f"{len(failed)} checks of the attacks themselves do not hold"
    return f"{which}: the recogniser may resist less than the figures say."


def is_quick(data: Data) -> bool:
    """Whether the preset supports no claim."""
    return word(block(data, "settings"), "preset") == "quick"
