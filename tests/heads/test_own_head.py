"""A head of one's own: what `Head` asks for, and training with it."""

import math

import pytest
import torch
from torch import nn

from steadface.data.loading import Batch
from steadface.heads import Head
from steadface.heads.heads import MarginObjective
from steadface.training.batchnorm import BatchNormPasses
from steadface.training.gate import FixedGate
from steadface.training.performance import negative_loss
from steadface.training.step import Ramp, Trainer


class ScaledCosine(Head):
    """`s` times the cosine, without a margin (Wang et al., "NormFace", 2017)."""

    s = 16.0

    def chance_loss(self) -> float:
        return math.log(self.classes)


def test_a_head_of_ones_own_is_trained() -> None:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(3 * 8 * 8, 4, bias=False)
    nn.init.normal_(linear.weight, std=0.05, generator=generator)
    network = nn.Sequential(nn.Flatten(), linear)
    objective = MarginObjective(ScaledCosine(3, 4, generator=generator))
    trainer = Trainer(
        backbone=network,
        network=network,
        objective=objective,
        optimizer=torch.optim.SGD([*network.parameters(), *objective.parameters()], lr=0.01),
        gate=FixedGate(is_open=False),
        performance=negative_loss,
        batchnorm=BatchNormPasses(network, "clean"),
        generator=generator,
        ramp=Ramp(),
    )
    batch = Batch(images=torch.rand(6, 3, 8, 8, generator=generator), labels=torch.tensor([0, 1, 2, 0, 1, 2]))
    losses = [trainer.step(batch).loss for _ in range(20)]
    assert losses[-1] < losses[0]


def test_its_chance_loss_is_that_of_a_recogniser_that_tells_nobody_apart() -> None:
    objective = MarginObjective(ScaledCosine(3, 4))
    with torch.no_grad():
        objective.head.weight[:, 0] = 0
    loss = objective(torch.eye(4)[:1].repeat(3, 1), torch.arange(3), None, clean=True)
    assert float(loss.detach()) == pytest.approx(objective.chance_loss(), rel=1e-5)
