import pytest
import torch

from steadface.attacks import NFGSM, ball, dodge, impersonate

from ..rounding import rounding


def test_linf_without_noise_reaches_the_optimum_of_a_linear_score(images, linear_score, seeded):
    weights = torch.randn(images.shape, generator=seeded(1))
    x_adv = NFGSM(ball=ball("linf", 0.1), noise=0)(linear_score(weights), images, generator=seeded(2))
    assert torch.allclose(x_adv, (images + 0.1 * weights.sign()).clamp(0, 1), rtol=0, atol=rounding(2))


def test_l2_without_noise_reaches_the_optimum_of_a_linear_score(grey_images, linear_score, seeded):
    weights = torch.randn(grey_images.shape, generator=seeded(1))
    x_adv = NFGSM(ball=ball("l2", 0.1), noise=0)(linear_score(weights), grey_images, generator=seeded(2))
    unit = weights / weights.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(x_adv, grey_images + 0.1 * unit, rtol=0, atol=1e-6)


def test_a_step_that_outweighs_the_noise_reaches_it_from_anywhere(images, linear_score, seeded):
    weights = torch.randn(images.shape, generator=seeded(1))
    attack = NFGSM(ball=ball("linf", 0.1), noise=1, step=2)
    x_adv = attack(linear_score(weights), images, generator=seeded(2))
    assert torch.allclose(x_adv, (images + 0.1 * weights.sign()).clamp(0, 1), rtol=0, atol=rounding(2))


def test_it_is_the_published_step_projected(grey_images, linear_score, seeded):
    weights = torch.randn(grey_images.shape, generator=seeded(1))
    noise = 2 * torch.rand(grey_images.shape, generator=seeded(2)) - 1
    outside = grey_images + 2 * 0.02 * noise + 0.02 * weights.sign()
    paper = NFGSM(ball=ball("linf", 0.02), project=False)
    assert torch.allclose(paper(linear_score(weights), grey_images, generator=seeded(2)), outside, atol=1e-6)
    projected = grey_images + (outside - grey_images).clamp(-0.02, 0.02)
    ours = NFGSM(ball=ball("linf", 0.02))
    assert torch.allclose(ours(linear_score(weights), grey_images, generator=seeded(2)), projected, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("radius", [1 / 255, 4 / 255, 0.5])
def test_budget_and_range_are_kept(images, linear_score, seeded, norm, radius):
    weights = torch.randn(images.shape, generator=seeded(3))
    x_adv = NFGSM(ball=ball(norm, radius))(linear_score(weights), images, generator=seeded(4))
    delta = (x_adv.double() - images.double()).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert float(size.max()) <= radius + 1e-6
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_goal_moves_the_cosine_its_way(network, faces, seeded, norm):
    with torch.no_grad():
        own = network(faces)
    other = own.roll(1, dims=0)
    attack = NFGSM(ball=ball(norm, 0.01 if norm == "linf" else 0.4), noise=1)
    for goal, references, way in ((dodge, own, -1), (impersonate, other, 1)):
        x_adv = attack(goal(network, references), faces, generator=seeded(5))
        moved = torch.cosine_similarity(network(x_adv).detach(), references) - torch.cosine_similarity(own, references)
        assert bool((way * moved > 0).all())
        noise = attack.ball.sample(faces, seeded(5))
        by_noise = torch.cosine_similarity(network(noise).detach(), references) - torch.cosine_similarity(
            own, references
        )
        assert float((way * (moved - by_noise)).mean()) > 0.01


def test_within_another_ball_everything_else_stays():
    attack = NFGSM(ball=ball("linf", 0.1), noise=1.5, step=0.7, project=False)
    assert attack.within(ball("l2", 1.0)) == NFGSM(ball=ball("l2", 1.0), noise=1.5, step=0.7, project=False)
