"""The score of a smoothed verifier, and noise to train on."""

import pytest
import torch

from steadface.attacks import L2, GaussianNoise, Smoothed, score_and_gradient
from steadface.attacks.goals import CosineScore


class Bent:
    """exp of a line: the median of it under noise is exp of the line, and the mean of its gradient larger."""

    def __init__(self, way, rows=None):
        self.way, self.rows = way, rows

    def __call__(self, images):
        return ((images * self.way).flatten(1).sum(1)).exp()

    def take(self, indices):
        return Bent(self.way if len(self.way) == 1 else self.way[indices], indices)

    def succeeded(self, values):
        return values >= 1


def test_its_value_is_the_median_and_its_gradient_that_of_the_mean(seeded):
    way = torch.full((1, 3, 4, 4), 0.2)
    images = torch.linspace(-0.1, 0.1, 2).view(2, 1, 1, 1).expand(2, 3, 4, 4).contiguous()
    score = Smoothed(score=Bent(way), sigma=0.5, draws=4000, generator=seeded(3))
    values, gradient = score_and_gradient(score, images)
    spread = 0.5 * float(way.norm())
    assert values.tolist() == pytest.approx(Bent(way)(images).tolist(), rel=0.05)
    mean = Bent(way)(images) * torch.tensor(spread**2 / 2).exp()
    assert torch.allclose(gradient, mean.view(2, 1, 1, 1) * way, rtol=0.1)
    assert score.succeeded(values).tolist() == [False, True]


def test_it_takes_rows_of_the_score_inside(seeded):
    anchors = torch.eye(3)[:2]
    inside = CosineScore(embed=lambda images: images.flatten(1)[:, :3], anchors=anchors, signs=torch.ones(2))
    images = torch.stack([torch.ones(3, 4, 4), torch.ones(3, 4, 4)])
    images[0, 0, 0, 0] = images[1, 0, 0, 1] = 9
    score = Smoothed(score=inside, sigma=1e-6, draws=3, generator=seeded(1))
    assert torch.allclose(score(images), inside(images), atol=1e-4)
    assert torch.allclose(score.take(torch.tensor([1]))(images[1:]), inside(images)[1:], atol=1e-4)


def test_noise_has_its_deviation_and_is_not_clipped(seeded):
    images = torch.zeros(4, 3, 32, 32)
    noise = GaussianNoise(ball=L2(0.25))
    made = noise(None, images, generator=seeded(1))
    assert float(made.std()) == pytest.approx(0.25, rel=0.03)
    assert made.min() < 0
    assert torch.equal(noise(None, images, generator=seeded(1)), made)
    blurred = GaussianNoise(ball=L2(0.25), blur=1.0)(None, torch.ones_like(images), generator=seeded(1))
    assert float(blurred.mean()) == pytest.approx(1, abs=0.01)
    assert float(blurred.std()) == pytest.approx(0.25 / (4 * torch.pi) ** 0.5, rel=0.1)
    assert torch.allclose(noise.within(L2(0.5))(None, images, generator=seeded(1)), 2 * made)
