"""The layers of the features: eyes, brows, nose and mouth."""

import numpy as np

from steadface.data.synthetic.conditions import Expression
from steadface.data.synthetic.geometry import Frame, corner_lift, mouth_half_width
from steadface.data.synthetic.identity import Identity
from steadface.data.synthetic.parameters import Colour, constant
from steadface.data.synthetic.planes import Canvas, Plane, bump, cover, lattice_noise, smooth

_SCLERA = constant(0.93, 0.91, 0.89)
_BLACK = constant(0.03, 0.025, 0.03)
_LASH = constant(0.10, 0.07, 0.06)
_LIP_TINT = constant(0.93, 0.76, 0.76)
_LIP = constant(0.72, 0.30, 0.31)
_THROAT = constant(0.22, 0.06, 0.07)
_TEETH = constant(0.93, 0.90, 0.84)
_GLINT = constant(1.0, 1.0, 1.0)


def paint_eyes(canvas: Canvas, identity: Identity, expression: Expression, frame: Frame) -> None:
    """Both eyes at once, in the coordinates of one: `out` runs from the nose to the temple."""
    eyes, pixel = identity.eyes, frame.pixel
    out = np.abs(frame.u) - 0.5 * eyes.spacing
    across = np.clip(out / eyes.width, -1.15, 1.15)
    level = frame.v + eyes.tilt * out
    arc = (1.0 - across * across) * (1.0 + eyes.peak * across * 0.8)
    opened = eyes.height * expression.eye_open * (1.0 + 4.0 * expression.brow_raise)
    lower = 0.62 * eyes.height * (1.0 - 0.30 * np.maximum(expression.smile, 0.0))
    upper_lid = level + opened * arc - 0.012
    lower_lid = level - lower * (1.0 - across * across) * np.minimum(expression.eye_open * 2.0, 1.0)
    ball = np.minimum(cover(-upper_lid, pixel), cover(lower_lid, pixel))
    _paint_lids(canvas, identity, expression, frame, (out, across, upper_lid, lower_lid))
    canvas.paint(_SCLERA, ball)
    canvas.polish(0.0, ball)
    sign = np.sign(frame.u)
    du, dv = out - sign * expression.gaze_u, frame.v + 0.012 - expression.gaze_v
    _paint_iris(canvas, identity, frame, ball, (du, dv))
    canvas.shade(ball * smooth(upper_lid - 0.055, 0.09), 0.55)
    canvas.shade(ball * smooth(0.16 - np.abs(across) * 0.16, 0.10), 0.35)
    lash = cover(np.abs(upper_lid) - 0.012 - 0.016 * eyes.lashes * (1.0 + across), pixel)
    lash *= cover((np.abs(across) - 1.02 - 0.08 * eyes.lashes) * eyes.width, pixel)
    canvas.paint(_LASH, lash * (0.70 + 0.25 * eyes.lashes))


def _paint_lids(
    canvas: Canvas,
    identity: Identity,
    expression: Expression,
    frame: Frame,
    lids: tuple[Plane, Plane, Plane, Plane],
) -> None:
    eyes, (out, across, upper_lid, lower_lid) = identity.eyes, lids
    near = np.maximum(1.0 - across * across * 0.75, 0.0)
    canvas.shade(bump(out, frame.v + 0.10, eyes.width * 1.35, 0.22), 0.10 + 0.22 * eyes.socket)
    crease = upper_lid + eyes.crease_height * (1.0 + 0.3 * across)
    canvas.shade(cover(np.abs(crease) - 0.008, 1.5 * frame.pixel) * near, 0.55 * eyes.crease)
    canvas.shade(cover(np.abs(lower_lid) - 0.010, 1.5 * frame.pixel) * near, 0.30)
    bag = lower_lid - 0.10 - 0.02 * across
    tired = eyes.bags + 0.3 * np.maximum(expression.smile, 0.0)
    canvas.shade(np.maximum(1.0 - np.abs(bag) / 0.07, 0.0) * near, 0.25 * tired)


def _paint_iris(canvas: Canvas, identity: Identity, frame: Frame, ball: Plane, centre: tuple[Plane, Plane]) -> None:
    eyes, (du, dv) = identity.eyes, centre
    radius = np.hypot(du, dv)
    iris = ball * cover(radius - eyes.iris_size, frame.pixel)
    canvas.paint(eyes.iris, iris)
    canvas.shade(iris * smooth(0.80 * eyes.iris_size - radius, 0.5 * eyes.iris_size), 0.65)
    canvas.paint(_BLACK, ball * cover(radius - 0.44 * eyes.iris_size, frame.pixel))
    glint_u = np.sign(frame.u) * du + 0.032
    canvas.paint(_GLINT, ball * cover(np.hypot(glint_u, dv + 0.038) - 0.019, frame.pixel) * np.float32(0.9))


