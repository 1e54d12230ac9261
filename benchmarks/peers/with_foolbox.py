"""foolbox: Rauber et al., Foolbox: A Python toolbox to benchmark the robustness of machine learning models, 2017."""

import foolbox  # type: ignore[import-not-found]
import torch
from torch import Tensor

from peers.objective import Run, TwoLogits
from steadface.attacks.balls import Ball


def pgd(*, steps: int, step: float | None = None, random_start: bool = False) -> Run:
    """linf PGD with steps of ``step``, a share of the radius (None: the library's own)."""

    def run(model: TwoLogits, images: Tensor, ball: Ball) -> Tensor:
        given = {} if step is None else {"rel_stepsize": step}
        attack = foolbox.attacks.LinfPGD(steps=steps, random_start=random_start, **given)
        return _run(attack, model, images, epsilon=ball.radius)

    return run


def mifgsm(*, steps: int, step: float | None = None) -> Run:
    """linf MI-FGSM; this library sums gradients without normalising each."""

    def run(model: TwoLogits, images: Tensor, ball: Ball) -> Tensor:
        given = {} if step is None else {"rel_stepsize": step}
        attack = foolbox.attacks.mi_fgsm.LinfMomentumIterativeFastGradientMethod(steps=steps, **given)
        return _run(attack, model, images, epsilon=ball.radius)

    return run


def carlini_wagner(*, searches: int, steps: int, rate: float, constant: float) -> Run:
    def run(model: TwoLogits, images: Tensor, _: Ball) -> Tensor:
        attack = foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=searches, steps=steps, stepsize=rate, initial_const=constant, abort_early=False
        )
        return _run(attack, model, images)

    return run


def hopskipjump(starts: Tensor) -> Run:
    """As long as there are queries, from ``starts`` ``(B, 3, H, W)``, which succeed as they are."""

    def run(model: TwoLogits, images: Tensor, ball: Ball) -> Tensor:
        attack = foolbox.attacks.HopSkipJumpAttack(steps=10_000, constraint=ball.norm)
        return _run(attack, model, images, starting_points=starts)

    return run


def _run(attack: foolbox.attacks.base.Attack, model: TwoLogits, images: Tensor, **options: object) -> Tensor:
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    found: Tensor = attack.run(wrapped, images, labels, **options)
    return found.detach()
