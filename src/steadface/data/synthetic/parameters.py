"""Random parameters by the table: one row of uniform numbers per person or image, one column per parameter."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

# Everything here is float32, and a test holds it to that; but NumPy's stubs call the product of a float32 array
# and a Python number float64, so that the element type cannot be declared.
Column = NDArray[Any]
"""(N, 1, 1) float32: one number per image, shaped to broadcast against planes (N, H, W)."""

Colour = NDArray[Any]
"""(N, 3, 1, 1) float32: one linear-light RGB colour per image, shaped to broadcast against (N, 3, H, W)."""


class Draws:
    """Hands out the columns of a (N, K) table of uniform numbers, one for each parameter asked for.

    A parameter is always read from the same column, so row i gives the same person or image whatever other
    rows the table holds.
    """

    def __init__(self, table: NDArray[np.float64]) -> None:
        self._columns = iter(table.T.astype(np.float32)[:, :, None, None])

    def uniform(self) -> Column:
        """The next column as it is: uniform in [0, 1)."""
        return next(self._columns)

    def between(self, low: float | Column, high: float | Column) -> Column:
        """Uniform between two bounds."""
        return low + (high - low) * self.uniform()

    def centred(self, spread: float) -> Column:
        """Bell-shaped around 0 (sum of three uniforms), standard deviation `spread`, at most 3 `spread`."""
        total = self.uniform() + self.uniform() + self.uniform()
        return (total - 1.5) * (2.0 * spread)

    def sometimes(self, probability: float | Column) -> Column:
        """0 with probability 1 - `probability`, else uniform in (0, 1]."""
        return np.clip(1.0 - self.uniform() / np.maximum(probability, 1e-6), 0.0, 1.0).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Base of the parameter tables: dataclasses whose fields are arrays with N rows, or further tables."""

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The same table with the given rows (in that order; a row may repeat)."""
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        taken = {k: p.take(rows) if isinstance(p, Table) else p[rows] for k, p in parts.items()}
        return dataclasses.replace(self, **taken)


def uniform_rows(seed: int, stream: int, people: Iterable[int], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """(P, *shape) uniform numbers; those of one person depend on the seed, the stream and that person only."""
    generators = [np.random.default_rng([seed, stream, person]) for person in people]
    return np.stack([generator.random(shape) for generator in generators])


def ramp(stops: tuple[tuple[float, float, float], ...], position: Column) -> Colour:
    """Colour at `position` in [0, 1] along equally spaced sRGB stops, in linear light (gamma 2)."""
    knots = np.linspace(0.0, 1.0, len(stops))
    channels = [np.interp(position[:, 0, 0], knots, [stop[c] for stop in stops]) for c in range(3)]
    return (np.stack(channels, axis=1)[:, :, None, None] ** 2).astype(np.float32)


def constant(red: float, green: float, blue: float) -> Colour:
    """One sRGB colour for all images, (1, 3, 1, 1) in linear light (gamma 2)."""
    return np.array([red, green, blue], dtype=np.float32)[None, :, None, None] ** 2
