from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from steadface.report.arm import Arm
from steadface.report.history import History, history_from


@dataclass(frozen=True, kw_only=True)
class Example:
    source: NDArray[Any]
    reference: NDArray[Any]
    adversarial: NDArray[Any]
    cosine_before: float
    cosine_after: float
    goal: str
    eps: float
    norm: str


def _history(steps: int = 60, *, gated: bool = True) -> History:
    records: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        loss = 10 * np.exp(-step / 20) + 0.2 * np.sin(step)
        gate = bool(gated and loss < 3)
        record = {"step": step, "seconds": 0.5 * step, "loss": loss, "gate": gate, "threshold": 3.0, "lr": 0.1}
        records.append(record | {"adversarial_loss": loss + 2 if gate else None, "eps": 4 / 255 if gate else 0.0})
    records.append({"step": steps // 2, "validation": {"eer": 0.2, "tar": 0.4}})
    records.append({"step": steps, "validation": {"eer": 0.1, "tar": 0.7}})
    return history_from(records)


def _evaluation(strength: float) -> dict[str, Any]:
    fmr = np.geomspace(1e-4, 1, 50)
    tar = fmr**0.05
    attacks = [
        {
            "attack": "pgd",
            "norm": "linf",
            "eps": pixels / 255,
            "goal": goal,
            "fmr": 1e-2,
            "threshold": 0.31,
            "error_rate": min(1.0, strength * pixels),
            "ci": [max(0.0, strength * pixels - 0.05), min(1.0, strength * pixels + 0.05)],
            "pairs": 200,
        }
        for pixels in (2, 4)
        for goal in ("dodging", "impersonation")
    ]
    points = [
        {"fmr": rate, "threshold": 0.3, "tar": rate**0.05, "tar_ci": [rate**0.05 - 0.02, rate**0.05 + 0.02]}
        for rate in (1e-1, 1e-2, 1e-3)
    ]
    return {
        "accuracy": 0.96,
        "accuracy_std": 0.01,
        "eer": 0.05,
        "genuine_mean": 0.6,
        "impostor_mean": 0.02,
        "lowest_fmr": 1e-3,
        "operating_points": points,
        "attacks": attacks,
        "roc": {"fmr": fmr, "tar": tar},
        "det": {"fmr": fmr, "fnmr": 1 - tar},
    }


def _example(goal: str = "dodging") -> Example:
    source = np.full((12, 10, 3), 0.5, dtype=np.float32)
    return Example(
        source=source,
        reference=source,
        adversarial=source + np.float32(4 / 255),
        cosine_before=0.7,
        cosine_after=-0.1,
        goal=goal,
        eps=4 / 255,
        norm="linf",
    )


@pytest.fixture(scope="session")
def make_history() -> Callable[..., History]:
    return _history


@pytest.fixture(scope="session")
def make_example() -> Callable[..., Example]:
    return _example


@pytest.fixture(scope="session")
def make_arm() -> Callable[..., Arm]:
    """An arm with everything in it; `evaluation` given is merged over the made-up one, `strength` is per pixel."""

    def make(name: str = "gated", *, strength: float = 0.1, evaluation: Any = None, **changes: Any) -> Arm:
        fields: dict[str, Any] = {
            "recipe": {"head": {"kind": "arcface", "s": 32.0}, "run": {"steps": 60}},
            "history": _history(),
            "seconds": 30.0,
            "steps": 60,
            "duty_cycle": 0.6,
            "examples": [_example()],
        }
        merged = _evaluation(strength) | (evaluation or {})
        return Arm(name=name, evaluation=merged, **(fields | changes))

    return make
