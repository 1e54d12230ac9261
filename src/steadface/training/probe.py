"""Whether the attack that is trained against is too weak, and one step more where it is.

    reach = mean(s(x_k) - s(x)) / mean(s(x_strong) - s(x))         s the attacker's score, faces of people held out

x_k is what the training attack makes of x in k steps and x_strong what PGD does in ten, inside the same ball. Networks
learn to resist the very steps that they see (catastrophic overfitting: Wong et al., "Fast is better than free", 2020;
Andriushchenko and Flammarion, "Understanding and improving fast adversarial training", 2020), and the loss does not
show it. Where the reach falls below a bound, k rises by one, and it stays.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from steadface.attacks import PGD
from steadface.data.faces import FaceSource
from steadface.data.loading import load_images
from steadface.training.recipe import Recipe
from steadface.training.recipe.method import ProbeOptions
from steadface.training.step import Trainer


@dataclass(kw_only=True)
class StrengthProbe:
    """Probes `trainer`'s PGD on `images` `(B, 3, H, W)`; `reach` is what it last saw."""

    options: ProbeOptions
    images: Tensor
    seed: int
    reach: float | None = None

    @classmethod
    def of(cls, recipe: Recipe, held_out: FaceSource | None, device: torch.device) -> "StrengthProbe | None":
        """The one that the recipe asks for, on as many faces as a batch has."""
        options, data, seed = recipe.method.attack.probe, recipe.data, recipe.run.seed
        if options is None or held_out is None:
            return None
        return cls(options=options, images=probing_images(held_out, data.batch, data.size, seed).to(device), seed=seed)

    def after_open_step(self, trainer: Trainer) -> None:
        """Probes where it is due, and strengthens the attack where that is weak."""
        if trainer.ramp.open_steps % self.options.every:
            return
        self.reach = trainer.ranks.from_first(lambda: self.measure(trainer))
        attack = trainer.attack
        assert isinstance(attack, PGD)
        if self.reach < self.options.reach and attack.steps < self.options.most:
            trainer.attack = replace(attack, steps=attack.steps + 1)

    def measure(self, trainer: Trainer) -> float:
        """The reach of the attack as it is; 1 where the strong one gains nothing either."""
        assert isinstance(trainer.attack, PGD)
        strong = replace(trainer.attack, steps=self.options.steps)
        clean, weak, best = (
            float(score.double().mean()) for score in trainer.scores(self.images, (trainer.attack, strong), self.seed)
        )
        return (weak - clean) / (best - clean) if best > clean else 1.0


def probing_images(faces: FaceSource, count: int, size: tuple[int, int], seed: int) -> Tensor:
    """`count` faces drawn at random, some again where there are fewer: a compiled network wants one size."""
    order = np.random.default_rng(seed).permutation(len(faces))
    return load_images(faces, np.resize(order, count), size)
