"""The painter's order: one batch of images at once, from behind to the front, then lit and exposed."""

import numpy as np
from numpy.typing import NDArray

from steadface.data.synthetic.camera import expose, light
from steadface.data.synthetic.conditions import Conditions
from steadface.data.synthetic.features import paint_brows, paint_eyes, paint_mouth, paint_nose
from steadface.data.synthetic.geometry import place_pixels
from steadface.data.synthetic.hair import (
    hair_texture,
    paint_beard,
    paint_glasses,
    paint_hair_behind,
    paint_hair_front,
)
from steadface.data.synthetic.head import new_canvas, paint_ears, paint_face, paint_neck
from steadface.data.synthetic.identity import Identity


def render(identity: Identity, conditions: Conditions, size: tuple[int, int]) -> NDArray[np.uint8]:
    """N aligned faces as (N, height, width, 3) uint8 RGB; row i of both tables describes image i."""
    expression, scene = conditions.expression, conditions.scene
    frame = place_pixels(identity, conditions.pose, expression, size)
    canvas = new_canvas(scene, frame)
    texture = hair_texture(identity, frame)
    paint_hair_behind(canvas, identity, frame, texture)
    paint_neck(canvas, scene, identity, frame)
    paint_ears(canvas, identity, frame)
    head = paint_face(canvas, identity, expression, frame)
    paint_nose(canvas, identity, frame)
    paint_beard(canvas, identity, frame, head)
    paint_mouth(canvas, identity, expression, frame)
    paint_eyes(canvas, identity, expression, frame)
    paint_brows(canvas, identity, expression, frame)
    paint_glasses(canvas, identity, scene, frame)
    paint_hair_front(canvas, identity, scene, frame, texture)
    subject = np.minimum(canvas.height * 100.0, 1.0)
    linear = light(canvas, conditions.light, frame.pixel, subject)
    return expose(linear, conditions.camera, 112.0 / size[0])
