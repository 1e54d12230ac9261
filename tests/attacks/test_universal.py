import pytest
import torch

from steadface.attacks import ball, dodge
from steadface.attacks.universal import FixedPerturbation, Universal

from ..rounding import rounding


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_is_the_optimum_of_one_linear_score_for_all(norm, grey_images, linear_score, seeded):
    weights = torch.randn(1, *grey_images.shape[1:], generator=seeded(1)).expand_as(grey_images)
    attack = Universal(ball=ball(norm, 0.1), epochs=20, batch_size=4)
    trained = attack.train(linear_score(weights), grey_images, generator=seeded(2))
    assert trained.delta.shape == (1, *grey_images.shape[1:])
    unit = weights[:1].sign() if norm == "linf" else weights[:1] / weights[0].norm()
    assert torch.allclose(trained.delta, 0.1 * unit, rtol=0, atol=1e-4)


def test_where_images_pull_apart_it_follows_the_greater_pull(grey_images, linear_score, seeded):
    weights = torch.ones_like(grey_images)
    weights[:2] = -1  # two of six
    attack = Universal(ball=ball("linf", 0.1), epochs=8, batch_size=6)
    trained = attack.train(linear_score(weights), grey_images, generator=seeded(3))
    assert torch.allclose(trained.delta, torch.full_like(trained.delta, 0.1))


def test_images_already_carried_over_pull_no_more(grey_images, linear_score, seeded):
    weights = torch.ones_like(grey_images)
    weights[:2] = -1
    clean = linear_score(weights)(grey_images)
    enough = torch.where(torch.arange(6) < 2, clean + 1.0, clean - 9.0)  # four have succeeded as they are
    attack = Universal(ball=ball("linf", 0.1), epochs=8, batch_size=6)
    x_adv = attack(linear_score(weights, enough), grey_images, generator=seeded(4))
    score = linear_score(weights, enough)
    assert bool(score.succeeded(score(x_adv))[:2].all())


def test_the_best_of_all_epochs_is_kept_and_no_perturbation_is_among_them(grey_images, seeded):
    class Valley:
        """Every perturbation is worse than none, though the gradient says otherwise."""

        def __init__(self, rows):
            self.rows = rows

        def __call__(self, images):
            delta = images - grey_images[self.rows]
            return -delta.detach().abs().sum(dim=(1, 2, 3)) + (delta - delta.detach()).sum(dim=(1, 2, 3))

        def take(self, indices):
            return Valley(self.rows[indices])

        def succeeded(self, values):
            return torch.zeros_like(values, dtype=torch.bool)

    trained = Universal(ball=ball("linf", 0.1)).train(Valley(torch.arange(6)), grey_images, generator=seeded(5))
    assert not trained.delta.any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_carries_over_to_faces_it_was_not_trained_on(norm, network, faces, seeded):
    with torch.no_grad():
        own = network(faces.flip(3))
    around = ball(norm, 0.04 if norm == "linf" else 2.0)
    score = dodge(network, own)
    seen, unseen = torch.arange(5), torch.arange(5, 8)
    trained = Universal(ball=around, epochs=15, batch_size=5).train(score.take(seen), faces[seen], generator=seeded(6))
    x_adv = trained(score.take(unseen), faces[unseen], generator=seeded(7))
    noise = around.sample(faces[unseen], seeded(8))
    with torch.no_grad():
        clean, by_noise, after = (score.take(unseen)(x) for x in (faces[unseen], noise, x_adv))
    assert float((after - clean).mean()) > 0.01
    assert float((after - by_noise).mean()) > 0.01


def test_a_fixed_perturbation_is_shortened_to_its_ball(images, linear_score, seeded):
    delta = 0.2 * torch.randn(1, *images.shape[1:], generator=seeded(9)).sign()
    fixed = FixedPerturbation(ball=ball("linf", 0.2), delta=delta).within(ball("linf", 0.05))
    x_adv = fixed(linear_score(images), images, generator=seeded(10))
    assert torch.allclose(x_adv, (images + delta / 4).clamp(0, 1), atol=rounding(2))


def test_impossible_options_are_refused():
    for options in ({"epochs": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            Universal(ball=ball("linf", 0.1), **options)
