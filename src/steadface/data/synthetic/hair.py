"""The layers of the hair, of the beard and of what is worn: glasses."""

import numpy as np

from steadface.data.synthetic.conditions import Scene
from steadface.data.synthetic.geometry import Frame
from steadface.data.synthetic.head import outline
from steadface.data.synthetic.identity import Identity
from steadface.data.synthetic.parameters import Colour
from steadface.data.synthetic.planes import Canvas, Plane, bump, cover, lattice_noise, smooth

_LOWEST_FRINGE = -0.36
"""Level of the brows, which a fringe may reach: a covered eye would leave nothing to align by."""


def hair_texture(identity: Identity, frame: Frame) -> Plane:
    """Strands in [0, 1): long streaks for straight hair, round grains for curls."""
    hair, salt = identity.hair, identity.skin.salt
    u, v = frame.u - 0.3 * hair.part, frame.v
    fan = u / (1.0 + 0.22 * np.clip(v + 1.0, -0.8, 3.0))
    fine, coarse = 15.0 + 2.0 * hair.curl, 1.6 + 9.0 * hair.curl
    wave = 0.35 * hair.curl * np.sin(v * 7.0 + u * 3.0)
    strands = lattice_noise((fan + wave * 0.3) * fine + 70.0, v * coarse + 70.0, salt + 21.0)
    locks = lattice_noise((fan + wave * 0.3) * 6.0 + 70.0, v * coarse * 0.45 + 70.0, salt + 22.0)
    return 0.55 * strands + 0.45 * locks


def _hair_colour(identity: Identity, texture: Plane) -> Colour:
    colour: Colour = identity.hair.colour * (0.45 + 1.0 * texture)[:, None]
    return colour


def paint_hair_behind(canvas: Canvas, identity: Identity, frame: Frame, texture: Plane) -> None:
    """The hair that head, ears and neck stand in front of."""
    hair, u, v = identity.hair, frame.u, frame.v
    volume = hair.volume + 0.05 * hair.curl * (texture - 0.5)
    cap = outline(identity.head, u, np.minimum(v, 0.15), 0.0) - volume
    widening = 0.10 * np.clip(v, 0.0, 2.0) * (0.4 + hair.curl)
    curtain = np.abs(u) - identity.head.width * 0.97 - volume - widening
    shape = np.where(v < 0.15, cap, curtain)
    shape = np.maximum(shape, (v - hair.length) * 0.7 + 0.2 * (texture - 0.5))
    shape = shape + 0.07 * (texture - 0.5) * (0.3 + hair.curl)
    alpha = cover(shape, 0.04 + frame.pixel) * (1.0 - hair.bald)
    canvas.paint(_hair_colour(identity, texture) * np.float32(0.8), alpha)
    canvas.model(0.45 - 0.35 * (u / identity.head.width) ** 2 + 0.05 * texture, alpha)
    canvas.polish(0.15, alpha)


def paint_hair_front(canvas: Canvas, identity: Identity, scene: Scene, frame: Frame, texture: Plane) -> None:
    """The hair in front of forehead and temples: all within its volume that lies above the hairline."""
    hair, u, v, head = identity.hair, frame.u, frame.v, identity.head
    edge = 1.06 - 0.14 * hair.long
    across = np.clip((np.abs(u) / head.width - hair.temples) / (edge - hair.temples), 0.0, 1.0)
    top = (
        -hair.line + scene.lining + hair.sweep * u + 0.16 * np.minimum((u - hair.part) ** 2, 1.0) * (1.0 - hair.fringe)
    )
    top = np.minimum(top, _LOWEST_FRINGE)
    jag = (texture - 0.5) * (0.06 + 0.22 * np.minimum(hair.fringe * 2.0, 1.0) + 0.10 * hair.curl)
    line = top + (hair.sides - top) * across * across * (0.4 + 0.6 * across) + jag
    ragged = hair.volume + 0.10 * (texture - 0.5) * (0.3 + hair.curl)
    within = outline(head, u, np.minimum(v, 0.15), 0.0) - ragged
    widening = 0.10 * np.clip(v, 0.0, 2.0) * (0.4 + hair.curl)
    within = within - widening * hair.long
    fringe = np.maximum(v - line, (v - hair.length - 0.2) * 0.7)
    has_hair = 1.0 - hair.bald
    canvas.shade(smooth(v - line - 0.10, 0.26) * cover(within, 0.05), 0.38 * has_hair)
    volume = cover(within, 0.035 + frame.pixel) * has_hair
    alpha = volume * cover(fringe, 0.035 + frame.pixel)
    canvas.paint(_hair_colour(identity, texture), alpha)
    bulge = 1.15 * head.depth * (1.0 - (u / (1.3 * head.width)) ** 2 - ((v - 0.1) / 1.75) ** 2) + 0.10
    canvas.model(bulge + (0.05 + 0.05 * hair.curl) * texture, volume * cover(fringe, 0.22))
    canvas.polish(0.24, alpha)


