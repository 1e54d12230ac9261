"""Made-up audits with realistic figures, as `steadface audit` writes them."""

import json
import math
from typing import Any

import numpy as np
from scipy.special import betaincinv

from steadface.audit_record import Audit, Comparison

GOALS = ("dodging", "impersonation")
PAIRS = 100
THRESHOLD = 0.231
ATTACKS = {"FGSM": 0.72, "APGD": 0.97, "FMN": 0.95, "Square": 0.55, "transfer": 0.3}
CORRUPTIONS = {"gaussian noise": 4.0, "blur": 6.0, "JPEG": 1.5, "brightness": 2.5, "occlusion": 8.0}


def interval(broken: int, n: int = PAIRS) -> list[float]:
    broken = min(max(broken, 0), n)
    low = 0.0 if broken == 0 else float(betaincinv(broken, n - broken + 1, 0.025))
    high = 1.0 if broken == n else float(betaincinv(broken + 1, n - broken, 0.975))
    return [low, high]


def _rate(name: str, goal: str, eps: float, broken: int, **more: Any) -> dict[str, Any]:
    broken = min(max(broken, 0), PAIRS)
    budget = {"attack": name, "norm": "linf", "eps": eps, "goal": goal, "fmr": 0.01, "threshold": THRESHOLD}
    rates = {"error_rate": broken / PAIRS, "ci": interval(broken), "error_rate_8bit": max(broken - 1, 0) / PAIRS}
    return {**budget, **rates, "pairs": PAIRS, **more}


def _pairs(rng: np.random.Generator, goal: str, median: float, eps: list[float], radius: float) -> list[dict[str, Any]]:
    far = median * np.exp(0.7 * rng.standard_normal(PAIRS))
    far[: 3 if goal == "dodging" else 1] = 0
    entries = []
    for n, distance in enumerate(far.tolist()):
        held, at = distance > radius, next((e for e in eps if distance <= e), None)
        cosine = 0.62 if goal == "dodging" else 0.02
        entries.append(
            {
                "goal": goal,
                "first": f"person_{n}/0.png",
                "second": f"person_{n}/1.png",
                "cosine": cosine,
                "attacked": {f"{e:.6g}": cosine - 40 * e for e in eps},
                "broken_at": 0.0 if distance == 0 else at,
                "broken_by": "no attack" if distance == 0 else "APGD" if at else None,
                "distance": None if held else distance,
                "censored": held,
                "png": None,
                "survives_png": None,
            }
        )
    return entries


def _distances(pairs: list[dict[str, Any]], radius: float) -> dict[str, Any]:
    far = np.sort([math.inf if pair["censored"] else pair["distance"] for pair in pairs])
    median, low, high = (float(value) if np.isfinite(value) else None for value in (np.median(far), far[39], far[60]))
    censored = sum(pair["censored"] for pair in pairs)
    wrong = sum(pair["broken_at"] == 0.0 for pair in pairs)
    summary = {"median": median, "ci": [low, high], "pairs": PAIRS, "censored": censored}
    return {**summary, "radius": radius, "already_wrong": wrong}


def _surface(goal: str, eps: float, bend: float) -> dict[str, Any]:
    axis = np.linspace(-2 * eps, 2 * eps, 13)
    a, b = np.meshgrid(axis, axis)
    cosine = 0.45 + bend * np.tanh(60 * a) - 400 * b**2
    return {"goal": goal, "eps": eps, "norm": "linf", "gradient": axis.tolist(), "random": axis.tolist()} | {
        "cosine": cosine.tolist()
    }


def _clean(missed: int = 3, accepted: int = 1) -> dict[str, Any]:
    ci = {"fnmr": interval(missed), "fmr": interval(accepted)}
    rates = {"fnmr": missed / PAIRS, "fmr": accepted / PAIRS, "ci": ci}
    counts = {"genuine_pairs": PAIRS, "impostor_pairs": PAIRS}
    return {**rates, **counts, "genuine_mean": 0.612, "impostor_mean": 0.018}


