import pytest
import torch

from steadface.attacks import PGD, ball
from steadface.attacks.mifgsm import MIFGSM

from .table import Hills


def by_hand(score, x, *, radius, norm, steps, decay):
    """One sample (3, H, W) at a time, as printed in the paper; all iterates."""
    iterates, momentum = [x.clone()], torch.zeros_like(x)
    for _ in range(steps):
        x_adv = iterates[-1].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(score(x_adv[None])[0], x_adv)
        momentum = decay * momentum + gradient / gradient.abs().sum()
        direction = momentum.sign() if norm == "linf" else momentum / momentum.norm()
        delta = iterates[-1] + radius / steps * direction - x
        delta = delta.clamp(-radius, radius) if norm == "linf" else delta * min(1.0, radius / float(delta.norm()))
        iterates.append((x + delta).clamp(0, 1))
    return iterates


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])  # by 1, gradients of `Hills` that turn cancel but for rounding
def test_it_is_the_published_path(norm, decay, images, seeded):
    frequencies = 3 * torch.randn(images.shape, generator=seeded(1), dtype=torch.float64)
    attack = MIFGSM(ball=ball(norm, 0.2), steps=6, decay=decay, keep_best=False)
    x_adv = attack(Hills(frequencies), images.double(), generator=seeded(2))
    for row, image in enumerate(images.double()):
        path = by_hand(Hills(frequencies[row : row + 1]), image, radius=0.2, norm=norm, steps=6, decay=decay)
        assert torch.allclose(x_adv[row], path[-1], rtol=0, atol=1e-9)


def test_without_momentum_it_is_the_basic_iterative_method(images, seeded):
    score = Hills(3 * torch.randn(images.shape, generator=seeded(1), dtype=torch.float64))
    plain = MIFGSM(ball=ball("linf", 0.2), steps=5, decay=0)(score, images.double(), generator=seeded(2))
    basic = PGD(ball=ball("linf", 0.2), steps=5, step=0.04, random_start=False)
    assert torch.equal(plain, basic(score, images.double(), generator=seeded(2)))


def test_momentum_outlives_a_gradient_that_turns(seeded):
    class Turning:
        """Pulls up with gradient 1 at first, then down with 0.3: only momentum goes on upwards."""

        calls = 0

        def __call__(self, images):
            self.calls += 1
            return images[:, 0, 0, 0] * (1.0 if self.calls == 1 else -0.3)

        def take(self, indices):
            assert len(indices) == 1
            return self

        def succeeded(self, values):
            return torch.zeros_like(values, dtype=torch.bool)

    x = torch.full((1, 3, 1, 1), 0.5)
    ends = [
        float(
            MIFGSM(ball=ball("linf", 0.2), steps=2, decay=decay, keep_best=False)(Turning(), x, generator=seeded(1))[
                0, 0, 0, 0
            ]
        )
        for decay in (0.0, 2.0)
    ]
    assert ends == pytest.approx([0.5, 0.7])


def test_impossible_options_are_refused():
    for options in ({"steps": 0}, {"decay": -0.1}):
        with pytest.raises(ValueError, match="at least"):
            MIFGSM(ball=ball("linf", 0.1), **options)
