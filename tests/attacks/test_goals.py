import pytest
import torch
import torch.nn.functional as F

from steadface.attacks import dodge, dodge_or_impersonate, impersonate
from steadface.attacks.goals import template

from ..rounding import rounding

ROUNDING = rounding(60)
"""A cosine in as many dimensions as `images` have numbers."""


def flat(images):
    return images.flatten(1)


@pytest.fixture
def references(images, seeded):
    return torch.randn(len(images), images[0].numel(), generator=seeded(1))


def cosines(images, references):
    """The slow way: one pair at a time."""
    pairs = zip(images, references, strict=True)
    return torch.stack([x.flatten() @ r / (x.norm() * r.norm()) for x, r in pairs])


def test_dodging_is_minus_the_cosine_and_impersonating_the_cosine(images, references):
    expected = cosines(images, references)
    assert torch.allclose(dodge(flat, references)(images), -expected, atol=ROUNDING)
    assert torch.allclose(impersonate(flat, references)(images), expected, atol=ROUNDING)


def test_scores_are_raw_cosines_whatever_the_length_of_embeddings(images, references):
    score, longer = dodge(flat, references), dodge(lambda x: 64 * flat(x), 7 * references)
    assert torch.allclose(score(images), longer(images), atol=ROUNDING)


def test_success_is_what_a_verifier_decides_at_exactly_its_threshold(references):
    threshold = 0.3
    at = torch.full((3,), threshold)
    below = torch.nextafter(at, torch.zeros(3))
    dodging = dodge(flat, references[:3], threshold=threshold)
    posing = impersonate(flat, references[:3], threshold=threshold)
    assert not dodging.succeeded(-at).any()  # accepted as the same person: the dodge has failed
    assert dodging.succeeded(-below).all()
    assert posing.succeeded(at).all()
    assert not posing.succeeded(below).any()


def test_without_a_threshold_nothing_ever_succeeds(images, references):
    for score in (dodge(flat, references), impersonate(flat, references)):
        assert not score.succeeded(torch.ones(len(images))).any()


def test_take_scores_only_those_samples(images, references):
    chosen = torch.tensor([4, 1])
    for goal in (dodge, impersonate):
        score = goal(flat, references, threshold=0.2)
        taken = score.take(chosen)
        assert torch.allclose(taken(images[chosen]), score(images)[chosen], atol=ROUNDING)
        assert torch.equal(taken.enough, score.enough[chosen])
        assert goal(flat, references).take(chosen).enough is None


def test_each_sample_dodges_its_own_or_impersonates_the_other(images, references, seeded):
    other = torch.randn(references.shape, generator=seeded(2))
    dodges = torch.tensor([True, False, False, True, False, True])
    score = dodge_or_impersonate(flat, references, other, dodges)
    expected = torch.where(dodges, -cosines(images, references), cosines(images, other))
    assert torch.allclose(score(images), expected, atol=ROUNDING)
    assert torch.allclose(score.anchors, F.normalize(torch.where(dodges[:, None], references, other)))


def test_a_template_is_the_mean_direction_of_its_references_whatever_their_lengths(images, seeded):
    several = torch.randn(len(images), 3, images[0].numel(), generator=seeded(2))
    units = several / several.norm(dim=-1, keepdim=True)
    enrolled = template(several * torch.tensor([1.0, 5.0, 0.1]).view(1, 3, 1))
    assert torch.allclose(enrolled.norm(dim=-1), torch.ones(len(images)), atol=ROUNDING)
    assert torch.allclose(torch.cosine_similarity(enrolled, units.mean(1)), torch.ones(len(images)), atol=ROUNDING)
    # Its cosine is the mean of the cosines to the references, up to a factor of each template.
    mean = torch.einsum("bd,btd->b", F.normalize(flat(images)), units) / 3
    assert torch.allclose(impersonate(flat, enrolled)(images) * units.mean(1).norm(dim=-1), mean, atol=ROUNDING)


def test_a_template_of_one_is_that_one(references):
    assert torch.allclose(template(references[:, None]), F.normalize(references))
