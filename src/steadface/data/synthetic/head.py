"""The layers of the head: background, neck, ears, outline, relief of the face, and skin."""

import numpy as np

from steadface.data.synthetic.conditions import Expression, Scene
from steadface.data.synthetic.geometry import Frame, corner_lift, head_depth, mouth_half_width
from steadface.data.synthetic.identity import Identity
from steadface.data.synthetic.parameters import Colour, constant
from steadface.data.synthetic.planes import Canvas, Plane, bump, cover, lattice_noise, smooth
from steadface.data.synthetic.shape import Head

_BROW_LEVEL = 0.15
_CROWN = 1.72
_FLUSH = constant(1.0, 0.79, 0.77)
_FLUSH_EAR = constant(0.97, 0.91, 0.88)
_FRECKLE = constant(0.53, 0.36, 0.24)


def new_canvas(scene: Scene, frame: Frame) -> Canvas:
    """A canvas with the background: a gradient between two colours and blurred clutter, flat and unlit."""
    toward = (np.cos(scene.angle) * (frame.x - 56.0) + np.sin(scene.angle) * (frame.y - 56.0)) / 112.0
    clutter = lattice_noise(frame.x * (scene.grain / 112.0), frame.y * (scene.grain / 112.0), scene.salt)
    mix = np.clip(0.5 + toward * (1.0 - scene.clutter) + (clutter - 0.5) * 2.2 * scene.clutter, 0.0, 1.0)
    albedo = scene.wall + mix[:, None] * (scene.other - scene.wall)
    height = np.zeros_like(mix)
    return Canvas(albedo=albedo, height=height, gloss=np.zeros_like(mix))


def outline(head: Head, u: Plane, v: Plane, jaw_drop: Plane | float) -> Plane:
    """Signed distance (approximate, negative inside) to the outline of skull and jaw."""
    below = np.maximum(v - _BROW_LEVEL, 0.0) / (head.chin + jaw_drop - _BROW_LEVEL)
    above = np.minimum(v - _BROW_LEVEL, 0.0) / _CROWN
    low, fall = np.minimum(below, 1.3), below * below
    narrowing = head.taper * low * low * (1.0 - 0.25 * low) - head.cheeks * np.maximum(
        1.0 - (3.0 * low - 1.6) ** 2, 0.0
    )
    across = u / (head.width * (1.0 - narrowing) * (1.0 - 0.04 * above * above))
    square, dome = head.squareness, above * above
    fall = (1.0 - square) * fall + square * fall * fall + dome * (0.45 + 0.55 * dome)
    radius: Plane = np.sqrt(across * across + fall)
    return (radius - 1.0) * (0.95 * head.width)


def paint_neck(canvas: Canvas, scene: Scene, identity: Identity, frame: Frame) -> None:
    """Neck in the shadow of the jaw, and clothes below it."""
    head = identity.head
    across, chin = np.abs(frame.u) / head.width, head.chin
    neck = np.maximum(across - 0.62 - 0.35 * np.maximum(frame.v - chin - 0.25, 0.0) ** 2, 0.3 - frame.v)
    alpha = cover(neck, 2.0 * frame.pixel)
    canvas.paint(identity.skin.colour * np.float32(0.62), alpha)
    canvas.model(0.35 - 0.5 * across * across, alpha)
    collar = cover(chin + 0.42 + 0.12 * frame.u * frame.u - frame.v, 2.0 * frame.pixel)
    canvas.paint(scene.clothes, collar)


def paint_ears(canvas: Canvas, identity: Identity, frame: Frame) -> None:
    """Ears at the height of the nose."""
    side = np.abs(frame.u) - (identity.head.width + identity.head.ears - 0.10)
    down = frame.v - 0.30
    lean = side + 0.12 * down
    shape = np.sqrt((lean / 0.15) ** 2 + (down / 0.36) ** 2) - 1.0
    alpha = cover(shape * 0.2, frame.pixel) * (1.0 - identity.hair.long)
    canvas.paint(identity.skin.colour * _FLUSH_EAR, alpha)
    canvas.shade(bump(lean + 0.02, down + 0.02, 0.10, 0.26) * alpha, 0.45)
    canvas.model(0.15 - 0.12 * shape * shape, alpha)


def face_relief(identity: Identity, expression: Expression, frame: Frame) -> Plane:
    """Height of the face towards the viewer, with brow ridge, sockets, cheeks, nose, lips and chin."""
    head, eyes, u, v = identity.head, identity.eyes, frame.u, frame.v
    side, eye = np.abs(u), 0.5 * eyes.spacing
    smile = np.maximum(expression.smile, 0.0)
    relief: Plane = 1.15 * head_depth(identity, u, v)
    relief += head.brow_ridge * bump(side - 0.42, v + eyes.brow_height - 0.04, 0.50, 0.20)
    relief -= (0.06 + 0.09 * eyes.socket) * bump(side - 0.8 * eye, v + 0.03, 0.46, 0.34)
    relief += 0.05 * bump(side - eye, v, eyes.width * 1.1, 0.15)
    relief += (0.05 + head.cheekbones + 0.06 * smile) * bump(side - 0.66, v - 0.52, 0.42, 0.42)
    relief -= 0.6 * head.cheekbones * bump(side - 0.78, v - 1.05, 0.35, 0.45)
    relief += (0.05 + head.chin_size) * bump(u, v - head.chin + 0.22 - expression.mouth_open, 0.36, 0.26)
    relief += _nose_relief(identity, frame) + _lip_relief(identity, expression, frame)
    relief -= _fold_relief(identity, expression, frame)
    return relief