def paint_brows(canvas: Canvas, identity: Identity, expression: Expression, frame: Frame) -> None:
    """Brows, tapered towards the temple, with hairs."""
    eyes = identity.eyes
    out = np.abs(frame.u) - 0.5 * eyes.spacing - eyes.brow_gap
    across = out / eyes.brow_length
    centre = -eyes.brow_height - expression.brow_raise * 1.5 - eyes.brow_arch * (1.0 - (across - 0.2) ** 2)
    centre = centre - (eyes.brow_tilt + expression.frown) * out
    thickness = eyes.brow_thickness * np.clip(1.05 - 0.32 * across - 0.35 * across * across, 0.15, 1.2)
    hairs = lattice_noise(
        out * 26.0 + frame.v * 16.0 + 60.0, frame.v * 9.0 - out * 5.0 + 60.0, identity.skin.salt + 3.0
    )
    edge = np.abs(frame.v - centre) - thickness + 0.030 * (hairs - 0.5)
    ends = (np.abs(across - 0.05) - 1.0) * eyes.brow_length
    alpha = cover(edge, 0.045 + frame.pixel) * cover(ends + 0.05 * (hairs - 0.5), 0.10 + frame.pixel)
    colour = 0.45 * identity.hair.colour + 0.12 * identity.skin.colour
    canvas.paint(colour, alpha * eyes.brow_strength * (0.75 + 0.4 * hairs).clip(0.0, 1.0))


def paint_nose(canvas: Canvas, identity: Identity, frame: Frame) -> None:
    """What shading by relief leaves out: nostrils, creases of the wings, and the shadow below."""
    nose, side, v = identity.nose, np.abs(frame.u), frame.v
    canvas.shade(bump(frame.u, v - nose.length - 0.17, 1.05 * nose.width, 0.13), 0.28)
    down = v - nose.length - 0.085 + 0.25 * (side - 0.5 * nose.width)
    hole = np.sqrt(((side - 0.46 * nose.width) / (0.34 * nose.width)) ** 2 + (down / 0.036) ** 2) - 1.0
    canvas.shade(smooth(hole * 0.05, 0.035 + frame.pixel), 0.35 + 0.5 * nose.nostrils)
    ring = np.hypot((side - 0.72 * nose.width) / (0.40 * nose.width + 0.02), (v - nose.length) / 0.14) - 1.0
    outer = smooth(0.55 * nose.width + 0.06 - side, 0.10) * smooth(np.abs(v - nose.length) - 0.11, 0.10)
    canvas.shade(np.maximum(1.0 - np.abs(ring) / 0.35, 0.0) * outer, 0.28)


def paint_mouth(canvas: Canvas, identity: Identity, expression: Expression, frame: Frame) -> None:
    """Lips, and between them throat and teeth where the mouth is open."""
    mouth, half, pixel = identity.mouth, mouth_half_width(identity, expression), frame.pixel
    across = np.clip(frame.u / half, -1.1, 1.1)
    span = np.maximum(1.0 - across * across, 0.0)
    lift = corner_lift(identity, expression)
    level = frame.v - mouth.height - lift * across * across
    stretched = 1.0 - 0.25 * np.maximum(expression.smile, 0.0)
    bow = mouth.bow * (
        0.55 * np.maximum(1.0 - (np.abs(across) - 0.28) ** 2 / 0.05, 0.0)
        - 0.30 * np.maximum(1.0 - across**2 / 0.03, 0.0)
    )
    top = level + mouth.upper * stretched * (span * 0.95 + bow * span)
    opening_low = level - expression.mouth_open * span
    bottom = opening_low - mouth.lower * stretched * span * (1.0 + 0.15 * span)
    inside = cover((np.abs(frame.u) - half), 2.0 * pixel)
    lips = np.minimum(cover(-top, 1.6 * pixel), cover(bottom, 1.6 * pixel)) * inside
    canvas.shade(
        bump(frame.u, frame.v - mouth.height - expression.mouth_open - 1.55 * mouth.lower, 0.75 * half, 0.10), 0.25
    )
    canvas.paint(_lip_colour(identity), lips * np.float32(0.9))
    canvas.polish(0.42, lips)
    canvas.shade(lips * cover(level, 2.0 * pixel), 0.20)
    _paint_opening(canvas, frame, np.minimum(cover(-level, pixel), cover(opening_low, pixel)) * inside, (level, across))
    line = cover(np.abs(level) - 0.011, 1.5 * pixel) * cover(np.abs(frame.u) - half - 0.015, 2.0 * pixel)
    canvas.shade(line, 0.70)
    corner = bump(np.abs(frame.u) - half, frame.v - mouth.height - lift, 0.075, 0.065)
    canvas.shade(corner, 0.45)


def _lip_colour(identity: Identity) -> Colour:
    skin, mouth = identity.skin, identity.mouth
    tone: Colour = skin.colour * _LIP_TINT
    tone = tone + 0.7 * mouth.redness[..., None] * (_LIP - tone)
    return tone * (1.0 - 0.5 * mouth.darkness)[..., None]


def _paint_opening(canvas: Canvas, frame: Frame, opening: Plane, where: tuple[Plane, Plane]) -> None:
    level, across = where
    canvas.paint(_THROAT, opening)
    canvas.polish(0.0, opening)
    teeth = cover(level - 0.115 + 0.03 * across * across, 1.5 * frame.pixel) * cover(np.abs(across) - 0.82, 0.15)
    canvas.paint(_TEETH, opening * teeth)
    gaps = np.abs(np.sin(frame.u * 27.0)) < 0.09
    canvas.shade(opening * teeth * gaps, 0.14)
