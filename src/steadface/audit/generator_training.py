"""A generative attack trained against one fixed recogniser.

After AdvGAN: Xiao et al., Generating Adversarial Examples with Adversarial Networks, 2018, with embeddings for logits.

    max over theta of  E  s cos(f(x + squash(g_theta(x, noise, s q))), q)

f is the recogniser, g `SteadyNetwork`, q the unit embedding that face x dodges (s = -1) or impersonates (s = +1).
Half of every batch dodges another image of the person, and half impersonates another person of the batch.

Departures: no discriminator, since the ball bounds the perturbation; one network for both goals and all people, which
holds a pattern for every direction of the embedding. Where a person has one image only, q comes from that image with
noise on it: the gradient of a cosine vanishes at 1.
"""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from steadface.arguments import seed
from steadface.attacks import Ball, GenerativeAttack, crafting, dodge_or_impersonate
from steadface.audit.generator import SteadyNetwork
from steadface.backbones.frozen import frozen_where_alike
from steadface.backbones.soundness import gradient_fault, noise_for
from steadface.data.faces import FaceSource
from steadface.data.loading import Batch, FaceLoader
from steadface.data.sampling import BalancedSampler
from steadface.errors import InvalidInput, Unsupported
from steadface.evaluation.embedding import MirrorEmbedder
from steadface.evaluation.witness import Witness

