import pytest
import torch

from steadface.attacks import ball
from steadface.attacks.fgsm import FGSM


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_step_is_the_optimum_of_a_linear_score(norm, grey_images, linear_score, seeded):
    weights = torch.randn(grey_images.shape, generator=seeded(1))
    x_adv = FGSM(ball=ball(norm, 0.1))(linear_score(weights), grey_images, generator=seeded(2))
    unit = weights.sign() if norm == "linf" else weights / weights.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(x_adv, grey_images + 0.1 * unit, rtol=0, atol=1e-6)


def test_an_image_that_a_step_would_worsen_is_left_as_it_was(grey_images, seeded):
    class Peak:
        """Falls off on both sides of a hill that is narrower than a step."""

        def __call__(self, images):
            return -(images - grey_images - 0.01).square().sum(dim=(1, 2, 3))

        def take(self, indices):
            assert len(indices) == len(grey_images)
            return self

        def succeeded(self, values):
            return torch.zeros_like(values, dtype=torch.bool)

    assert torch.equal(FGSM(ball=ball("linf", 0.1))(Peak(), grey_images, generator=seeded(1)), grey_images)
    nearer = FGSM(ball=ball("linf", 0.01))(Peak(), grey_images, generator=seeded(1))
    assert torch.allclose(nearer, grey_images + 0.01)
