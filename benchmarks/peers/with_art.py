"""ART: Nicolae et al., Adversarial Robustness Toolbox, 2018. It computes on numpy arrays around the network."""

import numpy as np
import torch
from art.attacks import EvasionAttack  # type: ignore[import-not-found]
from art.attacks.evasion import (  # type: ignore[import-not-found]
    CarliniL2Method,
    HopSkipJump,
    MomentumIterativeMethod,
    ProjectedGradientDescent,
    SquareAttack,
)
from art.estimators.classification import PyTorchClassifier  # type: ignore[import-not-found]
from torch import Tensor, nn

from peers.objective import Run, TwoLogits, each_alone
from steadface.attacks.balls import Ball


def pgd(*, steps: int, step: float | None = None, random_start: bool = False) -> Run:
    """linf PGD with steps of ``step``, a share of the radius (None: the library's own)."""

    def run(model: TwoLogits, images: Tensor, ball: Ball) -> Tensor:
        given = {} if step is None else {"eps_step": step * ball.radius}
        attack = ProjectedGradientDescent(
            _classifier(model, images),
            eps=ball.radius,
            max_iter=steps,
            num_random_init=int(random_start),
            batch_size=len(images),
            verbose=False,
            **given,
        )
        return _run(attack, images)

    return run


def mifgsm(*, steps: int, step: float | None = None) -> Run:
    def run(model: TwoLogits, images: Tensor, ball: Ball) -> Tensor:
        given = {} if step is None else {"eps_step": step * ball.radius}
        attack = MomentumIterativeMethod(
            _classifier(model, images),
            eps=ball.radius,
            max_iter=steps,
            batch_size=len(images),
            verbose=False,
            **given,
        )
        return _run(attack, images)

    return run


def carlini_wagner(*, searches: int, steps: int, rate: float, constant: float) -> Run:
    """This library searches along every gradient: up to 10 further forward passes a step."""

    def run(model: TwoLogits, images: Tensor, _: Ball) -> Tensor:
        attack = CarliniL2Method(
            _classifier(model, images),
            binary_search_steps=searches,
            max_iter=steps,
            learning_rate=rate,
            initial_const=constant,
            batch_size=len(images),
            verbose=False,
        )
        return _run(attack, images)

    return run


def square(*, queries: int) -> Run:
    def run(model: TwoLogits, images: Tensor, ball: Ball) -> Tensor:
        attack = SquareAttack(
            _classifier(model, images),
            norm=_norm(ball),
            eps=ball.radius,
            max_iter=queries,
            batch_size=len(images),
            verbose=False,
        )
        return _run(attack, images)

    return run


def hopskipjump(starts: Tensor) -> Run:
    """As long as there are queries, from ``starts`` ``(B, 3, H, W)``, which succeed as they are."""

    def run(model: TwoLogits, images: Tensor, ball: Ball, row: int) -> Tensor:
        attack = HopSkipJump(_classifier(model, images), norm=_norm(ball), max_iter=10_000, verbose=False)
        return _run(attack, images, x_adv_init=starts[row : row + 1].cpu().numpy())

    return each_alone(run)


def _classifier(model: TwoLogits, images: Tensor) -> PyTorchClassifier:
    return PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(images.shape[1:]),
        nb_classes=2,
        clip_values=(0.0, 1.0),
        device_type="gpu" if images.is_cuda else "cpu",
    )


def _norm(ball: Ball) -> float:
    return np.inf if ball.norm == "linf" else 2


def _run(attack: EvasionAttack, images: Tensor, **options: object) -> Tensor:
    labels = np.eye(2, dtype=np.float32)[np.zeros(len(images), dtype=np.int64)]
    found = attack.generate(images.cpu().numpy(), labels, **options)
    return torch.from_numpy(found).to(images)
