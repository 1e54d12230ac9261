"""What is asked of an audit.

Presets are fixed, so that two audits of one preset can be compared, and printed. For 100 + 100 pairs of MobileFaceNet
at two radii on two cores `quick` takes at most 3 minutes, `standard` 20 and `full` 120. `quick` is for finding out
whether everything works: it supports no claim.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any, Literal

import torch

from steadface.arguments import choice, count, flag, number, rate, seed
from steadface.attacks import Attack, Norm
from steadface.audit.generator import TrainedGenerator
from steadface.backbones.soundness import weights_digest
from steadface.data.pairs import PairSet
from steadface.devices import resolve_device
from steadface.errors import InvalidInput
from steadface.evaluation.thresholds import checked_threshold
from steadface.recognizers import OpenedRecognizer

Name = Literal["quick", "standard", "full"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Steps are gradient steps a pair and radius, queries forward passes a pair and radius."""

    name: Name
    apgd_steps: int
    apgd_restarts: int
    fmn_start_steps: int
    fmn_steps: int
    square_queries: int
    transfer_steps: int
    decision_queries: int
    """For HopSkipJump and the evolutionary attack, a pair (they look for the smallest perturbation)."""
    patch_steps: int
    calibration_images: int
    """Thresholds come from all cross pairs of at most so many images."""
    gallery: int
    """People enrolled for 1:N, at most."""
    checked_pairs: int
    """Pairs a goal whose attack is run again, longer and from other starts, to see whether that changes anything."""
    checked_starts: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


QUICK = Preset(
    name="quick",
    apgd_steps=10,
    apgd_restarts=1,
    fmn_start_steps=4,
    fmn_steps=10,
    square_queries=15,
    transfer_steps=5,
    decision_queries=200,
    patch_steps=20,
    calibration_images=1000,
    gallery=300,
    checked_pairs=5,
    checked_starts=2,
)
STANDARD = Preset(
    name="standard",
    apgd_steps=50,
    apgd_restarts=2,
    fmn_start_steps=20,
    fmn_steps=60,
    square_queries=300,
    transfer_steps=20,
    decision_queries=1000,
    patch_steps=60,
    calibration_images=8192,
    gallery=1000,
    checked_pairs=10,
    checked_starts=3,
)
FULL = Preset(
    name="full",
    apgd_steps=100,
    apgd_restarts=5,
    fmn_start_steps=30,
    fmn_steps=200,
    square_queries=2000,
    transfer_steps=50,
    decision_queries=5000,
    patch_steps=150,
    calibration_images=8192,
    gallery=1000,
    checked_pairs=20,
    checked_starts=5,
)


def preset(name: Name) -> Preset:
    """The preset of that name. Raises SteadfaceError for one that is none.

    >>> import steadface as sf
    >>> sf.preset("standard").apgd_restarts
    2
    """
    choice("preset", name, Name)
    return {"quick": QUICK, "standard": STANDARD, "full": FULL}[name]


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
        seed(self.seed)
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
            "pairs": self.pairs.fingerprint(),
            "calibration": None if self.calibration is None else self.calibration.fingerprint(),
            "extra": [_told(name, attack) for name, attack in self.extra],
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


def _told(name: str, attack: Attack) -> str:
    """Which attack goes by a name: a trained one is another with other weights."""
    if not isinstance(attack, TrainedGenerator):
        return name
    return f"{name} {weights_digest(attack.attack.network)[:16]}"
