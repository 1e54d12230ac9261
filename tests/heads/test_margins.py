"""The margins against their formulas in the angle, on and beyond the domain where those are usable."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from steadface.heads.margins import TANGENT_ANGLE, adaface, angular_margin, arcface, cosface, margin_chance_loss

LABELS = torch.tensor([0, 2, 1])


def cosines_away_from_the_ends() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    cosines = torch.rand(3, 4, generator=generator, dtype=torch.float64) * 1.6 - 0.8
    return cosines.requires_grad_()


@pytest.mark.parametrize(
    "logits",
    [
        lambda c: arcface(c, LABELS, s=4.0, m=0.5),
        lambda c: cosface(c, LABELS, s=4.0, m=0.35),
        lambda c: adaface(c, LABELS, torch.tensor([-0.9, 0.1, 0.8], dtype=torch.float64), s=4.0, m=0.4),
    ],
    ids=["arcface", "cosface", "adaface"],
)
def test_gradients_are_those_of_finite_differences(logits: Callable[[Tensor], Tensor]) -> None:
    assert torch.autograd.gradcheck(logits, cosines_away_from_the_ends())


def reference(cosine: float, angle: float) -> float:
    """psi by the angle itself, one number at a time, with the stated continuation outside (0, pi)."""
    theta = math.acos(cosine)
    if theta + angle > math.pi:
        return -1 + (cosine - math.cos(math.pi - angle))
    if theta + angle < 0:
        return 1 + (cosine - math.cos(-angle))
    return math.cos(theta + angle)


@pytest.mark.parametrize("angle", [0.5, 0.1, 0.0, -0.2, -0.4, 1.2])
def test_value_is_the_cosine_of_the_sum_of_angles(angle: float) -> None:
    cosines = torch.linspace(-1, 1, 401, dtype=torch.float64)[1:-1]
    psi = angular_margin(cosines, torch.full_like(cosines, angle))
    expected = torch.tensor([reference(c, angle) for c in cosines.tolist()], dtype=torch.float64)
    torch.testing.assert_close(psi, expected, rtol=0, atol=1e-12)


def test_target_gradient_is_exact_where_insightface_has_one() -> None:
    """InsightFace takes arccos, adds m and takes cos inside no_grad: right in value, but its gradient is 1.

    The truth is d psi / d cos = sin(theta + m) / sin(theta), 2.5 times as much at 0.3 radians.
    """
    m, step = 0.5, 1e-6
    theta = torch.tensor([0.3, 0.8, 1.5, 2.3], dtype=torch.float64)
    cosines = torch.cos(theta).requires_grad_()

    psi = angular_margin(cosines, torch.full_like(cosines, m))
    (exact,) = torch.autograd.grad(psi.sum(), cosines)
    shortcut = cosines * 1.0
    with torch.no_grad():
        shortcut.copy_(torch.cos(torch.arccos(shortcut) + m))
    (wrong,) = torch.autograd.grad(shortcut.sum(), cosines)

    def value(c: Tensor) -> Tensor:
        return torch.cos(torch.arccos(c) + m)

    slope = (value(cosines.detach() + step) - value(cosines.detach() - step)) / (2 * step)
    torch.testing.assert_close(psi, shortcut)
    torch.testing.assert_close(exact, torch.sin(theta + m) / torch.sin(theta))
    torch.testing.assert_close(exact, slope, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(wrong, torch.ones_like(wrong))
    assert wrong[0] / slope[0] < 0.45
    assert wrong[-1] / slope[-1] > 2


@pytest.mark.parametrize("angle", [0.5, 0.05, -0.4, -0.05])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_continuation_is_continuous_and_increasing(angle: float, dtype: torch.dtype) -> None:
    """No step of a fine grid is downward or larger than the slope allows, up to both ends and their rounding."""
    ends = 1 - torch.linspace(0, 2e-6, 21, dtype=torch.float64)
    joint = math.copysign(math.cos(angle), -angle) + torch.linspace(-1e-4, 1e-4, 41, dtype=torch.float64)
    grid = torch.cat([torch.linspace(-1, 1, 20001, dtype=torch.float64), ends, -ends, joint])
    cosines = grid.clamp(-1, 1).to(dtype).unique()
    psi = angular_margin(cosines, torch.full_like(cosines, angle))
    rises, steps = psi.diff(), cosines.diff()
    rounding = 4 * torch.finfo(dtype).eps
    steepest = 1 + abs(math.sin(angle)) / TANGENT_ANGLE
    # Near theta = 0 the exact curve falls like a square root, which over one step of the grid is steeper than anything.
    largest = torch.minimum(steepest * steps, torch.sqrt(2 * steps) + 2 * steps)
    assert (rises > -rounding).all()
    assert (rises < largest + rounding).all()
    if dtype == torch.float64:
        assert (rises > 0).all()


def test_continuation_past_pi_is_continuous_where_the_authors_jumps() -> None:
    m, step = 0.5, 1e-9
    joint = torch.tensor([-math.cos(m) - step, -math.cos(m) + step], dtype=torch.float64)
    past, before = angular_margin(joint, torch.full_like(joint, m)).tolist()
    authors = joint[0].item() - m * math.sin(m)
    assert before - past < 1e-8
    assert before == pytest.approx(-1, abs=1e-8)
    assert before - authors == pytest.approx(0.1173, abs=1e-4)


@pytest.mark.parametrize("angle", [0.5, 0.0, -0.4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_stay_finite_at_cosine_one(angle: float, dtype: torch.dtype) -> None:
    """Also a rounding error beyond it, as a product of normalised vectors can come out."""
    cosines = torch.tensor([1.0, -1.0, 1 + 1e-6, -1 - 1e-6], dtype=dtype, requires_grad=True)
    psi = angular_margin(cosines, torch.full_like(cosines, angle))
    (gradient,) = torch.autograd.grad(psi.sum(), cosines)
    assert psi.isfinite().all()
    assert gradient.isfinite().all()
    assert (gradient > 0).all()
    assert (gradient <= 1 + abs(math.sin(angle)) / TANGENT_ANGLE).all()


def test_tangent_is_low_at_cosine_one_by_what_is_stated() -> None:
    m = 0.5
    at_one = angular_margin(torch.ones(1, dtype=torch.float64), torch.full((1,), m, dtype=torch.float64))
    assert math.cos(m) - at_one.item() == pytest.approx(math.sin(m) * TANGENT_ANGLE / 2, rel=1e-3)


def test_only_the_label_is_given_a_margin() -> None:
    cosines = cosines_away_from_the_ends().detach()
    others = torch.ones_like(cosines, dtype=torch.bool).scatter(1, LABELS[:, None], False)
    for logits in (
        arcface(cosines, LABELS, s=64.0, m=0.5),
        cosface(cosines, LABELS, s=64.0, m=0.35),
        adaface(cosines, LABELS, torch.zeros(3, dtype=torch.float64), s=64.0, m=0.4),
    ):
        torch.testing.assert_close(logits[others], 64.0 * cosines[others])
        assert (logits[~others] < 64.0 * cosines[~others]).all()


def test_adaface_is_cosface_at_average_quality_and_arcface_at_the_lowest() -> None:
    cosines = cosines_away_from_the_ends().detach()
    average, lowest = torch.zeros(3, dtype=torch.float64), -torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(adaface(cosines, LABELS, average, s=8.0, m=0.4), cosface(cosines, LABELS, s=8.0, m=0.4))
    torch.testing.assert_close(adaface(cosines, LABELS, lowest, s=8.0, m=0.4), arcface(cosines, LABELS, s=8.0, m=0.4))


def test_margins_compute_in_float32_at_least() -> None:
    cosines = cosines_away_from_the_ends().detach()
    assert arcface(cosines.bfloat16(), LABELS, s=64.0, m=0.5).dtype == torch.float32
    assert arcface(cosines, LABELS, s=64.0, m=0.5).dtype == torch.float64


@pytest.mark.parametrize(("classes", "target"), [(2, 0.0), (10, -30.7), (85742, -32.0), (10**6, 5.0), (3, -2000.0)])
def test_chance_loss_is_the_cross_entropy_and_does_not_overflow(classes: int, target: float) -> None:
    logits = torch.zeros(1, classes, dtype=torch.float64)
    logits[0, 0] = target
    entropy = torch.nn.functional.cross_entropy(logits, torch.tensor([0])).item()
    assert margin_chance_loss(classes, target=target) == pytest.approx(entropy, rel=1e-9)
