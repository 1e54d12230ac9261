"""What a printer can do: colours that inks can mix, and how far a patch is from smooth and from those colours.

The colours follow the Neugebauer equations (Die theoretischen Grundlagen des Mehrfarbenbuchdrucks, 1937): with ink
coverages ``c, m, y`` the reflectance, linear in light, is the mean of the eight overprints weighted by their areas

    R = sum over overprints (C, M, Y) in {0, 1}^3 of  R_CMY  prod_ink (ink ? coverage : 1 - coverage)      (Demichel)
"""

from itertools import product

import torch
from torch import Tensor

GAMMA = 2.2
TINY = 2.0**-28  # far below a squared grey level, and with an exact root: the root has no slope at 0

OVERPRINTS = {
    (0, 0, 0): (255, 255, 255),  # paper
    (1, 0, 0): (0, 159, 227),
    (0, 1, 0): (230, 0, 126),
    (0, 0, 1): (255, 237, 0),
    (0, 1, 1): (227, 6, 19),
    (1, 0, 1): (0, 150, 64),
    (1, 1, 0): (49, 39, 131),
    (1, 1, 1): (60, 55, 50),
}
"""Solid cyan, magenta and yellow over each other on coated offset paper, in sRGB; roughly what a good printer gives."""

BLACK = (29, 29, 27)


def printable_colours() -> Tensor:
    """``(30, 3)`` RGB in ``[0, 1]``: cyan, magenta and yellow at 0, 1/2 and 1, and black at 1/3, 2/3 and 1."""
    inks = {key: _light(colour) for key, colour in OVERPRINTS.items()}
    mixed = [_neugebauer(inks, coverages) for coverages in product((0.0, 0.5, 1.0), repeat=3)]
    greys = [torch.lerp(_light(OVERPRINTS[0, 0, 0]), _light(BLACK), share / 3) for share in (1, 2, 3)]
    return torch.stack(mixed + greys).pow(1 / GAMMA).float()


def _neugebauer(inks: dict[tuple[int, int, int], Tensor], coverages: tuple[float, ...]) -> Tensor:
    reflected = torch.zeros(3, dtype=torch.float64)
    for overprint, light in inks.items():
        area = 1.0
        for ink, coverage in zip(overprint, coverages, strict=True):
            area *= coverage if ink else 1 - coverage
        reflected += area * light
    return reflected


def _light(colour: tuple[int, int, int]) -> Tensor:
    return (torch.tensor(colour, dtype=torch.float64) / 255).pow(GAMMA)


def total_variation(patch: Tensor, mask: Tensor) -> Tensor:
    """``(B,)``: mean length of the colour gradient of ``(B, 3, H, W)`` over pixels whose neighbours to the right and
    below are inside ``mask`` ``(1, H, W)`` too; 0 where the patch is of one colour, or nowhere so wide.
    """
    here = patch[..., :-1, :-1]
    right, down = patch[..., :-1, 1:] - here, patch[..., 1:, :-1] - here
    inside = mask[:, :-1, :-1] * mask[:, :-1, 1:] * mask[:, 1:, :-1]
    length = (right.square() + down.square() + TINY).sqrt() - TINY**0.5
    mean: Tensor = (length * inside).mean(1).sum((1, 2)) / inside.sum().clamp_min(TINY)
    return mean


def non_printability(patch: Tensor, mask: Tensor, palette: Tensor) -> Tensor:
    """``(B,)``: mean distance in RGB of the pixels inside ``mask`` to the nearest of ``palette`` ``(P, 3)``."""
    weights = mask[0][mask[0] > 0]
    pixels = patch[..., mask[0] > 0].mT  # (B, n, 3)
    # The shortcut through a matrix product loses small distances, and with them the gradient near a colour.
    distances = torch.cdist(pixels, palette, compute_mode="donot_use_mm_for_euclid_dist")
    mean: Tensor = (distances.amin(2) * weights).sum(1) / weights.sum()
    return mean
