"""Margins as pure functions of the cosine: what a head puts in the place of the true identity's cosine.

Legend: B faces, C identities; theta the angle between an embedding and its identity's direction, cos its cosine; s
scale; m margin; psi(cos) the cosine that stands for the true identity. All other logits are s * cos.

    ArcFace   psi = cos(theta + m)                    Deng et al., CVPR 2019, eq. 3
    CosFace   psi = cos(theta) - m                    Wang et al., CVPR 2018, eq. 4
    AdaFace   psi = cos(theta + g_angle) - g_add      Kim et al., CVPR 2022, section 3.3

They depart from the papers only where a paper's formula is not usable; `angular_margin` states how.
"""

import math

import torch
from torch import Tensor

# Within this angle (radians) of cosine 1 or -1 the angular margin goes on along its tangent. 1 - cos is
# 5e-7 there, 8 units in the last place of a float32: closer to 1 the cosine hardly tells one angle from the next.
TANGENT_ANGLE = 1e-3


def angular_margin(cosine: Tensor, angle: Tensor) -> Tensor:
    """psi = cos(theta + angle) for cos(theta) = `cosine`, both of one shape; continuous and strictly increasing.

    Exact in value and gradient, d psi / d cos = sin(theta + angle) / sin(theta), wherever 0 < theta + angle < pi and
    `TANGENT_ANGLE` < theta < pi - `TANGENT_ANGLE`. Beyond that:

    - theta + angle past pi, or below 0 (a negative angle): psi goes on with slope 1 in the cosine, from the value -1
      or 1 that it has reached. Exact psi would turn round there and reward a face for moving away. ArcFace's authors
      subtract m sin(m) from the cosine instead, which jumps (by 0.117 at m = 0.5); AdaFace's authors clamp theta +
      angle, which ends the gradient.
    - theta within `TANGENT_ANGLE` of 0 or pi, where the exact slope tends to infinity and that of the square root to
      NaN: psi goes on along its tangent. At cosine 1 it is then low by sin(angle) * TANGENT_ANGLE / 2.

    >>> cosine, angle = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
    >>> angular_margin(cosine, angle)  # cos(0 + 0.5) and cos(pi/2 + 0.5)
    tensor([ 0.8773, -0.4794])
    """
    edge = math.cos(TANGENT_ANGLE)
    cos_angle, sin_angle = torch.cos(angle), torch.sin(angle)
    inner = cosine.clamp(-edge, edge)
    # (1 - c)(1 + c) keeps the digits that 1 - c * c loses near 1.
    psi = inner * cos_angle - torch.sqrt((1 - inner) * (1 + inner)) * sin_angle
    slope = cos_angle + cosine.sign() * sin_angle / math.tan(TANGENT_ANGLE)
    psi = torch.where(cosine.abs() > edge, psi + slope * (cosine - inner), psi)
    past_pi = (angle > 0) & (cosine < -cos_angle)
    below_zero = (angle < 0) & (cosine > cos_angle)
    psi = torch.where(past_pi, cosine + (cos_angle - 1), psi)
    return torch.where(below_zero, cosine + (1 - cos_angle), psi)


def arcface(cosines: Tensor, labels: Tensor, *, s: float, m: float) -> Tensor:
    """ArcFace logits (B, C) of `cosines` (B, C): s cos(theta + m) at the label, s cos(theta) elsewhere.

    >>> arcface(torch.tensor([[0.0, 0.5]]), torch.tensor([0]), s=10.0, m=0.5)
    tensor([[-4.7943,  5.0000]])
    """
    target = _at(cosines, labels)
    return s * _put(cosines, labels, angular_margin(target, torch.full_like(target, m)))


def cosface(cosines: Tensor, labels: Tensor, *, s: float, m: float) -> Tensor:
    """CosFace logits (B, C) of `cosines` (B, C): s (cos(theta) - m) at the label, s cos(theta) elsewhere.

    >>> cosface(torch.tensor([[0.8, 0.5]]), torch.tensor([0]), s=10.0, m=0.25)
    tensor([[5.5000, 5.0000]])
    """
    return s * _put(cosines, labels, _at(cosines, labels) - m)


def adaface(cosines: Tensor, labels: Tensor, quality: Tensor, *, s: float, m: float) -> Tensor:
    """AdaFace logits (B, C) of `cosines` (B, C) for image `quality` (B,) in [-1, 1].

    s (cos(theta + g_angle) - g_add) at the label, with g_angle = -m quality and g_add = m quality + m: CosFace at the
    average quality 0, ArcFace with margin m at -1, and at 1 the angular margin is -m and the additive one 2 m.
    """
    angle = -m * quality
    return s * _put(cosines, labels, angular_margin(_at(cosines, labels), angle) - (m * quality + m))


def margin_chance_loss(classes: int, *, target: float) -> float:
    """Cross-entropy log(1 + (C - 1) exp(-target)) when all cosines are 0 and the true logit is `target`.

    >>> round(margin_chance_loss(1000, target=0.0), 4)  # a plain softmax: log 1000
    6.9078
    """
    exponent = math.log(classes - 1) - target
    return max(exponent, 0.0) + math.log1p(math.exp(-abs(exponent)))


def at_least_float32(x: Tensor) -> Tensor:
    """At least float32; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _at(cosines: Tensor, labels: Tensor) -> Tensor:
    """(B,) entries of `cosines` (B, C) at the labels, in float32 at least."""
    return at_least_float32(cosines).gather(1, labels[:, None]).squeeze(1)


def _put(cosines: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """`cosines` (B, C) with `target` (B,) at the labels."""
    return at_least_float32(cosines).scatter(1, labels[:, None], target[:, None])
