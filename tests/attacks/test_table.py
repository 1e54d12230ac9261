"""What every attack owes, whatever it does: one table, one test per truth."""

from dataclasses import replace

import pytest
import torch

from steadface.attacks import ball, dodge, impersonate
from steadface.attacks.goals import template

from .table import WHITE_BOX, Hills
from .table_blackbox import BLACK_BOX, Deciding

CASES = WHITE_BOX + BLACK_BOX


def cases(*conditions):
    return pytest.mark.parametrize(
        ("case", "norm"),
        [
            pytest.param(case, norm, id=f"{case.name}-{norm}")
            for case in CASES
            if all(getattr(case, condition) for condition in conditions)
            for norm in case.norms
        ],
    )


@pytest.fixture
def hills(images, seeded):
    frequencies = 3 * torch.randn(images.shape, generator=seeded(1), dtype=torch.float64)
    return lambda enough=None: Hills(frequencies, enough)


@cases()
@pytest.mark.parametrize("share", [0.01, 1.0])
@pytest.mark.parametrize("ended", [False, True])
def test_budget_and_range_are_kept_and_the_source_is_untouched(case, norm, share, ended, images, hills, seeded):
    before, radius = images.clone(), share * (0.5 if norm == "linf" else 2.0)
    score = hills(torch.full((len(images),), 0.5, dtype=torch.float64) if ended else None)
    x_adv = case.make(ball(norm, radius))(score, images, generator=seeded(2))
    delta = (x_adv.double() - images.double()).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert float(size.max()) <= radius + 1e-6
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    assert x_adv.dtype == images.dtype
    assert not x_adv.requires_grad
    assert x_adv.data_ptr() != images.data_ptr()
    assert torch.equal(images, before)


@cases()
def test_every_goal_moves_the_cosine_its_way(case, norm, network, faces, seeded):
    with torch.no_grad():
        own, others = network(faces.flip(3)), network(faces).roll(1, dims=0)
        several = torch.stack([network(faces + 0.02 * k) for k in (1, 2, 3)], dim=1).roll(2, dims=0)
    attack = case.make(ball(norm, case.radius[norm == "l2"]))
    for goal, references in ((dodge, own), (impersonate, others), (impersonate, template(several))):
        score = goal(network, references)
        if isinstance(case, Deciding):
            with torch.no_grad():
                score = replace(score, enough=score(faces) + 0.03)
        x_adv = attack(score, faces, generator=seeded(3))
        with torch.no_grad():
            before, after = (torch.cosine_similarity(network(x), references) for x in (faces, x_adv))
        gain = (after - before) * (-1 if goal is dodge else 1)
        assert float(gain.mean()) > 0.01
        if case.alone:
            assert float((gain > 0).double().mean()) > 0.8


@cases()
def test_the_outcome_is_decided_by_the_generator(case, norm, images, hills, seeded):
    attack, state = case.make(ball(norm, 0.1)), torch.get_rng_state()
    enough = torch.full((len(images),), 0.95, dtype=torch.float64)
    first, second = (attack(hills(enough), images.double(), generator=seeded(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


@cases("best")
def test_the_best_of_all_that_was_scored_is_returned(case, norm, images, hills, seeded):
    score = hills()
    x_adv = case.make(ball(norm, 0.3))(score, images.double(), generator=seeded(5))
    assert torch.allclose(score.silently(x_adv), score.highest(), rtol=0, atol=1e-9)


@cases("alone")
def test_samples_that_succeeded_do_not_change_the_outcome_of_others(case, norm, images, hills, seeded):
    attack, others = case.make(ball(norm, 0.15)), torch.arange(len(images)) % 2 == 1
    hard = torch.full((len(images),), 0.97, dtype=torch.float64)
    together = attack(hills(hard), images.double(), generator=seeded(6))
    half_done = attack(hills(torch.where(others, -1.0, hard)), images.double(), generator=seeded(6))
    assert torch.allclose(together[~others], half_done[~others], rtol=0, atol=1e-9)


@cases("drops")
def test_leaving_out_samples_that_succeeded_changes_no_outcome(case, norm, images, hills, seeded):
    attack, end = case.make(ball(norm, 0.15)), 0.9
    whole, cut = hills(), hills(torch.full((len(images),), end, dtype=torch.float64))
    all_the_way = whole.silently(attack(whole, images.double(), generator=seeded(7)))
    stopped = cut.silently(attack(cut, images.double(), generator=seeded(7)))
    won = all_the_way >= end
    if case.best:  # else a last iterate may have lost what a first success would have kept
        assert torch.equal(stopped >= end, won)
    assert bool((stopped[won] >= end).all())
    lost = stopped < end
    assert torch.allclose(stopped[lost], all_the_way[lost], rtol=0, atol=1e-9)
    assert sum(len(values) for _, values in cut.seen) <= sum(len(values) for _, values in whole.seen)


@cases("drops")
def test_little_is_computed_where_all_have_succeeded(case, norm, images, hills, seeded):
    score = hills(torch.full((len(images),), -1.0, dtype=torch.float64))
    case.make(ball(norm, 0.15))(score, images.double(), generator=seeded(8))
    assert len(score.seen) <= 3


@cases()
def test_within_another_ball_everything_else_stays(case, norm):
    attack = case.make(ball(norm, 0.1))
    assert attack.ball == ball(norm, 0.1)
    assert attack.within(ball(norm, 0.2)) == case.make(ball(norm, 0.2))
