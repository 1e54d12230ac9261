"""The report in plain words, made from its numbers, and how figures are written. Plain text, not yet HTML.

Told is what was trained, what came out, and what must not be concluded; figures are percentages, intervals, budgets and
false-match rates.
"""

import math
from collections.abc import Sequence

from steadface.report.arm import Arm, Goal, Rate, Setting, attacked, clean_fnmr, radii, settings

SPACE, DASH, MINUS = "\N{NO-BREAK SPACE}", "\N{EN DASH}", "\N{MINUS SIGN}"
NONE = DASH
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

# Beyond these a recogniser says so little about people that its errors under attack mean nothing.
CHANCE_ACCURACY = 0.60
CHANCE_EER = 0.40
COLLAPSED_IMPOSTOR_MEAN = 0.5
COLLAPSED_GAP = 0.1
HOPELESS_FNMR = 0.5

LIMITS = (
    "The attacks here change pixels of an aligned face after the camera. ISO/IEC 30107-3 covers attacks presented to "
    "the capture device only, and there is no standard metric for digital ones: the figures are false match and false "
    "non-match rates in the sense of ISO/IEC 19795-1, at a threshold frozen on clean pairs of other people.",
    "An attack that fails proves little: it may have been the wrong one. PGD alone gives only an upper bound of "
    "robustness, that is, the true error under attack is at least the one shown. A gradient-free and a parameter-free "
    "attack belong beside it before a model is called robust.",
    "Intervals are those of the pairs that were tried; they do not cover the choice of the training seed, of the "
    "people, or of the data set.",
)


def percent(value: float, digits: int = 1) -> str:
    """0.1234 -> `12.3`, without the sign, for columns headed with it; what rounds to 0 but is not: `<0.1`."""
    if not math.isfinite(value):
        return NONE
    smallest = 10.0**-digits
    return f"<{smallest:.{digits}f}" if 0 < 100 * value < smallest / 2 else f"{100 * value:.{digits}f}"


def share(value: float, digits: int = 1) -> str:
    """0.1234 -> `12.3 %`, for running text."""
    return f"{percent(value, digits)}{SPACE}%"


def interval(rate: Rate, digits: int = 1) -> str:
    """`10.1–14.9` in per cent, empty where it is not known."""
    if not math.isfinite(rate.low + rate.high):
        return ""
    return f"{100 * rate.low:.{digits}f}{DASH}{100 * rate.high:.{digits}f}"


def with_interval(
    value: float, low: float, high: float, *, digits: int = 1, signed: bool = False, unit: str = ""
) -> str:
    """`12.3 (10.1 to 14.9)`, in the unit that the numbers are in; `signed` ones with their sign."""
    form = f"{'+' if signed else ''}.{digits}f"
    return f"{value:{form}}{unit} ({low:{form}} to {high:{form}})"


def points(value: float, digits: int = 1, *, signed: bool = True) -> str:
    """A difference of rates in percentage points with a true minus sign, -0.031 -> `−3.1`, +0.031 -> `+3.1`."""
    return NONE if not math.isfinite(value) else f"{100 * value:{'+' if signed else ''}.{digits}f}".replace("-", MINUS)


def points_interval(rate: Rate, digits: int = 1, *, signed: bool = True) -> str:
    """`−8.2 to +2.0`, empty where it is not known."""
    if not math.isfinite(rate.low + rate.high):
        return ""
    return f"{points(rate.low, digits, signed=signed)} to {points(rate.high, digits, signed=signed)}"


