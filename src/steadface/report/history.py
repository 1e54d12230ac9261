"""A training run's log as arrays: what the loss curve and the gate's shading are drawn from."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadface.errors import InvalidInput, NotFound
from steadface.files import read_file
from steadface.records import LARGEST_LOG

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ValidationPoint:
    """Figures on held-out people after `step` updates; what was not measured is absent.

    `attacked` is the error rate of the worse goal, its mean over the radii that were attacked.
    """

    step: int
    figures: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class History:
    """One entry per logged step, all arrays (S,), steps strictly increasing; NaN where nothing was logged.

    `threshold` is in the unit of `loss`; NaN where the gate judges something else. `eps` is a radius in [0, 1]
    pixel units, `seconds` the training time until then. `strength` is how far an open gate was open, `clean` the level
    (1 - EER, people held out) that its bound follows, as last seen, and `clean_asked` the one asked for.
    """

    step: NDArray[np.int64]
    loss: Floats
    gate_open: NDArray[np.bool_]
    threshold: Floats
    seconds: Floats
    lr: Floats
    adversarial_loss: Floats
    eps: Floats
    strength: Floats
    clean: Floats
    clean_asked: Floats
    validation: tuple[ValidationPoint, ...] = ()


_FRACTION = re.compile(r"[-+]?\d{1,20}(\.\d{1,20})?([eE][-+]?\d{1,2})?(/\d{1,9})?")
"""Bounded, since the fraction of a long exponent is as large as memory."""

MOST_STEPS = 2**53
"""Steps of a run; a larger number is no step."""


def _attacked(attacks: object) -> float:
    """The mean over the radii of the worse goal's error rate, NaN without attacks."""
    worst: dict[float, float] = {}
    for attack in attacks if isinstance(attacks, list) else []:
        if isinstance(attack, Mapping) and math.isfinite(rate := number(attack, "error_rate")):
            eps = number(attack, "eps")
            worst[eps] = max(rate, worst.get(eps, 0.0))
    return sum(worst.values()) / len(worst) if worst else math.nan


def number(record: Mapping[str, Any], key: str) -> float:
    """`record[key]` as a float, NaN where it is absent, null or no number; `"4/255"` is a number."""
    value = record.get(key)
    if value is None or isinstance(value, bool):
        return math.nan
    try:
        if isinstance(value, str):
            return float(Fraction(value)) if _FRACTION.fullmatch(value) else math.nan
        return float(value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return math.nan


def read_history(path: Path | str) -> History:
    """The log `metrics.jsonl` of a run: one JSON object a line, training steps and validations mixed.

    A step logged twice (the run was resumed from before it) counts as last logged. A last line cut short, as
    a killed run leaves it, is passed over. Raises SteadfaceError for a file that cannot be read, and for any
    other line that is no JSON object with a step.
    """
    try:
        lines = read_file(path, most=LARGEST_LOG).decode("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise NotFound(f"the training log {path} cannot be read ({error.strerror})") from error
    records = []
    for index, line in enumerate(lines):
        record = _parse(line)
        if record is not None:
            records.append(record)
        elif line.strip() and index + 1 < len(lines):
            raise InvalidInput(
                f"{path}, line {index + 1}: {line[:60]!r} is no JSON object with a step; repair or remove it"
            )
    return history_from(records)


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and 0 <= number(record, "step") <= MOST_STEPS else None


def history_from(records: Iterable[Mapping[str, Any]]) -> History:
    """The same from records in memory, in the order in which they were logged."""
    training: dict[int, Mapping[str, Any]] = {}
    validation: dict[int, ValidationPoint] = {}
    for record in records:
        step = int(number(record, "step"))
        if isinstance(record.get("validation"), Mapping):
            seen = record["validation"]
            figures = {key: number(seen, key) for key in seen} | {"attacked": _attacked(seen.get("attacks"))}
            validation[step] = ValidationPoint(step=step, figures=figures)
        if any(key in record for key in ("loss", "gate", "seconds")):
            training[step] = record
    steps = sorted(training)

    def column(key: str) -> Floats:
        return np.array([number(training[step], key) for step in steps], dtype=np.float64)

    return History(
        step=np.array(steps, dtype=np.int64),
        loss=column("loss"),
        gate_open=np.array([training[step].get("gate") is True for step in steps], dtype=np.bool_),
        threshold=column("threshold"),
        seconds=column("seconds"),
        lr=column("lr"),
        adversarial_loss=column("adversarial_loss"),
        eps=column("eps"),
        strength=column("strength"),
        clean=column("clean"),
        clean_asked=column("clean_asked"),
        validation=tuple(validation[step] for step in sorted(validation)),
    )


def open_spans(
    steps: Sequence[int] | NDArray[np.int64], gate: Sequence[bool] | NDArray[np.bool_]
) -> list[tuple[float, float]]:
    """The stretches [start, stop) of steps over which the gate was open.

    A logged verdict holds until the next logged step; the last one holds for as long as the one before it
    (for one step where it is the only one). `steps` (S,) strictly increasing, `gate` (S,).
    """
    if len(steps) == 0:
        return []
    start = np.asarray(steps, dtype=np.float64)
    last = start[-1] - start[-2] if len(start) > 1 else 1.0
    edges = np.append(start, start[-1] + last)
    change = np.diff(np.concatenate(([0], np.asarray(gate, dtype=np.int8), [0])))
    opened, closed = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    return [(float(edges[i]), float(edges[j])) for i, j in zip(opened, closed, strict=True)]


def running_mean(values: Floats, window: int) -> Floats:
    """Mean over the `window` entries around each one, ignoring NaN; NaN where there is none. Shape (S,)."""
    known = np.isfinite(values)
    left = np.maximum(np.arange(len(values)) - window // 2, 0)
    right = np.minimum(np.arange(len(values)) - window // 2 + max(window, 1), len(values))
    total = np.concatenate(([0.0], np.cumsum(np.where(known, values, 0.0))))
    count = np.concatenate(([0], np.cumsum(known)))
    n = count[right] - count[left]
    return np.where(n > 0, (total[right] - total[left]) / np.maximum(n, 1), np.nan)
