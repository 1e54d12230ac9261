"""The table of attacks that ``test_table.py`` runs through the same truths; ``table_blackbox.py`` adds its own."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from steadface.attacks.apgd import APGD
from steadface.attacks.balls import Ball, Norm
from steadface.attacks.base import Attack
from steadface.attacks.cw import CarliniWagnerL2
from steadface.attacks.fgsm import FGSM
from steadface.attacks.fmn import FMN
from steadface.attacks.mifgsm import MIFGSM
from steadface.attacks.minimum_norm import Bisection
from steadface.attacks.nfgsm import NFGSM
from steadface.attacks.pgd import PGD
from steadface.attacks.transfer import Transformed, Transforms
from steadface.attacks.universal import Universal


@dataclass(frozen=True, kw_only=True)
class Case:
    """An attack and which truths it owes; all owe budget, range, direction and determinism.

    ``drops``: a sample is left alone at its first success, so that an end changes no outcome. ``best``: the returned
    image scores as high as any that was scored, all of them inside the ball. ``alone``: each sample's outcome is its
    own, whatever happens to the rest of the batch. ``radius``: (linf, l2) at which the small network moves.
    """

    name: str
    make: Callable[[Ball], Attack]
    norms: tuple[Norm, ...] = ("linf", "l2")
    drops: bool = True
    best: bool = True
    alone: bool = True
    radius: tuple[float, float] = (0.02, 1.0)


@dataclass(frozen=True)
class Hills:
    """``sin <frequencies, image>`` of each sample: paths climb it and lose it again. Remembers all values it gave."""

    frequencies: Tensor
    enough: Tensor | None = None
    rows: Tensor | None = None
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, images: Tensor) -> Tensor:
        values = self.silently(images)
        rows = torch.arange(len(images)) if self.rows is None else self.rows
        self.seen.append((rows, values.detach()))
        return values

    def take(self, indices: Tensor) -> "Hills":
        rows = torch.arange(len(self.frequencies)) if self.rows is None else self.rows
        enough = None if self.enough is None else self.enough[indices]
        return Hills(self.frequencies[indices], enough, rows[indices], self.seen)

    def succeeded(self, values: Tensor) -> Tensor:
        return torch.zeros_like(values, dtype=torch.bool) if self.enough is None else values >= self.enough

    def silently(self, images: Tensor) -> Tensor:
        return (self.frequencies.to(images.dtype) * images).sum(dim=(1, 2, 3)).sin()

    def highest(self) -> Tensor:
        """The highest value seen of each sample."""
        highest = torch.full((len(self.frequencies),), -torch.inf, dtype=self.frequencies.dtype)
        for rows, values in self.seen:
            highest[rows] = torch.maximum(highest[rows], values)
        return highest


WHITE_BOX = (
    Case(name="FGSM", make=lambda ball: FGSM(ball=ball), radius=(0.01, 0.4)),
    Case(name="NFGSM", make=lambda ball: NFGSM(ball=ball, noise=1), best=False, drops=False, radius=(0.01, 0.4)),
    Case(name="BIM", make=lambda ball: PGD(ball=ball, steps=5, random_start=False)),
    Case(name="PGD", make=lambda ball: PGD(ball=ball, steps=4, restarts=2)),
    # Gradients of `Hills` are one direction and its opposite: by a decay of 1 they cancel, and rounding would decide.
    Case(name="MIFGSM", make=lambda ball: MIFGSM(ball=ball, steps=5, decay=0.9)),
    Case(name="MIFGSM-last", make=lambda ball: MIFGSM(ball=ball, steps=5, decay=0.9, keep_best=False), best=False),
    Case(name="APGD", make=lambda ball: APGD(ball=ball, steps=8, restarts=2)),
    Case(
        name="MIFGSM-transformed",
        make=lambda ball: Transformed(
            attack=MIFGSM(ball=ball, steps=5, decay=0.9), transforms=Transforms(smoothing=3, scales=2, diversity=0.5)
        ),
        best=False,  # the copies are scored too
    ),
    Case(
        name="CarliniWagnerL2",
        make=lambda ball: CarliniWagnerL2(ball=ball, searches=2, steps=10, rate=0.03),
        norms=("l2",),
        drops=False,
        best=False,
    ),
    Case(
        name="Bisection",
        make=lambda ball: Bisection(attack=PGD(ball=ball, steps=4, random_start=False), rounds=3),
        drops=False,
        best=False,
    ),
    Case(name="FMN", make=lambda ball: FMN(attack=PGD(ball=ball, steps=4), steps=8), drops=False, best=False),
    Case(
        name="Universal",
        make=lambda ball: Universal(ball=ball, epochs=6, batch_size=4),
        drops=False,
        best=False,
        alone=False,
    ),
)