def _identification(eps: list[float]) -> dict[str, Any]:
    attacks: list[dict[str, Any]] = []
    for e, missed, taken in zip(eps, (0.72, 0.96), (0.41, 0.88), strict=False):
        at = {"norm": "linf", "eps": e, "probes": 80}
        hidden = {"fnir": missed, "fnir_ci": [missed - 0.1, 0.99], "rank1_miss": missed - 0.2}
        attacks.append({"goal": "dodging", **at, **hidden, "rank1_miss_ci": [missed - 0.3, missed - 0.1]})
        found = {"targeted_fpir": taken, "targeted_fpir_ci": [taken - 0.1, taken + 0.1], "targeted_rank1": taken}
        attacks.append({"goal": "impersonation", **at, **found, "targeted_rank1_ci": [taken - 0.1, taken + 0.1]})
    clean = {"fnir": 0.08, "fnir_ci": [0.03, 0.16], "rank1": 0.97, "rank1_ci": [0.91, 0.99], "probes": 80}
    found = {"fpir": 0.01, "threshold": 0.41, "gallery": 1000, "strangers": 2900}
    return {**found, "clean": clean, "attacks": attacks}


def audit(
    name: str = "mobilefacenet", *, levels: float = 1.4, preset: str = "standard", seed: int = 0
) -> dict[str, Any]:
    """An audit of a model whose median pair breaks at `levels` of 255 grey levels."""
    rng, eps, radius = np.random.default_rng(seed), [2 / 255, 4 / 255], 16 / 255
    pairs = {goal: _pairs(rng, goal, levels / 255 * (1 + n / 2), eps, radius) for n, goal in enumerate(GOALS)}
    found = {goal: _distances(pairs[goal], radius) for goal in GOALS}

    def broken(goal: str, e: float) -> int:
        return sum(pair["broken_at"] is not None and pair["broken_at"] <= e for pair in pairs[goal])

    def by(goal: str, e: float) -> dict[str, int]:
        wrong = found[goal]["already_wrong"]
        return {"no attack": wrong, "APGD": broken(goal, e) - wrong, "FMN": 0}

    cells = [(goal, e) for goal in GOALS for e in eps]
    stricter = {"dodging": 7, "impersonation": -9}  # a higher threshold refuses more and accepts less
    attacks = [
        _rate(
            attack,
            goal,
            e,
            round(strength * broken(goal, e)),
            queries={"median": 120.0, "most": 300} if attack == "Square" else None,
            part_of_worst_case=attack not in ("FGSM",),
        )
        for attack, strength in ATTACKS.items()
        for goal, e in cells
    ]
    corruptions = [
        {
            "corruption": c,
            "severity": s,
            "goal": goal,
            "error_rate": rate,
            "ci": interval(round(100 * rate)),
            "pairs": PAIRS,
        }
        for c, slope in CORRUPTIONS.items()
        for goal, part in zip(GOALS, (1.0, 0.1), strict=True)
        for s in range(1, 6)
        for rate in [round(0.02 + part * slope * s / 100, 2)]
    ]
    return {
        "kind": "audit",
        "title": f"Audit of {name}",
        "model": {
            "name": name,
            "path": f"weights/{name}.safetensors",
            "fingerprint": "5f3a" * 16,
            "embedding_size": 128,
            "image_size": [112, 112],
            "differentiable": True,
            "convention": {"range": "-1..1", "order": "rgb", "size": "112x112"},
            "notes": [],
        },
        "settings": {
            "preset": preset,
            "norm": "linf",
            "eps": eps,
            "fmr": 0.01,
            "max_pairs": PAIRS,
            "seed": seed,
            "mirror": False,
            "detail": False,
            "surrogates": ["iresnet18"],
            "budget": {"APGD steps": 50, "APGD restarts": 2, "FMN steps": 60, "Square queries": 300},
            "images": "faces",
            "pairs": "pairs.txt",
            "calibration_pairs": None,
        },
        "fmr": 0.01,
        "threshold": THRESHOLD,
        "calibration": {
            "pairs": "all cross pairs of other people",
            "fmr": 0.01,
            "threshold": THRESHOLD,
            "measured_fmr": 0.0100,
            "impostor_mean": 0.015,
            "impostor_pairs": 4_210_332,
            "images": 2903,
            "people": 1410,
        },
        "clean": _clean(),
        "worst_case": [_rate("worst case", g, e, broken(g, e), by=by(g, e)) for g, e in cells],
        "attacks": attacks,
        "other_thresholds": [
            {
                "fmr": 0.001,
                "threshold": 0.318,
                "clean": _clean(6, 0),
                "worst_case": [_rate("worst case", g, e, broken(g, e) + stricter[g]) for g, e in cells],
            }
        ],
        "median_distance": {"linf": {goal: found[goal]["median"] for goal in GOALS}},
        "distances": {"linf": found},
        "identification": _identification(eps),
        "corruptions": corruptions,
        "checks": [
            {
                "name": "iterative beats single step",
                "passed": True,
                "finding": "dodging at 0.007843: APGD 70%, FGSM 52%",
            },
            {
                "name": "white-box beats black-box (Square)",
                "passed": True,
                "finding": "impersonation at 0.007843: white-box 44%, Square 26%",
            },
            {"name": "twice the steps add little", "passed": None, "finding": "too few pairs held at any radius"},
        ],
        "surfaces": [_surface(goal, eps[0], bend) for goal, bend in zip(GOALS, (-0.6, 0.5), strict=True)],
        "warnings": [],
        "pairs": [pair for goal in GOALS for pair in pairs[goal]],
        "versions": {"steadface": "0.1.0", "torch": "2.11.0", "python": "3.12.3", "numpy": "2.3.1", "hardware": "CPU"},
        "command": f"steadface audit {name} --images faces --pairs pairs.txt --out audit",
        "seconds": 812.4,
    }


