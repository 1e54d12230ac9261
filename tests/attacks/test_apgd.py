import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from steadface.attacks import ball
from steadface.attacks.apgd import APGD, _Path, checkpoints

from .table import Hills


def test_checkpoints_are_the_published_ones():
    assert checkpoints(100) == (0, 22, 41, 57, 70, 80, 87, 93, 99)  # the paper's, in per cent of the steps
    assert checkpoints(20) == (0, 5, 9, 12, 14, 16, 18, 19, 20)
    assert checkpoints(1) == (0, 1)


@pytest.mark.parametrize("steps", [3, 7, 50, 130, 1000])
def test_checkpoints_follow_the_recurrence(steps):
    p = [0.0, 0.22]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    assert checkpoints(steps) == tuple(sorted({math.ceil(round(q * steps, 9)) for q in p if q < 1 + 1e-9}))


def by_hand(score, x, *, radius, norm, steps):
    """Algorithm 1 for one sample (3, H, W), checkpoints before the step; all iterates' values, step sizes, the best."""

    def project(x_adv):
        delta = x_adv - x
        delta = (
            delta.clamp(-radius, radius) if norm == "linf" else delta * min(1.0, radius / float(delta.norm() + 1e-99))
        )
        return (x + delta).clamp(0, 1)

    def evaluate(x_adv):
        x_adv = x_adv.clone().requires_grad_(True)
        value = score(x_adv[None])[0]
        (gradient,) = torch.autograd.grad(value, x_adv)
        return float(value.detach()), gradient

    w = checkpoints(steps)
    xs, fs = [x], [evaluate(x)[0]]
    f_max, x_max = fs[0], x
    eta = 2 * radius
    etas, maxima_at_checkpoints, eta_at_checkpoints, rises = [], [f_max], [eta], []
    for k in range(steps):
        if k in w[1:]:
            window = k - w[w.index(k) - 1]
            first = sum(rises[-window:]) < 0.75 * window
            second = eta_at_checkpoints[-1] == eta and maxima_at_checkpoints[-1] == f_max
            eta_at_checkpoints.append(eta)
            maxima_at_checkpoints.append(f_max)
            if first or second:
                eta, xs[-1], fs[-1] = eta / 2, x_max, f_max
        gradient = evaluate(xs[-1])[1]
        z = project(xs[-1] + eta * (gradient.sign() if norm == "linf" else gradient / gradient.norm()))
        x_next = z if k == 0 else project(xs[-1] + 0.75 * (z - xs[-1]) + 0.25 * (xs[-1] - xs[-2]))
        value = evaluate(x_next)[0]
        rises.append(value > fs[-1])
        if value > f_max:
            f_max, x_max = value, x_next
        xs.append(x_next)
        fs.append(value)
        etas.append(eta)
    return f_max, x_max, etas


@dataclass(frozen=True)
class Rugged:
    """Every pixel has its own hills, and they are coupled: no two iterates score alike but for rounding."""

    waves: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        return (self.waves * images).sin().sum(dim=(1, 2, 3)) + (self.waves * images).sum(dim=(1, 2, 3)).sin()

    def take(self, indices: Tensor) -> "Rugged":
        return Rugged(self.waves[indices])

    def succeeded(self, values: Tensor) -> Tensor:
        return torch.zeros_like(values, dtype=torch.bool)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [4, 25])
def test_it_is_the_published_algorithm(norm, steps, images, seeded):
    waves = 25 * torch.rand(images.shape, generator=seeded(1), dtype=torch.float64)
    images, attack = images.double(), APGD(ball=ball(norm, 0.1), steps=steps, random_start=False)
    x_adv = attack(Rugged(waves), images, generator=seeded(2))
    halvings = []
    for row, image in enumerate(images):
        value, expected, etas = by_hand(Rugged(waves[row : row + 1]), image, radius=0.1, norm=norm, steps=steps)
        assert torch.allclose(x_adv[row], expected, rtol=0, atol=1e-9)
        assert float(Rugged(waves)(x_adv)[row]) == pytest.approx(value, abs=1e-9)
        halvings.append(round(math.log2(etas[0] / etas[-1])))
    if steps == 25:  # else the schedule was not tried: some samples halve, and not all alike
        assert max(halvings) >= 2
        assert norm == "l2" or len(set(halvings)) > 1


@pytest.mark.parametrize(
    ("rises", "improved", "halved", "halves"),
    [
        (8, True, False, False),  # at least 7.5 of 10 steps rose, to a new best: go on
        (7, True, False, True),  # condition 1
        (9, False, False, True),  # condition 2: neither the step nor the best has changed
        (9, False, True, False),  # the step has: it is given another window
    ],
)
def test_either_condition_halves_the_step_and_goes_back_to_the_best(rises, improved, halved, halves):
    x, best, gradients = torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2), torch.rand(2, 1, 3, 2, 2)
    flags = torch.tensor([rises]), torch.tensor([improved]), torch.tensor([halved])
    path = _Path(x, x, torch.tensor([0.1]), gradients[0], torch.tensor([0.4]), gradients[1], *flags)
    judged = path.judged(10, best, torch.tensor([0.3]))
    assert torch.equal(judged.x, best if halves else x)
    assert torch.equal(judged.gradient, gradients[1 if halves else 0])
    assert judged.step.tolist() == pytest.approx([0.2 if halves else 0.4])
    assert judged.values.tolist() == pytest.approx([0.3 if halves else 0.1])
    assert judged.halved.tolist() == [halves]
    assert (judged.rises.tolist(), judged.improved.tolist()) == ([0], [False])  # a new window


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_reaches_the_optimum_of_a_linear_score(norm, grey_images, linear_score, seeded):
    images = grey_images.double()
    weights = torch.randn(images.shape, generator=seeded(3), dtype=torch.float64)
    x_adv = APGD(ball=ball(norm, 0.1), steps=50)(linear_score(weights), images, generator=seeded(4))
    unit = weights.sign() if norm == "linf" else weights / weights.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    optimum = (weights * unit).sum(dim=(1, 2, 3)) * 0.1
    gained = (weights * (x_adv - images)).sum(dim=(1, 2, 3))
    assert torch.allclose(gained, optimum, rtol=1e-5)


def test_more_restarts_are_never_worse(images, seeded):
    score = Hills(4 * torch.randn(images.shape, generator=seeded(5), dtype=torch.float64))
    values = [
        score.silently(APGD(ball=ball("l2", 0.1), steps=4, restarts=n)(score, images.double(), generator=seeded(6)))
        for n in (1, 6)
    ]
    assert bool((values[1] >= values[0]).all())
    assert bool((values[1] > values[0]).any())


def test_impossible_options_are_refused():
    for options in ({"steps": 0}, {"restarts": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            APGD(ball=ball("linf", 0.1), **options)


def test_samples_may_succeed_at_any_step_and_the_last_one_too(images, seeded):
    frequencies = 4 * torch.randn(images.shape, generator=seeded(7), dtype=torch.float64)
    for steps in range(1, 12):
        attack = APGD(ball=ball("l2", 0.2), steps=steps)
        free = Hills(frequencies)
        reached = free.silently(attack(free, images.double(), generator=seeded(8)))
        enough = torch.where(torch.arange(len(images)) % 2 == 0, reached, torch.inf)  # some just before the end
        ended = Hills(frequencies, enough)
        assert torch.allclose(ended.silently(attack(ended, images.double(), generator=seeded(8))), reached)
