"""What every part of a certification works with, and embeddings under noise that are kept once they are drawn.

The noise of an image depends on the seed and on whose it is alone, so that a certification that was stopped ends where
it would have, however its work is cut into chunks.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from steadface.audit.execution import Arrays
from steadface.audit.session import Chunks, Meter
from steadface.certification.request import TEMPLATE_DRAWS, Request
from steadface.certification.verifier import Levels, SmoothedVerifier, draws_of, levels_of
from steadface.data.loading import read_images
from steadface.evaluation.calibration import AttackSplit
from steadface.evaluation.series import Goal

KEPT = 2048
"""Images embedded between two moments at which what is done is kept: two minutes' work at most, on a slow machine."""

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]
Make = Callable[[Levels, int], Floats]


@dataclass
class Pace:
    """How many images this process has embedded so far, and in how many seconds."""

    images: int = 0
    seconds: float = 0.0

    def pairs_per_minute(self, each: int) -> float | None:
        """Of pairs that take `each` images; None where all had been kept."""
        return 60 * self.images / self.seconds / each if self.images else None


@dataclass(frozen=True, kw_only=True)
class Work:
    """The request, the pairs and people drawn for it, and where what is done is kept."""

    request: Request
    split: AttackSplit
    verifier: SmoothedVerifier
    chunks: Chunks
    meter: Meter
    pace: Pace = field(default_factory=Pace)

    def planned(self, goal: Goal) -> Indices:
        """The pairs of a goal."""
        return self.split.genuine if goal == "dodging" else self.split.impostor

    def read(self, images: Indices) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Those of the images that can be read, (k, H, W, 3), and which of the n these are (n,)."""
        return read_images(self.request.pairs.faces, images, self.verifier.embedder.size, skip_unreadable=True)

    def noise(self, whose: str) -> np.random.Generator:
        """Where the noise of something comes from."""
        return draws_of(self.request.seed, whose)

    def probes(self, what: str, images: Indices, draws: int) -> Floats:
        """Unit embeddings of the images under noise (n, draws, D)."""

        def make(levels: Levels, index: int) -> Floats:
            return self.verifier.embeddings(levels, draws, self.noise(f"{what} {index}"))

        return self._kept(what, images, draws, make)

    def enrolled(self, what: str, images: Indices) -> Floats:
        """The templates of the images (n, D)."""

        def make(levels: Levels, index: int) -> Floats:
            return self.verifier.template(levels, TEMPLATE_DRAWS, self.noise(f"{what} {index}"))

        return self._kept(what, images, TEMPLATE_DRAWS, make)

    def cosines(self, goal: Goal, enrolled: Floats) -> Floats:
        """Noisy cosines (n, draws) of the pairs of a goal, whose second images are `enrolled` (n, D)."""
        what, draws, planned = f"draws {goal}", self.request.draws, self.planned(goal)

        def make(levels: Levels, row: int) -> Floats:
            if not np.isfinite(enrolled[row]).all():
                return np.full(draws, np.nan, dtype=np.float32)
            noise = self.noise(f"{what} {int(planned[row])}")
            cosines: Floats = self.verifier.embeddings(levels, draws, noise) @ enrolled[row]
            return cosines

        return self._kept(what, self.request.pairs.first[planned], draws, make, rows=True)

    def _kept(self, what: str, images: Indices, draws: int, make: Make, *, rows: bool = False) -> Floats:
        """What `make` makes of every image and its index, or place with `rows`; NaN where it cannot be read."""
        parts = []
        for places in self._parts(len(images), draws):
            self.meter.advance(what)
            named = places if rows else images[places]

            def made(places: Indices = places, named: Indices = named) -> Arrays:
                return self._made(what, images[places], named, draws, make)

            before = self.pace.images
            parts.append(self.chunks.get(f"{what}-{int(places[0]):05d}".replace(" ", "-"), made))
            self.meter.advance(what, draws * len(places) - (self.pace.images - before))
        readable = np.concatenate([part["readable"] for part in parts])
        known = [part["found"] for part in parts if len(part["found"])]
        every = np.full((len(images), *(known[0].shape[1:] if known else (1,))), np.nan, dtype=np.float32)
        if known:
            every[readable] = np.concatenate(known)
        return every

    def _made(self, what: str, images: Indices, named: Indices, draws: int, make: Make) -> Arrays:
        """What is kept of the images; each is counted once it is embedded."""
        read, readable = self.read(images)
        found = []
        for levels, index in zip(levels_of(read), named[readable].tolist(), strict=True):
            began = time.monotonic()
            found.append(make(levels, index))
            self.pace.images += draws
            self.pace.seconds += time.monotonic() - began
            self.meter.advance(what, draws)
        return {"readable": readable, "found": np.stack(found) if found else np.empty((0, 0), np.float32)}

    def _parts(self, count: int, draws: int) -> Iterator[Indices]:
        size = max(1, KEPT // draws)
        return (np.arange(start, min(start + size, count)) for start in range(0, count, size))