def comparison(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both side by side; the p-values are made up to fit."""
    tests = []
    for one, other in zip(first["worst_case"], second["worst_case"], strict=True):
        rates = [one["error_rate"], other["error_rate"]]
        difference = rates[1] - rates[0]
        counts = {
            "only_first": round(100 * max(-difference, 0)) + 2,
            "only_second": round(100 * max(difference, 0)) + 2,
        }
        interval = {"difference": difference, "ci": [difference - 0.09, difference + 0.09]}
        p = {"p": 0.5 if abs(difference) < 0.1 else 2e-5, "pairs": PAIRS}
        tests.append({**{k: one[k] for k in ("goal", "norm", "eps", "fmr")}, "rates": rates, **interval, **counts, **p})
    far = []
    for goal in GOALS:
        medians = [data["median_distance"]["linf"][goal] for data in (first, second)]
        ratio = medians[1] / medians[0] if all(medians) else None
        far.append({"goal": goal, "norm": "linf", "medians": medians, "ratio": ratio, "p": 1e-6, "pairs": PAIRS})
    return {
        "kind": "audit comparison",
        "title": "Clean and hardened",
        "models": [first["model"], second["model"]],
        "names": ["clean", "hardened"],
        "settings": first["settings"],
        "audits": [first, second],
        "tests": tests,
        "distance_tests": far,
        "warnings": ["clean: no surrogate was given (--surrogate), so no transfer attack was run"],
        "versions": first["versions"],
        "command": "steadface audit --compare clean hardened --images faces --out both",
    }


def record(data: dict[str, Any]) -> Audit:
    """The same read as a file is."""
    return Audit.model_validate_json(json.dumps(data))


def compared(data: dict[str, Any]) -> Comparison:
    return Comparison.model_validate_json(json.dumps(data))
