"""Random numbers of attacks: a draw for each image of a batch, whoever computes which of them."""

from typing import Any

import torch
from torch import Tensor


class PartGenerator(torch.Generator):
    """Draws for `rows` of a batch of `total` images: as much as for all of them, of which those of `rows` are kept.

    So each image meets the same numbers however many processes share the batch, and all end in the same state.
    """

    rows = slice(None)
    total = 0


def uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform draws in [0, 1), of the type of `like` and where it is."""
    return _drawn(torch.rand, shape, like, generator)


def normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal draws, of the type of `like` and where it is."""
    return _drawn(torch.randn, shape, like, generator)


def choice(weights: Tensor, generator: torch.Generator) -> Tensor:
    """A column `(B,)` for each row of `weights` `(B, M)`, in proportion to them, where these are."""
    given = weights.to(dtype=torch.float32, device=generator.device)
    if isinstance(generator, PartGenerator):
        everybody = given.new_ones(generator.total, given.shape[1])
        everybody[generator.rows] = given
        given = everybody
    chosen = torch.multinomial(given, 1, generator=generator).squeeze(1).to(weights.device)
    return chosen[generator.rows] if isinstance(generator, PartGenerator) else chosen


def _drawn(draw: Any, shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    part = generator if isinstance(generator, PartGenerator) else None
    asked = shape if part is None else (part.total, *shape[1:])
    drawn: Tensor = draw(asked, generator=generator, device=generator.device, dtype=like.dtype)
    return (drawn if part is None else drawn[part.rows]).to(like.device)
