"""Who somebody is, first part: the shape of head, eyes, nose and mouth.

Lengths are in units of the average distance between the pupils (35.2 pixels of an aligned 112 x 112 crop), with
the origin between the eyes, u to the right and v downwards.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from steadface.data.synthetic.parameters import Colour, Column, Draws, Table, ramp

_IRIS = ((0.20, 0.11, 0.06), (0.36, 0.21, 0.10), (0.45, 0.36, 0.18), (0.36, 0.47, 0.34), (0.32, 0.50, 0.66))


@dataclass(frozen=True, kw_only=True)
class Build:
    """What several features depend on at once, so that they suit each other."""

    masculine: Column
    age: Column
    melanin: Column

    @classmethod
    def draw(cls, draws: Draws) -> Self:
        lean = draws.uniform()
        masculine = np.clip((lean - 0.5) * 2.2 + 0.5, 0.0, 1.0)
        return cls(masculine=masculine, age=draws.uniform() ** 1.5, melanin=draws.uniform())


@dataclass(frozen=True, kw_only=True)
class Head(Table):
    """Outline and bones of the head."""

    width: Column
    chin: Column
    taper: Column
    squareness: Column
    cheeks: Column
    depth: Column
    cheekbones: Column
    brow_ridge: Column
    chin_size: Column
    ears: Column
    skew: Column

    @classmethod
    def draw(cls, draws: Draws, build: Build) -> Self:
        male = build.masculine
        return cls(
            width=draws.between(0.98, 1.16) + 0.04 * male,
            chin=draws.between(1.56, 1.80) + 0.08 * male,
            taper=draws.between(0.14, 0.46) - 0.10 * male,
            squareness=np.clip(draws.between(-0.05, 0.55) + 0.35 * male, 0.0, 0.9),
            cheeks=draws.between(-0.03, 0.10),
            depth=draws.between(0.75, 0.95),
            cheekbones=draws.between(0.0, 0.12),
            brow_ridge=draws.between(0.01, 0.05) + 0.06 * male,
            chin_size=draws.between(0.02, 0.14),
            ears=draws.between(0.02, 0.16),
            skew=draws.centred(0.012),
        )


@dataclass(frozen=True, kw_only=True)
class Eyes(Table):
    """Shape, place and colour of the eyes and brows."""

    spacing: Column
    width: Column
    height: Column
    tilt: Column
    peak: Column
    crease: Column
    crease_height: Column
    lashes: Column
    bags: Column
    socket: Column
    iris: Colour
    iris_size: Column
    brow_height: Column
    brow_arch: Column
    brow_tilt: Column
    brow_thickness: Column
    brow_length: Column
    brow_gap: Column
    brow_strength: Column

    @classmethod
    def draw(cls, draws: Draws, build: Build) -> Self:
        male, dark = build.masculine, np.clip(build.melanin * 1.6, 0.0, 1.0)
        return cls(
            spacing=draws.between(0.90, 1.10),
            width=draws.between(0.205, 0.275),
            height=draws.between(0.080, 0.150) - 0.012 * male,
            tilt=draws.between(-0.16, 0.24),
            peak=draws.between(-0.45, 0.35),
            crease=draws.between(0.1, 1.0),
            crease_height=draws.between(0.035, 0.095),
            lashes=draws.between(0.3, 0.9) - 0.35 * male,
            bags=np.clip(draws.between(-0.2, 0.5) + 0.5 * build.age, 0.0, 1.0),
            socket=draws.between(0.15, 0.9),
            iris=ramp(_IRIS, draws.uniform() ** (0.6 + 4.0 * dark)),
            iris_size=draws.between(0.094, 0.116),
            brow_height=draws.between(0.27, 0.40) - 0.05 * male,
            brow_arch=draws.between(0.0, 0.13) * (1.0 - 0.4 * male),
            brow_tilt=draws.between(-0.20, 0.14),
            brow_thickness=draws.between(0.025, 0.062) + 0.024 * male,
            brow_length=draws.between(0.27, 0.40),
            brow_gap=draws.between(-0.03, 0.06),
            brow_strength=draws.between(0.45, 0.95),
        )


@dataclass(frozen=True, kw_only=True)
class Nose(Table):
    """Shape of the nose."""

    length: Column
    width: Column
    bridge: Column
    bridge_width: Column
    height: Column
    tip: Column
    hump: Column
    nostrils: Column

    @classmethod
    def draw(cls, draws: Draws, build: Build) -> Self:
        return cls(
            length=draws.between(0.46, 0.66) + 0.04 * build.masculine,
            width=draws.between(0.17, 0.26) + 0.03 * build.masculine + 0.05 * build.melanin,
            bridge=draws.between(0.25, 0.75),
            bridge_width=draws.between(0.09, 0.15),
            height=draws.between(0.26, 0.44),
            tip=draws.between(0.05, 0.17),
            hump=draws.between(-0.06, 0.08),
            nostrils=draws.between(0.35, 0.95),
        )


@dataclass(frozen=True, kw_only=True)
class Mouth(Table):
    """Shape, place and colour of the mouth."""

    height: Column
    width: Column
    upper: Column
    lower: Column
    bow: Column
    corners: Column
    redness: Column
    darkness: Column

    @classmethod
    def draw(cls, draws: Draws, build: Build) -> Self:
        full = 1.0 - 0.35 * build.masculine
        return cls(
            height=draws.between(1.06, 1.22),
            width=draws.between(0.33, 0.46),
            upper=draws.between(0.045, 0.125) * full + 0.02 * build.melanin,
            lower=draws.between(0.070, 0.165) * full + 0.03 * build.melanin,
            bow=draws.between(0.0, 0.7),
            corners=draws.between(-0.055, 0.012),
            redness=draws.between(0.25, 0.75) * (1.0 - 0.35 * build.masculine),
            darkness=draws.between(0.0, 0.35),
        )
