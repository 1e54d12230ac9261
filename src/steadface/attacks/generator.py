"""A network that proposes the perturbation in one pass, trained against the current recogniser.

After AdvGAN (Xiao et al., 2018) without its discriminator: the ball already bounds how visible the perturbation
is. The network sees the face, noise, and what is wanted: the anchor embedding times the sign of the goal, so that one
network dodges and impersonates anybody. FiLM layers (Perez et al., 2018) bring the wish to the features.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadface.attacks.balls import Ball
from steadface.attacks.draws import PartGenerator, normal
from steadface.attacks.goals import CosineScore, Score


class PerturbationNetwork(nn.Module):
    """`(images (B, 3, H, W), noise alike, wish (B, D)) -> unbounded field (B, 3, H, W)`."""

    def __init__(self, *, embedding_size: int, width: int = 24, blocks: int = 3) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(6, width, 3, stride=2, padding=1),
            nn.PReLU(width),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.PReLU(2 * width),
        )
        self.film = nn.Linear(embedding_size, blocks * 4 * width)
        self.blocks = nn.ModuleList(nn.Conv2d(2 * width, 2 * width, 3, padding=1) for _ in range(blocks))
        self.up = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(width))
        self.out = nn.Sequential(nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, images: Tensor, noise: Tensor, wish: Tensor) -> Tensor:
        features = self.down(torch.cat([2 * images - 1, noise], dim=1))
        scales, shifts = self.film(wish)[:, :, None, None].chunk(2, dim=1)
        per_block = zip(
            self.blocks,
            scales.chunk(len(self.blocks), dim=1),
            shifts.chunk(len(self.blocks), dim=1),
            strict=True,
        )
        for block, scale, shift in per_block:
            features = features + F.relu(block(features) * (1 + scale) + shift)
        field: Tensor = self.out(self.up(features))
        return field[:, :, : images.shape[2], : images.shape[3]]  # sizes that are no multiple of 4


class GenerativeAttack:
    """Proposes with `network`, then takes one `optimizer` step that raises the score of the proposal.

    The proposal made before the update is returned: one pass of the network and one gradient through the
    recogniser per batch. `learn=False` only proposes. `summed` adds a gradient up over the processes that share a
    batch, of which each proposes for its own images; alone there is nothing to add.
    """

    def __init__(
        self,
        *,
        ball: Ball,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        learn: bool = True,
        summed: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.ball = ball
        self.network = network
        self.optimizer = optimizer
        self.learn = learn
        self.summed = summed

    def within(self, ball: Ball) -> "GenerativeAttack":
        return GenerativeAttack(
            ball=ball, network=self.network, optimizer=self.optimizer, learn=self.learn, summed=self.summed
        )

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        if not isinstance(score, CosineScore):
            raise TypeError(f"a generative attack is told an anchor and a direction: {type(score).__name__} has none")
        noise = normal(images.shape, images, generator)
        with torch.set_grad_enabled(self.learn):
            field = self.network(images, noise, score.signs[:, None] * score.anchors)
            x_adv = (images + self.ball.squash(field)).clamp(0, 1)
        if self.learn:
            # Only the network's own gradients: those of the recogniser being trained are not to be touched.
            parameters = list(self.network.parameters())
            share = len(images) / generator.total if isinstance(generator, PartGenerator) else 1.0
            gradients = torch.autograd.grad(-score(x_adv).mean() * share, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient if self.summed is None else self.summed(gradient)
            self.optimizer.step()
        return self.ball.project(x_adv.detach(), images)  # absorbs the last bit of rounding