def decimal(value: float | None, digits: int = 3) -> str:
    """A plain number with a true minus sign."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.{digits}f}".replace("-", MINUS)


def count(value: float | None) -> str:
    """12345 -> `12,345`."""
    return NONE if value is None or not math.isfinite(value) else f"{int(value):,}"


def minutes(seconds: float | None) -> str:
    """Seconds as minutes with one decimal."""
    return decimal(None if seconds is None else seconds / 60, 1)


def power(value: float) -> str:
    """A false-match rate: `10⁻³` for a power of ten, else two significant digits."""
    if not math.isfinite(value) or value <= 0:
        return NONE
    exponent = round(math.log10(value))
    if math.isclose(value, 10.0**exponent, rel_tol=1e-6):
        return "10" + str(exponent).translate(_SUPERSCRIPT) if exponent else "1"
    return f"{value:.2g}"


def radius(eps: float, norm: str) -> str:
    """`4/255` for linf radii, which people think of in pixel values; a plain number for other norms."""
    if not math.isfinite(eps):
        return NONE
    pixels = eps * 255
    if norm == "linf" and math.isclose(pixels, round(pixels, 1), abs_tol=1e-3):
        return f"{round(pixels, 1):g}/255"
    return f"{eps:.4g}"


def listing(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def opening(arms: Sequence[Arm]) -> str:
    """The first sentences: what the page compares."""
    if len(arms) == 1:
        return f"This page shows one trained recogniser, “{arms[0].name}”, on clean faces and under attack."
    number = dict(enumerate(("two", "three", "four", "five", "six"), start=2)).get(len(arms), str(len(arms)))
    names = listing([f"“{arm.name}”" for arm in arms])
    return f"This page compares {number} trained recognisers, {names}, on clean faces and under attack."


def about(arm: Arm) -> str:
    """One arm in three sentences: training, clean faces, under attack; a fourth when it supports no conclusion."""
    return " ".join(part for part in (_training(arm), _clean(arm), _attack(arm), verdict(arm)) if part)


def _training(arm: Arm) -> str:
    if arm.steps is None:
        return "Not trained here."
    time = "" if arm.seconds is None else f" in {minutes(arm.seconds)}{SPACE}minutes"
    skipped = f", {count(arm.skipped)} of them skipped for a loss that was not finite" if arm.skipped else ""
    text = f"{count(arm.steps)} steps{skipped}{time}"
    duty = arm.duty_cycle
    if duty is None or not math.isfinite(duty):
        return text + "."
    if duty <= 0:
        return f"{text}; the gate never opened, so this is clean training."
    return f"{text}; the gate was open {'all the time' if duty >= 1 else f'for {share(duty, 0)} of them'}."


def _clean(arm: Arm) -> str:
    facts = []
    if math.isfinite(arm.figure("accuracy")):
        facts.append(f"{share(arm.figure('accuracy'))} of the pairs are decided rightly")
    if math.isfinite(arm.figure("eer")):
        facts.append(f"the equal error rate is {share(arm.figure('eer'))}")
    for setting in settings([arm])[:1]:
        missed = clean_fnmr(arm, setting.fmr)
        if math.isfinite(missed.rate):
            facts.append(f"{share(missed.rate)} of genuine pairs are missed at FMR {power(setting.fmr)}")
    return f"On clean faces {listing(facts)}." if facts else "It was not evaluated on clean faces."


def _attack(arm: Arm) -> str:
    found = settings([arm])
    if not found:
        return "It was not attacked."
    setting = found[0]
    dodging = _told(attacked(arm, setting, "dodging"), setting, "dodging breaks", "genuine pairs")
    impersonation = _told(attacked(arm, setting, "impersonation"), setting, "impersonation lets in", "impostor pairs")
    return f"Under {setting.norm} attack {'; '.join(text for text in (dodging, impersonation) if text)}."


def _told(rates: dict[float, Rate], setting: Setting, effect: str, pairs: str) -> str:
    """`effect` 7.5 % of `pairs` at 1/255, 52.5 % at 4/255 and 88.5 % at 8/255."""
    shown = [(share(rate.rate), radius(eps, setting.norm)) for eps, rate in _some(rates)]
    if not shown:
        return ""
    (first, smallest), rest = shown[0], shown[1:]
    return f"{effect} {listing([f'{first} of {pairs} at {smallest}', *(f'{r} at {e}' for r, e in rest)])}"


def _some(rates: dict[float, Rate]) -> list[tuple[float, Rate]]:
    """At most three of the radii: the smallest, the middle one and the largest."""
    items = [(eps, rate) for eps, rate in rates.items() if eps > 0]
    return items if len(items) <= 3 else [items[0], items[len(items) // 2], items[-1]]


def verdict(arm: Arm) -> str:
    """Why nothing follows from the arm's errors under attack; empty where something may."""
    accuracy, eer = arm.figure("accuracy"), arm.figure("eer")
    genuine, impostor = arm.figure("genuine_mean"), arm.figure("impostor_mean")
    if accuracy < CHANCE_ACCURACY or eer > CHANCE_EER:
        return "It is near chance on clean faces, so no conclusion follows from its errors under attack."
    if impostor > COLLAPSED_IMPOSTOR_MEAN or genuine - impostor < COLLAPSED_GAP:
        return (
            f"Its embedding is collapsed (mean cosine of different people {decimal(impostor, 2)}, of the same person "
            f"{decimal(genuine, 2)}), which looks robust without being so: no conclusion follows."
        )
    for setting in settings([arm])[:1]:
        if clean_fnmr(arm, setting.fmr).rate > HOPELESS_FNMR:
            return (
                f"It misses more than half of the clean genuine pairs at FMR {power(setting.fmr)}, so its "
                "dodging figures say little."
            )
    return ""