BLOCKS = 3


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a generator is trained: Adam at a `rate` that falls to 0 along half a cosine, `batch` faces a step.

    Raises `SteadfaceError` for values that cannot be.
    """

    ball: Ball
    steps: int = 500
    batch: int = 32
    width: int = 24
    rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 4 or self.batch % 2:
            raise InvalidInput(f"batch is {self.batch}: give an even number from 4 on, two images each of two people")
        if self.steps < 1 or self.width < 1:
            raise InvalidInput(f"steps {self.steps} and width {self.width}: give at least 1 of each")
        seed(self.seed)
        if not 0 < self.rate < 1:
            raise InvalidInput(f"rate {self.rate} is no learning rate between 0 and 1; 3e-3 suits most recognisers")
        if not self.ball.radius > 0:
            raise InvalidInput(f"eps {self.ball.radius} is no positive radius; write 8/255")

    def rate_at(self, step: int) -> float:
        return self.rate * (1 + math.cos(math.pi * step / self.steps)) / 2


@dataclass(frozen=True, kw_only=True)
class Moved:
    """How far a batch's cosines were moved the way the attacker wants, before that step's update: means per goal.

    NaN where no face of the batch had that goal.
    """

    step: int
    dodging: float
    impersonation: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The network after as many steps as there are in `moved`."""

    network: SteadyNetwork
    moved: tuple[Moved, ...]

    def lately(self) -> tuple[float, float]:
        """(dodging, impersonation): the mean of the last tenth of the steps."""
        last = self.moved[-max(1, len(self.moved) // 10) :]
        columns = torch.tensor([[moved.dodging, moved.impersonation] for moved in last], dtype=torch.float64)
        dodging, impersonation = columns.nanmean(0).tolist()
        return dodging, impersonation


def embedding_size(embedder: MirrorEmbedder) -> int:
    """The size of its embeddings. Raises `SteadfaceError` where no gradient that can be followed comes back through the
    network.
    """
    noise = noise_for(embedder.backbone)
    with crafting(embedder), torch.no_grad():
        fault, embeddings = gradient_fault(embedder, noise), embedder(noise)
    if fault is not None:
        raise without_gradient(fault)
    return int(embeddings.shape[1])


def without_gradient(fault: str) -> Unsupported:
    """What to raise for a recogniser whose gradients cannot be followed, and why."""
    return Unsupported(
        f"no gradient comes back through this recogniser that could be followed ({fault}), and it takes one to train a "
        "generative attack: train it against a PyTorch model, and audit this one with the result"
    )


def train_generator(
    embedder: MirrorEmbedder,
    faces: FaceSource,
    options: Options,
    *,
    progress: Callable[[Moved], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Trains on `faces` for `options.steps` steps, or until `stop` says so between two of them.

    The embedder stays on its device and as it was. Deterministic for a seed on one device. Raises `SteadfaceError` for
    faces of fewer than two people, a recogniser without gradients, and one that does not behave like a recogniser
    (`Witness`), changes meanwhile or gives NaN under attack.
    """
    witness = Witness.of(embedder, faces, np.arange(len(faces)))
    attack = _fresh(options, embedding_size(embedder), embedder.device)
    sampler = BalancedSampler(faces.labels, batch_size=options.batch, seed=options.seed, images_per_person=2)
    loader = FaceLoader(faces, sampler=sampler, size=embedder.size, seed=options.seed, device=embedder.device)
    generator = torch.Generator().manual_seed(options.seed)
    with crafting(embedder):
        victim = MirrorEmbedder(frozen_where_alike(embedder.backbone), embedder.mirror)
    moved: list[Moved] = []
    with crafting(victim), closing(loader.batches()) as batches:
        while len(moved) < options.steps and not stop():
            step = len(moved)
            for group in attack.optimizer.param_groups:
                group["lr"] = options.rate_at(step)
            moved.append(_learn(victim, attack, next(batches), step, generator))
            if progress is not None:
                progress(moved[-1])
    witness.confirm(embedder, victim)
    assert isinstance(attack.network, SteadyNetwork)
    return Trained(network=attack.network, moved=tuple(moved))


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the faces of a batch want: unit embeddings `own` and `other` (B, D), and who `dodges` (B,)."""

    own: Tensor
    other: Tensor
    dodges: Tensor


def designate(
    embed: Callable[[Tensor], Tensor], batch: Batch, clean: Tensor, around: Ball, generator: torch.Generator
) -> Wishes:
    """Whom each face dodges or impersonates, for a batch whose images 2i and 2i + 1 mostly show one person.

    `clean` (B, D) are the unit embeddings of its images. Every second face dodges, and one without anybody else in the
    batch.
    """
    rows = torch.arange(len(clean), device=clean.device)
    partner = rows ^ 1
    own = clean[partner]
    same_image = (batch.images == batch.images[partner]).flatten(1).all(1)
    alone = same_image | (batch.labels != batch.labels[partner])
    if alone.any():
        noisy = embed(around.sample(batch.images[alone], generator))
        own = own.index_copy(0, rows[alone], noisy)
    others = batch.labels[:, None] != batch.labels
    nobody = ~others.any(1)
    drawn = torch.multinomial((others | nobody[:, None]).float().cpu(), 1, generator=generator).squeeze(1)
    return Wishes(own=own, other=clean[drawn.to(clean.device)], dodges=(rows % 2 == 0) | nobody)


class _Watched:
    """An embedder that keeps what it gave last, so that a step's outcome costs no pass of its own."""

    def __init__(self, embedder: MirrorEmbedder) -> None:
        self._embedder = embedder
        self.last = torch.empty(0)

    def __call__(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self._embedder(images)
        self.last = embeddings.detach()
        return embeddings


def _learn(
    embedder: MirrorEmbedder, attack: GenerativeAttack, batch: Batch, step: int, generator: torch.Generator
) -> Moved:
    with torch.no_grad():
        clean: Tensor = embedder(batch.images)
        wishes = designate(embedder, batch, clean, attack.ball, generator)
    watched = _Watched(embedder)
    score = dodge_or_impersonate(watched, wishes.own, wishes.other, wishes.dodges)
    attack(score, batch.images, generator=generator)
    if not watched.last.isfinite().all():
        raise InvalidInput(
            f"step {step + 1}: the recogniser gives NaN or infinity for faces that the attack has changed, from which "
            "nothing can be learnt; use another model"
        )
    gained = score.signs * ((watched.last - clean) * score.anchors).sum(1)
    return Moved(
        step=step,
        dodging=float(gained[wishes.dodges].mean()),
        impersonation=float(gained[~wishes.dodges].mean()),
    )


def _fresh(options: Options, embedding_size: int, device: torch.device) -> GenerativeAttack:
    with torch.random.fork_rng(devices=[]):  # its layers initialise from the global state
        torch.manual_seed(options.seed)
        network = SteadyNetwork(embedding_size=embedding_size, width=options.width, blocks=BLOCKS)
    network = network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=options.rate)
    return GenerativeAttack(ball=options.ball, network=network, optimizer=optimizer)
