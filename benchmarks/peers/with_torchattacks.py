"""torchattacks: Kim, Torchattacks: A PyTorch Repository for Adversarial Attacks, 2020."""

import torch
import torchattacks  # type: ignore[import-not-found]
from torch import Tensor

from peers.objective import Run, TwoLogits
from steadface.attacks.balls import Ball


def pgd(*, steps: int, step: float | None = None, random_start: bool = False) -> Run:
    """linf PGD with steps of ``step``, a share of the radius (None: the library's own)."""

    def run(model: TwoLogits, images: Tensor, ball: Ball) -> Tensor:
        given = {} if step is None else {"alpha": step * ball.radius}
        attack = torchattacks.PGD(model, eps=ball.radius, steps=steps, random_start=random_start, **given)
        return _run(attack, images)

    return run


def mifgsm(*, steps: int, step: float | None = None) -> Run:
    def run(model: TwoLogits, images: Tensor, ball: Ball) -> Tensor:
        given = {} if step is None else {"alpha": step * ball.radius}
        return _run(torchattacks.MIFGSM(model, eps=ball.radius, steps=steps, **given), images)

    return run


def carlini_wagner(*, searches: int, steps: int, rate: float, constant: float) -> Run:
    """This library does not search for the constant: all steps go into one."""

    def run(model: TwoLogits, images: Tensor, _: Ball) -> Tensor:
        return _run(torchattacks.CW(model, c=constant, steps=searches * steps, lr=rate), images)

    return run


def square(*, queries: int) -> Run:
    def run(model: TwoLogits, images: Tensor, ball: Ball) -> Tensor:
        norm = {"linf": "Linf", "l2": "L2"}[ball.norm]
        attack = torchattacks.Square(model, norm=norm, eps=ball.radius, n_queries=queries, loss="margin")
        return _run(attack, images)

    return run


def _run(attack: torchattacks.attack.Attack, images: Tensor) -> Tensor:
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    found: Tensor = attack(images, labels)
    return found.detach()
