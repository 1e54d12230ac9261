"""The report in plain words, made from its numbers: what was trained, what came out, what must not be concluded."""

import math
from collections.abc import Sequence

from steadface.report.arm import Arm, Goal, Rate, Setting, attacked, clean_fnmr, radii, settings
from steadface.report.text import SPACE, count, decimal, listing, minutes, power, radius, share

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
    text = f"{count(arm.steps)} steps{time}"
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
