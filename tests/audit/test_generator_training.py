import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadface.attacks import CosineScore, GenerativeAttack, ball, crafting
from steadface.audit.generator_training import (
    Moved,
    Options,
    Trained,
    designate,
    embedding_size,
    train_generator,
)
from steadface.backbones import Architecture
from steadface.data.faces import ArrayFaces
from steadface.data.loading import Batch, load_images
from steadface.errors import SteadfaceError
from steadface.evaluation.embedding import MirrorEmbedder

from ..few import SMALLEST

SIDE = 32
AROUND = ball("linf", 0.05)


def options(**changes: object) -> Options:
    return Options(**{"ball": AROUND, "steps": 3, "batch": 8, "width": 8, "rate": 3e-3, **changes})


@pytest.fixture(scope="module")
def faces() -> ArrayFaces:
    """Six people with two smooth random pictures each, and one with a single picture."""
    coarse = torch.rand(13, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    smooth = F.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    pixels = (255 * smooth).round().byte().permute(0, 2, 3, 1).numpy()
    return ArrayFaces(np.ascontiguousarray(pixels), np.arange(13) // 2, [f"person {n}" for n in range(7)])


@pytest.fixture(scope="module")
def embedder(faces: ArrayFaces) -> MirrorEmbedder:
    """A random network whose BatchNorm statistics are those of the faces."""
    network = Architecture(name=SMALLEST.name, embedding_size=16, image_size=(SIDE, SIDE)).build(
        torch.Generator().manual_seed(0)
    )
    pictures = load_images(faces, np.arange(13), (SIDE, SIDE))
    with torch.no_grad():
        for _ in range(100):
            network(pictures)
    return MirrorEmbedder(network.eval(), mirror=False)


def weights(trained: Trained) -> list[Tensor]:
    return list(trained.network.state_dict().values())


def test_it_learns_to_move_cosines_both_ways(embedder: MirrorEmbedder, faces: ArrayFaces) -> None:
    trained = train_generator(embedder, faces, options(steps=60))
    untrained = train_generator(embedder, faces, options(steps=1, rate=1e-9))
    images = load_images(faces, np.arange(12), embedder.size)
    with torch.no_grad():
        clean = embedder(images)
    signs = torch.tensor([-1.0, 1.0]).repeat(6)
    anchors = torch.where(signs[:, None] < 0, clean[torch.arange(12) ^ 1], clean.roll(2, 0))  # own, or the one before
    score = CosineScore(embed=embedder, anchors=anchors, signs=signs)
    gained = []
    for network in (untrained.network, trained.network):
        attack = GenerativeAttack(
            ball=AROUND, network=network, optimizer=torch.optim.SGD(network.parameters()), learn=False
        )
        with torch.no_grad():
            x_adv = attack(score, images, generator=torch.Generator().manual_seed(1))
            gained.append(score(x_adv) - score(images))
    for goal in (signs < 0, signs > 0):
        assert float(gained[1][goal].mean()) > float(gained[0][goal].mean()) + 0.01
        assert float(gained[1][goal].mean()) > 0.01
    assert min(trained.lately()) > 0.01
    assert [moved.step for moved in trained.moved] == list(range(60))


def test_the_seed_decides_and_nothing_else_is_touched(embedder: MirrorEmbedder, faces: ArrayFaces) -> None:
    embedder.train()
    before, state = copy.deepcopy(embedder.state_dict()), torch.random.get_rng_state()
    first, again, other = (train_generator(embedder, faces, options(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert embedder.training
    embedder.eval()
    assert all(torch.equal(value, before[key]) for key, value in embedder.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in embedder.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(again), strict=True))
    assert first.moved == again.moved
    assert not all(torch.equal(a, b) for a, b in zip(weights(first), weights(other), strict=True))


def test_it_stops_between_two_steps_when_told(embedder: MirrorEmbedder, faces: ArrayFaces) -> None:
    seen: list[Moved] = []
    stopped = train_generator(embedder, faces, options(steps=50), progress=seen.append, stop=lambda: len(seen) == 2)
    assert stopped.moved == tuple(seen)
    assert len(seen) == 2
    assert train_generator(embedder, faces, options(), stop=lambda: True).moved == ()


def test_what_it_is_told_to_report_is_the_late_mean_of_each_goal() -> None:
    steps = [Moved(step=n, dodging=float(n), impersonation=float("nan") if n == 39 else 1.0) for n in range(40)]
    assert Trained(network=None, moved=tuple(steps)).lately() == (37.5, 1.0)
    assert Trained(network=None, moved=tuple(steps[:1])).lately() == (0.0, 1.0)


def test_the_rate_falls_along_half_a_cosine() -> None:
    rates = [options(steps=100).rate_at(step) for step in (0, 25, 50, 100)]
    assert rates == pytest.approx([3e-3, 3e-3 * (2 + 2**0.5) / 4, 1.5e-3, 0], abs=1e-12)


def designated(embedder: MirrorEmbedder, images: Tensor, labels: list[int]):
    batch = Batch(images=images, labels=torch.tensor(labels))
    with crafting(embedder), torch.no_grad():
        clean = embedder(images)
        return clean, designate(embedder, batch, clean, AROUND, torch.Generator().manual_seed(0))


def test_faces_dodge_their_other_image_and_impersonate_others(embedder: MirrorEmbedder, faces: ArrayFaces) -> None:
    clean, wishes = designated(embedder, load_images(faces, np.arange(8), embedder.size), [0, 0, 1, 1, 2, 2, 3, 3])
    assert wishes.dodges.tolist() == [True, False] * 4
    assert torch.equal(wishes.own, clean[[1, 0, 3, 2, 5, 4, 7, 6]])
    chosen = [(clean == wish).all(1).nonzero().item() for wish in wishes.other]
    assert all(row // 2 != other // 2 for row, other in enumerate(chosen))


def test_faces_with_a_single_image_dodge_it_with_noise_on_it(embedder: MirrorEmbedder, faces: ArrayFaces) -> None:
    images = load_images(faces, np.array([0, 0, 2, 4, 6, 7]), embedder.size)
    clean, wishes = designated(embedder, images, [0, 0, 1, 2, 3, 3])  # rows 2 and 3 are of two people
    for row in range(4):
        cosine = float(wishes.own[row] @ clean[row])
        assert 0.5 < cosine < 1 - 1e-5
    assert torch.equal(wishes.own[4:], clean[[5, 4]])


def test_a_batch_of_one_person_only_dodges(embedder: MirrorEmbedder, faces: ArrayFaces) -> None:
    _, wishes = designated(embedder, load_images(faces, np.arange(4), embedder.size), [5, 5, 5, 5])
    assert wishes.dodges.all()


class NoGradient(MirrorEmbedder):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.detach())


def test_a_recogniser_without_gradients_is_refused(embedder: MirrorEmbedder, faces: ArrayFaces) -> None:
    assert embedding_size(embedder) == 16
    blind = NoGradient(embedder.backbone, mirror=False)
    with pytest.raises(SteadfaceError, match=r"no gradient comes back .* against a PyTorch model"):
        train_generator(blind, faces, options())


class Turning(nn.Module):
    """Answers otherwise after so many calls."""

    differentiable = True

    def __init__(self, network: nn.Module, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.answer, self.left = network, answer, 9
        self.image_size = (SIDE, SIDE)

    def forward(self, images: Tensor) -> Tensor:
        self.left -= 1
        found: Tensor = self.network(images)
        return found if self.left > 0 else self.answer(found)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(lambda found: found.roll(1, 1), "changed while"), (lambda found: found * torch.nan, "NaN or infinity")],
)
def test_nothing_is_learnt_from_one_that_changes(
    embedder: MirrorEmbedder, faces: ArrayFaces, answer: Callable[[Tensor], Tensor], said: str
) -> None:
    with pytest.raises(SteadfaceError, match=said):
        train_generator(MirrorEmbedder(Turning(embedder.backbone, answer), mirror=False), faces, options(steps=6))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": 2}, "batch is 2"),
        ({"batch": 7}, "batch is 7"),
        ({"steps": 0}, "steps 0"),
        ({"width": 0}, "width 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 1844"),
        ({"rate": float("nan")}, "rate nan"),
        ({"ball": ball("l2", 0)}, "eps 0"),
    ],
)
def test_senseless_options_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SteadfaceError, match=said):
        options(**changes)
