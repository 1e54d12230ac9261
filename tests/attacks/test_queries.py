"""Queries are counted for each sample, kept to the budget, and asked without gradients."""

from dataclasses import dataclass, replace

import pytest
import torch

from steadface.attacks import PGD, ball, dodge
from steadface.attacks.goals import Score
from steadface.attacks.queries import Counted

from .table import Hills
from .table_blackbox import BLACK_BOX

BUDGETS = pytest.mark.parametrize("queries", [1, 2, 7, 40, 150])
CASES = pytest.mark.parametrize(
    ("case", "norm"), [pytest.param(case, norm, id=f"{case.name}-{norm}") for case in BLACK_BOX for norm in case.norms]
)


@dataclass(frozen=True)
class NoGradients:
    """A score that has none to give."""

    score: Score

    def __call__(self, images):
        assert not torch.is_grad_enabled()
        assert not images.requires_grad
        return self.score(images)

    def take(self, indices):
        return NoGradients(self.score.take(indices))

    def succeeded(self, values):
        return self.score.succeeded(values)


@pytest.fixture
def hills(images, seeded):
    frequencies = 3 * torch.randn(images.shape, generator=seeded(1), dtype=torch.float64)
    return lambda end: Hills(frequencies, torch.full((len(images),), end, dtype=torch.float64))


def test_every_sample_counts_its_own_through_all_that_is_taken(images, linear_score):
    score = Counted.of(linear_score(torch.ones_like(images)), images)
    assert score.queries.dtype == torch.int64
    values = score(images)
    some = score.take(torch.tensor([1, 4, 5]))
    some(images[[1, 4, 5]])
    last = some.take(torch.tensor([2, 0, 2]))  # the sixth twice
    last(images[[5, 1, 5]])
    assert torch.equal(values, score.score(images))
    assert score.queries.tolist() == [1, 3, 1, 1, 2, 4]
    assert last.queries is score.queries


def test_it_is_the_score_itself_with_its_end_and_its_gradient(faces, network, seeded):
    with torch.no_grad():
        references = network(faces.flip(3))
    plain = dodge(network, references, threshold=0.5)
    counted, attack = Counted.of(plain, faces), PGD(ball=ball("linf", 0.02), steps=3)
    expected, found = (attack(score, faces, generator=seeded(1)) for score in (plain, counted))
    assert torch.equal(expected, found)
    with torch.no_grad():
        below = plain.succeeded(plain(found))
    assert bool((counted.queries[~below] == 4).all())  # three gradients and the last iterate


@CASES
@BUDGETS
@pytest.mark.parametrize("end", [-0.5, 0.9, 2.0])
def test_no_sample_asks_more_often_than_its_budget(case, norm, queries, end, images, hills, seeded):
    score = Counted.of(hills(end), images)
    attack = replace(case.make(ball(norm, 0.3)), queries=queries)
    attack(score, images.double(), generator=seeded(2))
    assert int(score.queries.max()) <= queries
    assert int(score.queries.min()) >= 1


@CASES
def test_no_gradient_is_asked_for(case, norm, images, hills, seeded):
    x = images.double().requires_grad_(True)
    x_adv = case.make(ball(norm, 0.3))(NoGradients(hills(0.9)), x.detach(), generator=seeded(3))
    assert torch.is_grad_enabled()
    assert not x_adv.requires_grad


@CASES
def test_a_budget_below_one_query_is_refused(case, norm):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        replace(case.make(ball(norm, 0.3)), queries=0)