def comparison(arms: Sequence[Arm]) -> str:
    """Which arm errs least under attack, and whether the intervals tell it from the others; may be empty.

    At the middle one of the radii tried, so that neither trivial nor hopeless budgets decide. Arms with a
    verdict take no part.
    """
    sound = [arm for arm in arms if not verdict(arm)]
    if len(arms) < 2 or not settings(arms):
        return ""
    if len(sound) < 2:
        return "Fewer than two of these models recognise people well enough to be compared."
    setting = settings(sound)[0] if settings(sound) else settings(arms)[0]
    eps = radii(sound, setting)
    if not eps:
        return ""
    middle = eps[(len(eps) - 1) // 2]
    parts = [_least(sound, setting, "dodging", middle), _least(sound, setting, "impersonation", middle)]
    told = [part for part in parts if part]
    return f"At {setting.norm} {radius(middle, setting.norm)}, {'; '.join(told)}." if told else ""


def _least(arms: Sequence[Arm], setting: Setting, goal: Goal, eps: float) -> str:
    rates = {arm.name: attacked(arm, setting, goal).get(eps) for arm in arms}
    known = sorted(((rate.rate, name, rate) for name, rate in rates.items() if rate), key=lambda item: item[0])
    if len(known) < 2:
        return ""
    _, best, rate = known[0]
    alike = [f"“{name}”" for _, name, other in known[1:] if other.overlaps(rate)]
    apart = (
        f"its interval lies below {'that of every other' if len(known) > 2 else f'that of “{known[1][1]}”'}"
        if not alike
        else f"its interval overlaps with that of {listing(alike)}, so these pairs do not tell them apart"
    )
    return f"{goal} succeeds least often against “{best}” ({share(rate.rate)}; {apart})"


def cautions(arms: Sequence[Arm]) -> list[str]:
    """Warnings about the whole comparison: useless models, unequal time, the evaluation's warnings."""
    found = [f"“{arm.name}”: {reason[0].lower()}{reason[1:]}" for arm in arms if (reason := verdict(arm))]
    times = [arm.seconds for arm in arms if arm.seconds]
    if len(times) > 1 and max(times) > 1.15 * min(times):
        found.append(
            f"Training times differ, from {minutes(min(times))} to {minutes(max(times))}{SPACE}minutes: part of any "
            "difference between the models may be due to that."
        )
    found += [f"“{arm.name}”: {text}" for arm in arms for text in _warnings(arm)]
    return found


def _warnings(arm: Arm) -> list[str]:
    texts = arm.evaluation.get("warnings")
    return [str(text) for text in texts] if isinstance(texts, list | tuple) else []
