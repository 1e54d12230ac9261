"""What is asked of an audit."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import torch

from steadface.arguments import choice, count, flag, number, rate
from steadface.attacks import Attack, Norm
from steadface.audit.presets import Preset
from steadface.data.pairs import PairSet
from steadface.devices import resolve_device
from steadface.errors import InvalidInput
from steadface.evaluation.thresholds import checked_threshold
from steadface.recognizers import OpenedRecognizer

ON_CPU, ON_GPU = 32, 256
"""Pairs attacked at once: what fills a few cores, and a GPU."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked: `eps` are radii of `norm` as fractions of the pixel range; `threshold` overrides `fmr`.

    `extra` are further attacks by name, tried beside the standard ones (a trained generator, say).
    """

    model: OpenedRecognizer
    pairs: PairSet
    preset: Preset
    eps: tuple[float, ...]
    norm: Norm = "linf"
    fmr: float = 1e-2
    threshold: float | None = None
    max_pairs: int = 100
    seed: int = 0
    mirror: bool = False
    detail: bool = False
    calibration: PairSet | None = None
    surrogates: tuple[OpenedRecognizer, ...] = ()
    extra: tuple[tuple[str, Attack], ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int | None = None
    """Pairs attacked at once; none given: `ON_CPU`, or `ON_GPU`, as is set when the request is made."""

    def __post_init__(self) -> None:
        choice("norm", self.norm, Norm)
        object.__setattr__(self, "eps", checked_radii(self.eps, self.norm))
        object.__setattr__(self, "device", resolve_device(self.device))
        rate("FMR", self.fmr)
        count("max_pairs", self.max_pairs)
        if self.batch_size is None:
            object.__setattr__(self, "batch_size", ON_CPU if self.device.type == "cpu" else ON_GPU)
        count("batch_size", self.batch_size)
        count("seed", self.seed, least=0)
        flag("mirror", self.mirror)
        flag("detail", self.detail)
        if self.threshold is not None:
            checked_threshold(self.threshold)

    @property
    def batch(self) -> int:
        """How many pairs are attacked at once."""
        assert self.batch_size is not None
        return self.batch_size

    def settings(self) -> dict[str, Any]:
        """What is printed in the report."""
        budget = {name.replace("_", " "): value for name, value in self.preset.to_json().items() if name != "name"}
        return {
            "preset": self.preset.name,
            "norm": self.norm,
            "eps": sorted(self.eps),
            "fmr": self.fmr,
            "threshold": self.threshold,
            "max_pairs": self.max_pairs,
            "seed": self.seed,
            "mirror": self.mirror,
            "detail": self.detail,
            "surrogates": [surrogate.name for surrogate in self.surrogates],
            "budget": budget,
        }

    def identity(self) -> dict[str, Any]:
        """What decides every figure, as plain JSON."""
        return self.settings() | {
            "model": self.model.fingerprint,
            "surrogates": [surrogate.fingerprint for surrogate in self.surrogates],
            "pairs": _fingerprint(self.pairs),
            "calibration": None if self.calibration is None else _fingerprint(self.calibration),
            "extra": [name for name, _ in self.extra],
            "batch_size": self.batch,
        }


def checked_radii(eps: float | Sequence[float], norm: Norm) -> tuple[float, ...]:
    """One radius or several. Raises SteadfaceError unless there are some, positive and inside the pixel range."""
    radii = (eps,) if isinstance(eps, int | float) else tuple(eps)
    if not radii or not all(0 < number("eps", one) < inf for one in radii):
        raise InvalidInput(f"eps {list(radii)}: give one or more positive radii, such as 2/255")
    if norm == "linf" and max(radii) > 1:
        raise InvalidInput(f"eps {max(radii):g} is more than the whole pixel range: write {max(radii):g}/255")
    return radii


def _fingerprint(pairs: PairSet) -> str:
    digest = hashlib.sha256(pairs.faces.fingerprint().encode())
    for array in (pairs.first, pairs.second, pairs.same, pairs.fold):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
