"""Who somebody is, second part: skin, hair and glasses; units as in `shape`."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from steadface.data.synthetic.parameters import Colour, Column, Draws, Table, ramp
from steadface.data.synthetic.shape import Build

_SKIN = (
    (0.97, 0.84, 0.77),
    (0.93, 0.76, 0.65),
    (0.86, 0.68, 0.56),
    (0.73, 0.53, 0.42),
    (0.56, 0.385, 0.30),
    (0.40, 0.27, 0.215),
)
_DARK_HAIR = ((0.07, 0.06, 0.07), (0.13, 0.09, 0.07), (0.24, 0.15, 0.10))
_FAIR_HAIR = ((0.30, 0.19, 0.12), (0.45, 0.28, 0.16), (0.58, 0.26, 0.12), (0.70, 0.52, 0.30), (0.88, 0.75, 0.50))
_FRAMES = ((0.05, 0.05, 0.06), (0.30, 0.17, 0.10), (0.12, 0.15, 0.30), (0.55, 0.10, 0.12), (0.70, 0.62, 0.45))


@dataclass(frozen=True, kw_only=True)
class Skin(Table):
    """Colour and marks of the skin."""

    colour: Colour
    blush: Column
    gloss: Column
    mottling: Column
    freckles: Column
    wrinkles: Column
    folds: Column
    mole_u: Column
    mole_v: Column
    mole_size: Column
    salt: Column

    @classmethod
    def draw(cls, draws: Draws, build: Build) -> Self:
        undertone = np.concatenate([draws.centred(0.03), draws.centred(0.02), draws.centred(0.05)], axis=1)
        return cls(
            colour=(ramp(_SKIN, build.melanin) * (1.0 + undertone[:, :, :, None])).astype(np.float32),
            blush=draws.between(0.0, 0.5),
            gloss=draws.between(0.1, 0.8),
            mottling=draws.between(0.02, 0.07),
            freckles=draws.sometimes(0.22) * (1.0 - 0.7 * build.melanin),
            wrinkles=np.clip(build.age * 1.5 - 0.35 + draws.centred(0.1), 0.0, 1.0),
            folds=np.clip(build.age + draws.centred(0.15), 0.05, 1.0),
            mole_u=draws.between(-0.85, 0.85),
            mole_v=draws.between(0.45, 1.35),
            mole_size=np.where(draws.uniform() < 0.35, draws.between(0.025, 0.05), np.float32(0.0)),
            salt=np.floor(draws.uniform() * 65536.0),
        )


@dataclass(frozen=True, kw_only=True)
class Hair(Table):
    """Cut, texture and colour of the hair, and the beard."""

    colour: Colour
    bald: Column
    long: Column
    line: Column
    temples: Column
    sweep: Column
    fringe: Column
    sides: Column
    length: Column
    volume: Column
    curl: Column
    part: Column
    beard: Column
    moustache: Column
    goatee: Column

    @classmethod
    def draw(cls, draws: Draws, build: Build) -> Self:
        male = build.masculine
        colour = _hair_colour(draws, build)
        long = (draws.uniform() < 0.80 - 0.72 * male).astype(np.float32)
        shaven = draws.uniform() < 0.45 + 0.6 * (1.0 - male)
        fringe = draws.sometimes(0.42 - 0.15 * male)
        return cls(
            colour=colour,
            bald=(draws.uniform() < 0.16 * male * (1.0 - long)).astype(np.float32),
            long=long,
            line=draws.between(0.80, 1.22) - 0.42 * np.minimum(fringe * 1.5, 1.0),
            temples=draws.between(0.25, 0.75),
            sweep=draws.centred(0.16),
            fringe=fringe,
            sides=draws.between(-0.35, 0.35) * (1.0 - long) + draws.between(1.6, 3.2) * long,
            length=draws.between(0.0, 0.4) * (1.0 - long) + draws.between(1.0, 3.0) * long,
            volume=draws.between(0.04, 0.22) + draws.between(0.04, 0.20) * long,
            curl=draws.uniform() ** 1.5,
            part=draws.between(-0.6, 0.6),
            beard=np.where(shaven, np.float32(0.0), draws.between(0.05, 1.0) * (male > 0.6)),
            moustache=np.where(shaven, np.float32(0.0), draws.between(0.0, 1.0) * (male > 0.6)),
            goatee=draws.between(0.0, 1.0),
        )


def _hair_colour(draws: Draws, build: Build) -> Colour:
    dark, fair = ramp(_DARK_HAIR, draws.uniform()), ramp(_FAIR_HAIR, draws.uniform())
    is_dark = (draws.uniform() < 0.25 + 1.2 * build.melanin)[..., None]
    grey = (np.clip(build.age * 2.2 - 1.2 + draws.centred(0.25), 0.0, 1.0) * draws.between(0.5, 1.0))[..., None]
    colour = np.where(is_dark, dark, fair)
    return (colour * (1.0 - grey) + grey * np.float32(0.42)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Glasses(Table):
    """Glasses of those who wear them: `worn` is 0 or 1."""

    worn: Column
    half_width: Column
    half_height: Column
    roundness: Column
    rim: Column
    colour: Colour

    @classmethod
    def draw(cls, draws: Draws) -> Self:
        return cls(
            worn=(draws.uniform() < 0.22).astype(np.float32),
            half_width=draws.between(0.33, 0.41),
            half_height=draws.between(0.21, 0.33),
            roundness=draws.between(0.06, 0.21),
            rim=draws.between(0.022, 0.055),
            colour=ramp(_FRAMES, draws.uniform()),
        )
