"""What every attack that sees decisions only owes beyond the table."""

import pytest
import torch

from steadface.attacks import ball
from steadface.attacks.decision import Decisions, enlarged
from steadface.attacks.distances import lengths
from steadface.attacks.evolutionary import Evolutionary
from steadface.attacks.hopskipjump import HopSkipJump
from steadface.attacks.minimum_norm import MinimumNorm

LARGEST = {"linf": 1.0, "l2": 20.0}
ATTACKS = pytest.mark.parametrize(
    ("make", "norm"),
    [
        pytest.param(make, norm, id=f"{make.__name__}-{norm}")
        for make in (HopSkipJump, Evolutionary)
        for norm in ("linf", "l2")
    ],
)


class Signs:
    """Of ``score`` only whether it succeeded: 1 or -1."""

    def __init__(self, score):
        self.score = score

    def __call__(self, images):
        return torch.where(self.score.succeeded(self.score(images)), 1.0, -1.0)

    def take(self, indices):
        return Signs(self.score.take(indices))

    def succeeded(self, values):
        return values > 0


@pytest.fixture
def grey(seeded):
    """``(6, 3, 14, 11)`` within 0.4 .. 0.6."""
    return 0.4 + 0.2 * torch.rand(6, 3, 14, 11, generator=seeded(1), dtype=torch.float64)


@pytest.fixture
def weights(grey, seeded):
    return torch.randn(grey.shape, generator=seeded(2), dtype=torch.float64)


@pytest.fixture
def at_distance(grey, weights, linear_score):
    """A linear score that the nearest success of each sample is so far from, in multiples of a length per norm."""

    def make(share, norm):
        flat = weights.flatten(1)
        dual = flat.abs().sum(1) if norm == "linf" else flat.norm(dim=1)
        margin = torch.as_tensor(share, dtype=torch.float64) * {"linf": 0.02, "l2": 0.2}[norm] * dual
        return linear_score(weights, linear_score(weights)(grey) + margin)

    return make


@pytest.fixture
def beyond(grey, weights, seeded):
    """Images that succeed, far from the nearest that do: three pixels in ten are pushed the right way."""
    pushed = torch.rand(grey.shape, generator=seeded(10), dtype=torch.float64) < 0.3
    return (grey + 0.35 * weights.sign() * pushed).clamp(0, 1)


@ATTACKS
def test_nothing_of_the_score_is_used_but_its_decisions(make, norm, grey, at_distance, beyond, seeded):
    attack, score = make(ball=ball(norm, LARGEST[norm]), queries=150), at_distance(1.0, norm)
    first = attack.closest(score, grey, generator=seeded(3), starts=beyond)
    second = attack.closest(Signs(score), grey, generator=seeded(3), starts=beyond)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.distance, second.distance)


@ATTACKS
def test_what_is_found_succeeds_at_its_distance(make, norm, grey, at_distance, beyond, seeded):
    attack: MinimumNorm = make(ball=ball(norm, LARGEST[norm]), queries=300)
    score = at_distance(torch.linspace(0.5, 2, 6), norm)
    found = attack.closest(score, grey, generator=seeded(4), starts=beyond)  # type: ignore[call-arg]
    assert not found.censored.any()
    assert bool(score.succeeded(score(found.images)).all())
    assert torch.allclose(lengths(found.images - grey, norm), found.distance)


@ATTACKS
def test_more_queries_come_nearer(make, norm, grey, at_distance, beyond, seeded):
    score = at_distance(1.0, norm)
    distances = [
        make(ball=ball(norm, LARGEST[norm]), queries=queries)
        .closest(score, grey, generator=seeded(5), starts=beyond)
        .distance
        for queries in (30, 200, 800)
    ]
    assert float(distances[0].mean()) > float(distances[1].mean())
    assert bool((distances[1] > distances[2]).all())
    assert bool((distances[2] > (0.02 if norm == "linf" else 0.2)).all())  # nothing can be nearer


@ATTACKS
def test_what_succeeds_as_it_is_is_at_zero_and_what_lies_beyond_the_ball_is_censored(
    make, norm, grey, at_distance, beyond, seeded
):
    radius = {"linf": 0.06, "l2": 0.6}[norm]
    score = at_distance([-1.0, 0.05, 5.0, 0.05, 4.0, -2.0], norm)
    found = make(ball=ball(norm, radius), queries=200).closest(score, grey, generator=seeded(6), starts=beyond)
    assert found.censored.tolist() == [False, False, True, False, True, False]
    assert found.distance[[0, 5]].tolist() == [0, 0]
    assert torch.equal(found.images[[0, 5]], grey[[0, 5]])
    assert found.distance[found.censored].tolist() == [radius, radius]
    assert bool((lengths(found.images - grey, norm) <= radius + 1e-12).all())
    assert bool((found.images[found.censored] != grey[found.censored]).any())  # the nearest success, brought inside


@ATTACKS
def test_an_attack_returns_the_images_that_are_closest(make, norm, grey, at_distance, beyond, seeded):
    attack, score = make(ball=ball(norm, LARGEST[norm]), queries=60), at_distance(1.0, norm)
    found = attack.closest(score, grey, generator=seeded(7), starts=beyond)
    assert torch.equal(attack(score, grey, generator=seeded(7), starts=beyond), found.images)


@ATTACKS
def test_where_noise_does_not_succeed_a_start_is_needed(make, norm, grey, linear_score, seeded):
    """Of a success that noise does not meet, a start is the only way to know."""
    weights = torch.ones_like(grey)
    score = linear_score(weights, torch.full((6,), 0.8 * grey[0].numel(), dtype=torch.float64))
    attack = make(ball=ball(norm, LARGEST[norm]), queries=100)
    lost = attack.closest(score, grey, generator=seeded(8))
    assert bool(lost.censored.all())
    assert torch.equal(lost.images, grey)
    starts = torch.full_like(grey, 0.9)
    starts[2] = grey[2]  # not a success
    found = attack.closest(score, grey, generator=seeded(8), starts=starts)
    assert found.censored.tolist() == [False, False, True, False, False, False]
    assert bool((found.distance < lengths(starts - grey, norm))[~found.censored].all())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bisection_ends_at_the_boundary_of_the_segment(norm, grey, at_distance, beyond, seeded):
    score = at_distance(1.0, norm)
    found = Decisions(score, grey, ball(norm, LARGEST[norm]), queries=40)
    found.begin(beyond, seeded(9))
    found.approach(found.going(1), 30)
    rows = torch.arange(6)
    nearer = found.at(rows, beyond, (1 - 1e-6) * found.distance)
    assert bool(score.succeeded(score(found.nearest)).all())
    assert not score.succeeded(score(nearer)).any()
    assert torch.allclose(found.nearest, found.at(rows, beyond, found.distance), atol=1e-7)


def test_without_queries_nothing_is_asked(grey, at_distance, beyond):
    found = Decisions(at_distance(1.0, "l2"), grey, ball("l2", 1.0), queries=1)
    rows = torch.tensor([1, 4])
    assert found.offer(rows, beyond[rows]).tolist() == [True, True]
    assert found.offer(torch.arange(6), beyond).tolist() == [True, False, True, True, False, True]
    assert found.left.tolist() == [0] * 6


def test_enlarging_keeps_what_is_constant_and_what_has_the_size(grey):
    flat = torch.full((2, 3, 4, 5), 0.7, dtype=torch.float64)
    assert torch.allclose(enlarged(flat, grey), torch.full((2, 3, 14, 11), 0.7, dtype=torch.float64))
    assert enlarged(grey, grey) is grey