def _nose_relief(identity: Identity, frame: Frame) -> Plane:
    nose, u, v = identity.nose, frame.u, frame.v
    along = np.clip(v / nose.length, -0.4, 1.0)
    rise = nose.height * (nose.bridge * 0.4 + (0.75 - nose.bridge * 0.4) * np.clip(along, 0.0, 1.0))
    rise = rise * smooth(-(v + 0.16), 0.30) + nose.hump * bump(0.0, along - 0.45, 1.0, 0.35)
    end = smooth(v - nose.length - 0.07, 0.20)
    width = nose.bridge_width + (0.55 * nose.width - nose.bridge_width * 0.4) * np.clip(along, 0.0, 1.0) ** 2
    ridge: Plane = rise * end / (1.0 + (u / width) ** 2 * (1.0 + (u / width) ** 2))
    tip: Plane = nose.tip * bump(u, v - nose.length + 0.01, 0.8 * nose.width, 0.19)
    wings = 0.12 * bump(np.abs(u) - 0.74 * nose.width, v - nose.length - 0.01, 0.42 * nose.width + 0.02, 0.14)
    return ridge + tip + wings


def _lip_relief(identity: Identity, expression: Expression, frame: Frame) -> Plane:
    mouth, half = identity.mouth, mouth_half_width(identity, expression)
    down = frame.v - mouth.height
    muzzle = 0.10 * bump(frame.u, down, 0.75, 0.42)
    upper = 0.55 * mouth.upper * bump(frame.u, down + 0.5 * mouth.upper, half, 1.1 * mouth.upper)
    lower = 0.60 * mouth.lower * bump(frame.u, down - expression.mouth_open - 0.55 * mouth.lower, half, mouth.lower)
    groove = 0.05 * bump(frame.u, down - expression.mouth_open - 1.5 * mouth.lower - 0.03, 0.32, 0.11)
    philtrum = 0.025 * bump(frame.u, down + mouth.upper + 0.12, 0.07, 0.16)
    return muzzle + upper + lower - groove - philtrum


def _fold_relief(identity: Identity, expression: Expression, frame: Frame) -> Plane:
    """Folds from the wings of the nose round the mouth, deeper with age and smiling."""
    nose, mouth = identity.nose, identity.mouth
    top, end = nose.length, mouth.height + corner_lift(identity, expression) + 0.05
    along = (frame.v - top) / (end - top)
    path = 1.15 * nose.width + (mouth_half_width(identity, expression) + 0.12 - 1.15 * nose.width) * along
    depth = 0.015 + 0.05 * identity.skin.folds + 0.045 * np.maximum(expression.smile, 0.0)
    return depth * bump(np.abs(frame.u) - path, along - 0.55, 0.085, 0.62)


def paint_face(canvas: Canvas, identity: Identity, expression: Expression, frame: Frame) -> Plane:
    """Skin with its tones and marks; returns the opacity of the head (N, H, W)."""
    head, skin, u, v = identity.head, identity.skin, frame.u, frame.v
    alpha = cover(outline(head, u, v, 0.7 * expression.mouth_open), frame.pixel)
    canvas.paint(_skin_colour(identity, frame), alpha)
    canvas.model(face_relief(identity, expression, frame), alpha)
    canvas.polish(0.10 + 0.22 * skin.gloss, alpha)
    _paint_wrinkles(canvas, identity, expression, frame, alpha)
    return alpha


def _skin_colour(identity: Identity, frame: Frame) -> Colour:
    skin, u, v, side = identity.skin, frame.u, frame.v, np.abs(frame.u)
    mottling = lattice_noise(u * 9.0 + 40.0, v * 9.0 + 40.0, skin.salt) - 0.5
    mottling += 0.6 * lattice_noise(u * 3.0 + 40.0, v * 3.0 + 40.0, skin.salt + 7.0) - 0.3
    colour: Colour = skin.colour * (1.0 + skin.mottling * 2.0 * mottling)[:, None]
    blood = (0.12 + skin.blush) * bump(side - 0.62, v - 0.62, 0.45, 0.42)
    blood += 0.22 * bump(u, v - identity.nose.length, 0.28, 0.22)
    colour += (0.35 * blood)[:, None] * (skin.colour * _FLUSH - colour)
    spots = lattice_noise(u * 17.0 + 90.0, v * 17.0 + 90.0, skin.salt + 13.0)
    where = bump(side - 0.45, v - 0.42, 0.85, 0.62)
    spots = np.clip((spots - 0.62) * 4.0, 0.0, 1.0) * np.minimum(where * 2.5, 1.0) * skin.freckles
    colour += (0.75 * spots)[:, None] * (_FRECKLE - colour)
    mole = cover(np.hypot(u - skin.mole_u, v - skin.mole_v) - skin.mole_size, frame.pixel) * (skin.mole_size > 0)
    colour += (0.85 * mole)[:, None] * (_FRECKLE * np.float32(0.35) - colour)
    return colour


def _paint_wrinkles(canvas: Canvas, identity: Identity, expression: Expression, frame: Frame, alpha: Plane) -> None:
    u, v, wrinkles = frame.u, frame.v, identity.skin.wrinkles
    surprise = np.clip(expression.brow_raise * 14.0, 0.0, 1.0)
    lines = np.sin((v + 0.10 * u * u) * 42.0) ** 2
    forehead = lines * lines * lines * bump(u, v + 0.68, 0.75, 0.27) * np.minimum(wrinkles + 0.25 * surprise, 1.0)
    feet_u = np.abs(u) - 0.5 * identity.eyes.spacing - identity.eyes.width - 0.14
    rays = np.sin(v * 55.0 + feet_u * 9.0) ** 2
    feet = rays * rays * rays * bump(feet_u, v - 0.02, 0.16, 0.20)
    canvas.shade((forehead + feet * wrinkles) * alpha, 0.22)
