"""How somebody is seen: the parameters that differ from image to image of one person."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from steadface.data.synthetic.parameters import Colour, Column, Draws, Table, ramp, uniform_rows

_WALLS = (
    (0.10, 0.12, 0.16),
    (0.25, 0.38, 0.52),
    (0.62, 0.70, 0.76),
    (0.85, 0.84, 0.80),
    (0.60, 0.48, 0.36),
    (0.25, 0.36, 0.24),
    (0.50, 0.22, 0.20),
)
_PARAMETERS = 112


@dataclass(frozen=True, kw_only=True)
class Pose(Table):
    """Turn of the head in radians, and what alignment left over (roll, scale and shift in template pixels)."""

    yaw: Column
    pitch: Column
    roll: Column
    zoom: Column
    shift_x: Column
    shift_y: Column

    @classmethod
    def draw(cls, draws: Draws) -> Self:
        return cls(
            yaw=draws.centred(0.19),
            pitch=draws.centred(0.11),
            roll=draws.centred(0.025),
            zoom=1.0 + draws.centred(0.018),
            shift_x=draws.centred(0.7),
            shift_y=draws.centred(0.7),
        )


@dataclass(frozen=True, kw_only=True)
class Expression(Table):
    """What the face does: lengths in units of the distance between the pupils, the rest in [0, 1] or [-1, 1]."""

    smile: Column
    mouth_open: Column
    eye_open: Column
    brow_raise: Column
    frown: Column
    gaze_u: Column
    gaze_v: Column

    @classmethod
    def draw(cls, draws: Draws) -> Self:
        return cls(
            smile=np.clip(draws.between(-0.35, 1.0), -0.2, 1.0),
            mouth_open=draws.sometimes(0.5) ** 1.5 * 0.24,
            eye_open=np.where(draws.uniform() < 0.03, np.float32(0.12), draws.between(0.68, 1.08)),
            brow_raise=draws.centred(0.022),
            frown=draws.centred(0.06),
            gaze_u=draws.centred(0.030),
            gaze_v=draws.centred(0.014),
        )


@dataclass(frozen=True, kw_only=True)
class Light(Table):
    """One lamp (unit vector towards it: right, down, viewer), light from all round, and their tints."""

    right: Column
    down: Column
    front: Column
    lamp: Column
    ambient: Column
    tint: Colour
    ambient_tint: Colour

    @classmethod
    def draw(cls, draws: Draws) -> Self:
        azimuth, elevation = draws.centred(0.55), draws.between(-0.15, 0.95)
        hardness = draws.between(0.45, 0.85)
        return cls(
            right=np.sin(azimuth) * np.cos(elevation),
            down=-np.sin(elevation),
            front=np.cos(azimuth) * np.cos(elevation),
            lamp=1.35 * hardness,
            ambient=1.15 - hardness,
            tint=ramp(((1.04, 0.99, 0.93), (1.0, 1.0, 1.0), (0.96, 1.0, 1.04)), draws.uniform()),
            ambient_tint=ramp(((1.02, 1.0, 0.97), (0.96, 1.0, 1.03)), draws.uniform()),
        )


@dataclass(frozen=True, kw_only=True)
class Scene(Table):
    """What is behind and around the face: a wall of two colours with blurred things on it, and clothes."""

    wall: Colour
    other: Colour
    clothes: Colour
    angle: Column
    clutter: Column
    grain: Column
    salt: Column
    lining: Column
    unspectacled: Column

    @classmethod
    def draw(cls, draws: Draws) -> Self:
        return cls(
            wall=ramp(_WALLS, draws.uniform()),
            other=ramp(_WALLS, draws.uniform()),
            clothes=ramp(_WALLS, draws.uniform()),
            angle=draws.between(0.0, 2.0 * np.pi),
            clutter=draws.between(0.0, 0.9),
            grain=draws.between(1.0, 3.5),
            salt=np.floor(draws.uniform() * 65536.0),
            lining=draws.centred(0.02),
            unspectacled=(draws.uniform() < 0.12).astype(np.float32),
        )


@dataclass(frozen=True, kw_only=True)
class Camera(Table):
    """Exposure (factor), contrast, saturation, blur (standard deviation in template pixels) and noise (in 1/255)."""

    exposure: Column
    contrast: Column
    saturation: Column
    blur: Column
    noise: Column
    salt: Column

    @classmethod
    def draw(cls, draws: Draws) -> Self:
        return cls(
            exposure=np.exp(draws.centred(0.16)),
            contrast=1.0 + draws.centred(0.06),
            saturation=np.clip(1.0 + draws.centred(0.09), 0.0, 1.5) * (draws.uniform() > 0.03),
            blur=0.3 + 0.9 * draws.uniform() ** 4,
            noise=0.5 + 4.5 * draws.uniform() ** 3,
            salt=np.floor(draws.uniform() * 65536.0),
        )


@dataclass(frozen=True, kw_only=True)
class Conditions(Table):
    """All parameters of N images that say nothing of who is in them."""

    pose: Pose
    expression: Expression
    light: Light
    scene: Scene
    camera: Camera


def draw_conditions(seed: int, people: Sequence[int], images_per_person: int) -> Conditions:
    """The conditions of images 0 .. `images_per_person` - 1 of each person, person by person.

    Image j of a person is the same whatever the number of images and of people.
    """
    table = uniform_rows(seed, 1, people, (images_per_person, _PARAMETERS))
    draws = Draws(table.reshape(-1, _PARAMETERS))
    return Conditions(
        pose=Pose.draw(draws),
        expression=Expression.draw(draws),
        light=Light.draw(draws),
        scene=Scene.draw(draws),
        camera=Camera.draw(draws),
    )
