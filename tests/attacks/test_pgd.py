import itertools
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from steadface.attacks import PGD, ball, dodge, impersonate, score_and_gradient

from ..rounding import rounding


@dataclass
class Waves:
    """A score with many hills, which overshooting steps climb and lose again; remembers every value it gave."""

    frequencies: Tensor
    enough: float | None = None
    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, images: Tensor) -> Tensor:
        values = (self.frequencies * images).sum(dim=(1, 2, 3)).sin()
        self.seen.append(values.detach())
        return values

    def take(self, indices: Tensor) -> "Waves":
        return Waves(self.frequencies[indices], self.enough, self.seen)

    def succeeded(self, values: Tensor) -> Tensor:
        return torch.zeros_like(values, dtype=torch.bool) if self.enough is None else values >= self.enough

    def silently(self, images: Tensor) -> Tensor:
        return (self.frequencies * images).sum(dim=(1, 2, 3)).sin()


@pytest.fixture
def waves(images, seeded):
    frequencies = 3 * torch.randn(images.shape, generator=seeded(1), dtype=torch.float64)
    return lambda enough=None: Waves(frequencies, enough)


@pytest.mark.parametrize("keep_best", [True, False])
def test_linf_reaches_the_optimum_of_a_linear_score(images, linear_score, seeded, keep_best):
    weights = torch.randn(images.shape, generator=seeded(2))
    attack = PGD(ball=ball("linf", 0.1), steps=10, keep_best=keep_best)
    x_adv = attack(linear_score(weights), images, generator=seeded(3))
    # Each pixel goes to the end of its interval, which the range cuts short.
    assert torch.allclose(x_adv, (images + 0.1 * weights.sign()).clamp(0, 1), rtol=0, atol=rounding(2))


@pytest.mark.parametrize("random_start", [True, False])
def test_l2_reaches_the_optimum_of_a_linear_score(grey_images, linear_score, seeded, random_start):
    grey_images = grey_images.double()
    weights = torch.randn(grey_images.shape, generator=seeded(2), dtype=torch.float64)
    attack = PGD(ball=ball("l2", 0.1), steps=100, step=0.02, random_start=random_start)
    x_adv = attack(linear_score(weights), grey_images, generator=seeded(3))
    unit = weights / weights.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(x_adv, grey_images + 0.1 * unit, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_budget_and_range_are_kept(images, linear_score, seeded, norm):
    for radius in (1 / 255, 4 / 255, 0.5):
        weights = torch.randn(images.shape, generator=seeded(4))
        x_adv = PGD(ball=ball(norm, radius), steps=5)(linear_score(weights), images, generator=seeded(5))
        delta = (x_adv.double() - images.double()).flatten(1)
        size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert float(size.max()) <= radius + 1e-6
        assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1


def test_the_best_iterate_is_kept(images, waves, seeded):
    score = waves()
    attack = PGD(ball=ball("linf", 0.2), steps=7, restarts=3)
    x_adv = attack(score, images.double(), generator=seeded(6))
    visited = torch.stack(score.seen)
    assert len(visited) == 3 * (7 + 1)
    assert torch.allclose(score.silently(x_adv), visited.amax(dim=0))
    assert bool((visited[-1] < visited.amax(dim=0)).any())  # the last iterate was not the best everywhere


def test_the_last_iterate_is_returned_without_keeping_the_best(images, waves, seeded):
    attack = PGD(ball=ball("linf", 0.2), steps=7, keep_best=False)
    score, longer = waves(), waves()
    x_adv = attack(score, images.double(), generator=seeded(6))
    assert len(score.seen) == 7  # and no forward pass is spent on scoring it
    PGD(ball=ball("linf", 0.2), steps=7)(longer, images.double(), generator=seeded(6))
    assert torch.equal(score.silently(x_adv), longer.seen[7])


def test_more_restarts_are_never_worse(images, waves, seeded):
    score, values = waves(), []
    for restarts in (1, 2, 4, 8):
        attack = PGD(ball=ball("l2", 0.3), steps=3, restarts=restarts)
        values.append(score.silently(attack(score, images.double(), generator=seeded(7))))
    for fewer, more in itertools.pairwise(values):
        assert bool((more >= fewer).all())
    assert bool((values[-1] > values[0]).any())


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("random_start", [True, False])
def test_leaving_out_samples_that_succeeded_changes_no_outcome(images, waves, seeded, norm, random_start):
    attack = PGD(ball=ball(norm, 0.1), steps=4, restarts=3, random_start=random_start)
    whole, cut = waves(), waves(0.995)
    all_the_way = whole.silently(attack(whole, images.double(), generator=seeded(8)))
    stopped = cut.silently(attack(cut, images.double(), generator=seeded(8)))
    won = all_the_way >= 0.995
    assert torch.equal(stopped >= 0.995, won)
    assert torch.allclose(stopped[~won], all_the_way[~won])
    assert bool(won.any())
    assert not bool(won.all())
    assert sum(map(len, cut.seen)) < sum(map(len, whole.seen))


def test_nothing_is_computed_once_all_have_succeeded(images, waves, seeded):
    score = waves(-1.0)
    PGD(ball=ball("linf", 0.1), steps=5, restarts=4)(score, images.double(), generator=seeded(9))
    assert len(score.seen) == 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_goal_moves_the_cosine_its_way(network, faces, seeded, norm):
    radius = 0.02 if norm == "linf" else 1.0
    with torch.no_grad():
        own = network(faces)
    other = own.roll(1, dims=0)
    attack = PGD(ball=ball(norm, radius), steps=5)
    noise = attack.ball.sample(faces, seeded(10))
    for goal, references in ((dodge, own), (impersonate, other)):
        score = goal(network, references)
        x_adv = attack(score, faces, generator=seeded(11))
        cos_clean, cos_noise, cos_adv = (
            torch.cosine_similarity(network(x).detach(), references) for x in (faces, noise, x_adv)
        )
        way = -1 if goal is dodge else 1
        assert bool((way * (cos_adv - cos_clean) > 0.01).all())
        assert bool((way * (cos_adv - cos_noise) > 0.01).all())


def test_a_start_at_the_source_cannot_dodge_it(network, faces, seeded):
    """Why training starts from noise: the gradient of cos(z_a, z_s) vanishes at z_a = z_s."""
    embed, x = network.double(), faces.double()
    try:
        own = embed(x).detach()
        _, gradient = score_and_gradient(dodge(embed, own), x)
        start = ball("linf", 0.02).sample(x, seeded(12))
        _, noisy = score_and_gradient(dodge(embed, own), start)
    finally:
        network.float()
    assert float(gradient.abs().max()) < 1e-9 * float(noisy.abs().max())


def test_impossible_options_are_refused():
    for options in ({"steps": 0}, {"restarts": 0}, {"restarts": 2, "keep_best": False}):
        with pytest.raises(ValueError, match=r"at least 1|keep_best"):
            PGD(ball=ball("linf", 0.1), **options)


def test_within_another_ball_everything_else_stays():
    attack = PGD(ball=ball("linf", 0.1), steps=7, step=0.01, keep_best=False)
    assert attack.within(ball("l2", 1.0)) == PGD(ball=ball("l2", 1.0), steps=7, step=0.01, keep_best=False)