def paint_beard(canvas: Canvas, identity: Identity, frame: Frame, head: Plane) -> None:
    """Stubble to full beard round jaw and chin, moustache, goatee."""
    hair, mouth, u, v = identity.hair, identity.mouth, frame.u, frame.v
    grain = lattice_noise(u * 24.0 + 50.0, v * 24.0 + 50.0, identity.skin.salt + 31.0)
    side = np.abs(u)
    jaw = smooth(mouth.height - 0.42 + 1.15 * np.maximum(0.80 - side, 0.0) - v, 0.30)
    jaw *= np.where(hair.goatee > 0.7, smooth(side - 0.42, 0.16), np.float32(1.0))
    lips = bump(u, v - mouth.height - 0.02, 0.52, 0.24)
    beard = jaw * np.clip(1.0 - 1.6 * lips, 0.0, 1.0) * hair.beard
    lane = v - mouth.height + 1.3 * mouth.upper + 0.06 - 0.25 * side * side
    moustache = smooth(np.abs(lane) - 0.075, 0.07) * smooth(side - 0.42, 0.14) * hair.moustache
    opacity = np.maximum(beard, moustache)
    alpha = np.clip(opacity * (0.45 + 1.1 * grain), 0.0, 0.94) * head
    canvas.paint(identity.hair.colour * (0.55 + 0.7 * grain)[:, None], alpha)
    canvas.polish(0.04, alpha)


def paint_glasses(canvas: Canvas, identity: Identity, scene: Scene, frame: Frame) -> None:
    """Rims, bridge and temples of glasses, for those who wear them in this image."""
    worn = identity.glasses.worn * (1.0 - scene.unspectacled)
    glasses, side = identity.glasses, np.abs(frame.u)
    out, down = side - 0.5 * identity.eyes.spacing - 0.03, frame.v - 0.06
    corner = np.minimum(glasses.roundness, glasses.half_height)
    over_u = np.maximum(np.abs(out) - glasses.half_width + corner, 0.0)
    over_v = np.maximum(np.abs(down) - glasses.half_height + corner, 0.0)
    box = np.hypot(over_u, over_v) - corner
    rim = np.abs(box) - 0.5 * glasses.rim
    bridge = np.maximum(np.abs(frame.v + 0.03 - 0.4 * side * side) - 0.5 * glasses.rim, side - 0.18)
    arm = np.maximum(np.abs(frame.v + 0.02) - 0.5 * glasses.rim, glasses.half_width - out)
    frames = np.minimum(np.minimum(rim, bridge), np.maximum(arm, side - identity.head.width))
    canvas.shade(smooth(np.minimum(rim, bridge) - 0.03, 0.08), 0.25 * worn)
    canvas.paint(glasses.colour, cover(frames, frame.pixel) * worn)
    glare = cover(box, 0.02) * cover(np.abs(out + down * 1.2 - 0.12) - 0.05, 0.06)
    canvas.paint(np.ones((1, 3, 1, 1), np.float32), glare * worn * np.float32(0.10))
