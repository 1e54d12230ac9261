import pytest
import torch

from steadface.attacks import PGD, ball, dodge, impersonate, score_and_gradient
from steadface.attacks.mifgsm import MIFGSM
from steadface.attacks.transfer import (
    Ensemble,
    Transformed,
    TransformedScore,
    Transforms,
    diversified,
    on_surrogates,
    smoothed,
)

from ..rounding import rounding


def small(images):
    return images.flatten(1)[:, ::3]


def large(images):
    return images.flatten(1) ** 2


@pytest.fixture
def references(images, seeded):
    return [torch.randn(len(images), size, generator=seeded(size)) for size in (20, 60)]


@pytest.mark.parametrize("goal", [dodge, impersonate])
def test_the_score_on_surrogates_is_the_mean_of_their_cosines(goal, images, references):
    score = on_surrogates(goal, [small, large], references)
    cosines = [torch.cosine_similarity(f(images), r) for f, r in zip((small, large), references, strict=True)]
    expected = sum(cosines) / 2 * (-1 if goal is dodge else 1)
    assert torch.allclose(score(images), expected, atol=rounding(60))
    rows = torch.tensor([3, 0])
    assert torch.allclose(score.take(rows)(images[rows]), expected[rows], atol=rounding(60))
    assert not score.succeeded(torch.ones(6)).any()


def test_an_ensemble_ends_where_it_is_told(references):
    scores = on_surrogates(dodge, [small, large], references).scores
    ended = Ensemble(scores=scores, enough=torch.linspace(0, 0.5, 6))
    assert ended.succeeded(torch.full((6,), 0.25)).tolist() == [True, True, True, False, False, False]
    assert torch.equal(ended.take(torch.tensor([5, 1])).enough, torch.linspace(0, 0.5, 6)[[5, 1]])
    with pytest.raises(ValueError, match="at least one"):
        Ensemble(scores=())


def test_crafting_on_surrogates_moves_each_of_them(images, references, seeded):
    score = on_surrogates(impersonate, [small, large], references)
    x_adv = MIFGSM(ball=ball("linf", 0.2))(score, images, generator=seeded(1))
    for embed, own in zip((small, large), references, strict=True):
        gain = torch.cosine_similarity(embed(x_adv), own) - torch.cosine_similarity(embed(images), own)
        assert float(gain.min()) > 0.05


def test_smoothing_is_a_convolution_with_the_published_gaussian(seeded):
    gradient = torch.randn(2, 3, 9, 8, generator=seeded(2), dtype=torch.float64)
    k, sigma = 2, 2 / 3**0.5
    line = [i - k for i in range(2 * k + 1)]
    kernel = torch.tensor([[2.718281828459045 ** (-(i * i + j * j) / (2 * sigma**2)) for j in line] for i in line])
    kernel = (kernel / kernel.sum()).double()
    padded = torch.nn.functional.pad(gradient, (k, k, k, k))
    expected = torch.zeros_like(gradient)
    for i in range(5):
        for j in range(5):
            expected += kernel[i, j] * padded[:, :, i : i + 9, j : j + 8]
    assert torch.allclose(smoothed(gradient, 5), expected, atol=rounding(25, float(gradient.abs().max())))
    assert torch.equal(smoothed(gradient, 1), gradient)


def test_diversity_shrinks_a_picture_and_puts_it_whole_into_the_frame():
    x = torch.ones(4, 3, 40, 40)
    # The share of pictures changed is the first draw's; then their size, and where they are put.
    draws = torch.tensor([[0.9, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.3], [0.0, 0.0, 1.0, 0.3]])
    moved = diversified(x, draws, Transforms(diversity=0.5, smallest=0.5))
    assert torch.equal(moved[0], x[0])
    assert torch.equal(moved[3], x[3])
    near, far = moved[1, 0], moved[2, 0]
    for picture, corner in ((near, (slice(1, 19), slice(1, 19))), (far, (slice(21, 39), slice(21, 39)))):
        assert torch.allclose(picture[corner], torch.ones(18, 18))
        assert float(picture.sum()) == pytest.approx(400, rel=0.02)  # a quarter of the area, and black elsewhere


def test_diversity_places_pictures_anywhere_inside(seeded):
    x = torch.ones(200, 3, 20, 20)
    draws = torch.rand(4, 200, generator=seeded(3))
    moved = diversified(x, draws, Transforms(diversity=1.0, smallest=0.5))
    area = moved[:, 0].sum(dim=(1, 2)) / 400
    scale = 0.5 + 0.5 * draws[1]
    assert torch.allclose(area, scale**2, atol=0.04)  # nothing is cut off but an edge's blur
    centre = (moved[:, 0].sum(1) * torch.arange(20.0)).sum(1) / moved[:, 0].sum(dim=(1, 2)) - 9.5
    assert torch.allclose(centre, (2 * draws[2] - 1) * (1 - scale) * 10, atol=0.3)


def wrapped(score, transforms, images, seed):
    return TransformedScore(
        score, transforms, torch.Generator().manual_seed(seed), len(images), torch.arange(len(images))
    )


def test_the_gradient_is_shaped_and_the_value_is_not(images, linear_score, seeded):
    weights = torch.randn(images.shape, generator=seeded(4))
    score = linear_score(weights)
    transforms = Transforms(diversity=0.0, smoothing=3, scales=3)
    values, gradient = score_and_gradient(wrapped(score, transforms, images, 5), images)
    assert torch.allclose(values, score(images), atol=rounding(60, linear_score(weights.abs())(images).max().item()))
    largest = float(weights.abs().max())
    assert torch.allclose(gradient, smoothed(weights * (1 + 1 / 2 + 1 / 4) / 3, 3), atol=rounding(9, largest))


def test_without_transforms_the_gradient_is_the_scores_own(images, linear_score, seeded):
    weights = torch.randn(images.shape, generator=seeded(6))
    plain = Transforms(diversity=0.0, smoothing=1, scales=1)
    attack = PGD(ball=ball("l2", 0.1), steps=3, random_start=False)
    x_adv = Transformed(attack=attack, transforms=plain)(linear_score(weights), images, generator=seeded(7))
    assert torch.allclose(x_adv, attack(linear_score(weights), images, generator=seeded(7)), atol=1e-6)


def test_every_gradient_draws_anew_and_dropping_samples_changes_no_luck(images, seeded):
    def square(x):
        return x.square().flatten(1)

    score = dodge(square, torch.randn(6, 60, generator=seeded(8)))
    one, other = (wrapped(score, Transforms(diversity=1.0, smallest=0.5), images, 9) for _ in range(2))
    rows = torch.tensor([4, 1])
    first, second = (score_and_gradient(one, images)[1] for _ in range(2))
    assert not torch.allclose(first, second)
    for expected in (first, second):
        found = score_and_gradient(other.take(rows), images[rows])[1]
        assert torch.allclose(found, expected[rows], atol=rounding(60, float(expected.abs().max())))


@pytest.mark.parametrize(
    "options", [{"diversity": 1.5}, {"smallest": 0.0}, {"smoothing": 4}, {"smoothing": 0}, {"scales": 0}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=r"shares|odd"):
        Transforms(**options)
