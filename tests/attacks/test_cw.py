import pytest
import torch

from steadface.attacks import ball
from steadface.attacks.cw import CarliniWagnerL2, _objective

from .table import Hills


def test_the_gradient_is_that_of_the_published_objective(images, seeded):
    """Hinge written out with its threshold, by autograd, on both of its sides."""
    x = images.double()
    score = Hills(torch.randn(x.shape, generator=seeded(1), dtype=torch.float64), torch.linspace(-1, 1, 6).double())
    w = torch.randn(x.shape, generator=seeded(2), dtype=torch.float64, requires_grad=True)
    constant = torch.linspace(0.1, 5, 6, dtype=torch.float64)
    x_adv = (w.tanh() + 1) / 2
    hinge = (score.enough - score.silently(x_adv)).clamp_min(0)
    assert 0 < int((hinge > 0).sum()) < 6
    loss = (x_adv - x).square().sum(dim=(1, 2, 3)) + constant * hinge
    (expected,) = torch.autograd.grad(loss.sum(), w)
    _, values, gradient = _objective(score, w, x, constant)
    assert torch.allclose(gradient, expected)
    assert torch.allclose(values, score.silently(x_adv))


def test_adam_steps_are_those_of_torch(grey_images, seeded):
    x = grey_images.double()
    score = Hills(torch.randn(x.shape, generator=seeded(3), dtype=torch.float64), torch.full((6,), 2.0).double())
    attack = CarliniWagnerL2(ball=ball("l2", 50.0), searches=1, steps=12, rate=0.03, constant=2.0)
    attack(score, x, generator=seeded(4))
    w = torch.atanh((2 * x - 1) * (1 - 1e-6)).requires_grad_(True)
    optimizer, visited = torch.optim.Adam([w], lr=0.03), []
    for _ in range(12):
        x_adv = (w.tanh() + 1) / 2
        values = score.silently(x_adv)
        visited.append(values.detach())
        optimizer.zero_grad()
        ((x_adv - x).square().sum() + 2.0 * (2.0 - values).sum()).backward()
        optimizer.step()
    seen = [values for _, values in score.seen[1:13]]  # after the sources and before the projected end
    assert torch.allclose(torch.stack(seen), torch.stack(visited), rtol=0, atol=1e-7)


def test_the_constant_is_searched_for_each_sample(grey_images, linear_score, seeded):
    """Far too small a constant is raised until the goal is reached; far too large a one costs distance no more."""
    x = grey_images.double()
    weights = torch.randn(x.shape, generator=seeded(5), dtype=torch.float64)
    norm = weights.flatten(1).norm(dim=1)
    score = linear_score(weights, linear_score(weights)(x) + 0.3 * norm)
    found = [
        CarliniWagnerL2(ball=ball("l2", 1.0), searches=7, steps=100, constant=constant).closest(
            score, x, generator=seeded(6)
        )
        for constant in (1e-2, 1e2)
    ]
    for closest in found:
        assert not closest.censored.any()
        assert torch.allclose(closest.distance, torch.full((6,), 0.3, dtype=torch.float64), rtol=0.05)


def test_it_refuses_the_other_norm_and_rates_that_are_none():
    with pytest.raises(ValueError, match="linf"):
        CarliniWagnerL2(ball=ball("linf", 0.1))
    with pytest.raises(ValueError, match="positive"):
        CarliniWagnerL2(ball=ball("l2", 0.1), rate=0.0)
