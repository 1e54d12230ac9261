"""What is to be trained, and over how many ranks: the question that a plan answers.

Legend: B faces a rank and step, R ranks, C identities, D embedding size. Each rank has the whole backbone, its faces of
the batch and its rows of the head, and meets the embeddings of all R B faces there (An et al., "Killing two birds with
one stone: efficient and robust training of face recognition CNNs by Partial FC", CVPR 2022).
"""

import math
from dataclasses import dataclass
from typing import Literal

from steadface.arguments import choice, count, flag, number
from steadface.backbones import Architecture
from steadface.errors import InvalidInput

Precision = Literal["fp32", "bf16", "fp16"]
Optimizer = Literal["sgd", "adamw"]
Timing = Literal["same", "next"]
MOMENTS = {"sgd": 1, "adamw": 2}
"""Numbers that an optimiser keeps for each weight."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One training. `batch` counts the faces of one rank, `sample_rate` is the share of its rows that a step uses.

    `average` keeps a moving average of the weights. `duty` is the share of steps with an open gate, whose adversarial
    samples take `attack_steps` gradients; `targets` are trained on as well, and `reference` is a frozen copy that
    embeddings are compared with. Raises InvalidInput for what cannot be meant.
    """

    architecture: Architecture
    identities: int
    ranks: int = 1
    batch: int = 64
    sample_rate: float = 1.0
    precision: Precision = "bf16"
    optimizer: Optimizer = "sgd"
    average: bool = False
    recompute: bool = False
    duty: float = 0.0
    timing: Timing = "next"
    attack_steps: int = 1
    targets: bool = False
    reference: bool = False

    def __post_init__(self) -> None:
        for name, least in (("identities", 2), ("ranks", 1), ("batch", 2), ("attack_steps", 1)):
            count(name, getattr(self, name), least=least)
        for name, known in (("precision", Precision), ("optimizer", Optimizer), ("timing", Timing)):
            choice(name, getattr(self, name), known)
        for name in ("average", "recompute", "targets", "reference"):
            flag(name, getattr(self, name))
        if not 0 < number("sample_rate", self.sample_rate) <= 1:
            raise InvalidInput(f"sample_rate {self.sample_rate:g} is no share of the rows; give one above 0 up to 1")
        if not 0 <= number("duty", self.duty) <= 1:
            raise InvalidInput(f"duty {self.duty:g} is no share of the steps; give one from 0 to 1")

    @property
    def faces(self) -> int:
        """R B: those that each rank's rows meet."""
        return self.ranks * self.batch

    @property
    def rows(self) -> int:
        """Of the head on one rank, the largest share where C does not part evenly."""
        return -(-self.identities // self.ranks)

    @property
    def sampled(self) -> int:
        """Rows in a step, at the most: all identities of the batch, should they lie on one rank, and else at random."""
        if self.sample_rate == 1:
            return self.rows
        return min(self.rows, max(math.ceil(self.sample_rate * self.rows), self.faces))

    @property
    def opens(self) -> bool:
        return self.duty > 0

    @property
    def passes(self) -> int:
        """Of the backbone whose activations are kept at once: source, adversarial samples, targets."""
        return 1 + (1 + self.targets if self.opens else 0)

    @property
    def losses(self) -> int:
        """Of the head whose logits are kept at once: of source and adversarial samples."""
        return 1 + self.opens

    @property
    def moments(self) -> int:
        return MOMENTS[self.optimizer]
