"""A patch stays inside its mask and the range of pixels, and there it may do anything, for one image or for all."""

from dataclasses import replace

import pytest
import torch

from steadface.attacks.balls import L2, Linf
from steadface.attacks.goals import dodge, impersonate
from steadface.attacks.patch import Patch, View, Wear, paste, seen
from steadface.attacks.printing import non_printability, total_variation
from steadface.errors import SteadfaceError

from ..rounding import rounding
from .table import Hills


@pytest.fixture
def mask():
    """``(1, 5, 4)``: outside, a soft edge, inside."""
    mask = torch.zeros(1, 5, 4)
    mask[:, 1:4, 1:3] = 1
    mask[:, 1] *= 0.5
    return mask


@pytest.fixture
def face_patch():
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:20, 4:28] = 1
    return Patch(mask=mask, steps=12, step=0.2)


@pytest.fixture
def hills(images, seeded):
    frequencies = 3 * torch.randn(images.shape, generator=seeded(1), dtype=torch.float64)
    return lambda enough=None: Hills(frequencies, enough)


def ends(images, value):
    return torch.full((len(images),), value, dtype=torch.float64)


exact = {"wear": None, "smoothness": 0.0}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("wear", [None, Wear(), Wear(shift=0.3, scale=0.5, contrast=0.9, brightness=0.9)])
@pytest.mark.parametrize("ball", [Linf(1.0), Linf(0.1), L2(0.5)])
def test_outside_the_mask_not_a_bit_changes_and_inside_the_ball_is_kept(
    shared, wear, ball, images, mask, hills, seeded
):
    before, attack = images.clone(), Patch(mask=mask, steps=5, step=0.3, shared=shared, wear=wear).within(ball)
    x_adv = attack(hills(), images, generator=seeded(2))
    outside = (mask == 0).expand_as(images)
    assert torch.equal(x_adv[outside], images[outside])
    assert not torch.equal(x_adv, images)
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    delta = (x_adv - images).flatten(1)
    assert float(delta.norm(dim=1, p=torch.inf if ball.norm == "linf" else 2).max()) <= ball.radius + 1e-6
    assert not x_adv.requires_grad
    assert torch.equal(images, before)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_linear_score_is_raised_to_its_optimum(sign, images, mask, linear_score, seeded):
    weights = sign * torch.randn(images.shape, generator=seeded(3))
    attack = Patch(mask=mask, steps=80, step=0.1, **exact)
    x_adv = attack(linear_score(weights), images, generator=seeded(4))
    best = paste(images, (weights > 0).float(), mask)
    assert torch.allclose(x_adv, best, atol=1e-6)


def test_a_shared_patch_is_the_optimum_of_the_mean(images, mask, linear_score, seeded):
    weights = torch.randn(images.shape, generator=seeded(5))
    attack = Patch(mask=mask, shared=True, steps=80, step=0.1, **exact)
    patch = attack.train(linear_score(weights), images, generator=seeded(6))
    assert patch.shape == (1, *images.shape[1:])
    inside = (mask > 0).expand_as(patch)
    assert torch.equal(patch[inside], (weights.mean(0, keepdim=True) > 0).float()[inside])
    x_adv = attack(linear_score(weights), images, generator=seeded(6))
    assert torch.equal(x_adv, paste(images, patch, mask))


@pytest.mark.parametrize("shared", [False, True])
def test_every_goal_moves_the_cosine_its_way(shared, face_patch, network, faces, seeded):
    with torch.no_grad():
        own, others = network(faces.flip(3)), network(faces).roll(1, dims=0)
    grey = paste(faces, torch.full_like(faces, 0.5), face_patch.mask)
    for goal, references in ((dodge, own), (impersonate, others[:1].expand_as(others))):
        score = goal(network, references)
        x_adv = replace(face_patch, shared=shared)(score, faces, generator=seeded(7))
        with torch.no_grad():
            assert float((score(x_adv) - score(grey)).mean()) > 0.01


@pytest.mark.parametrize("shared", [False, True])
def test_the_outcome_is_decided_by_the_generator(shared, images, mask, hills, seeded):
    attack, state = Patch(mask=mask, shared=shared, steps=4, restarts=2, draws=2, trials=1), torch.get_rng_state()
    first, second = (attack(hills(), images, generator=seeded(8)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, attack(hills(), images, generator=seeded(9)))


def test_the_best_of_all_that_was_scored_is_returned(images, mask, hills, seeded):
    score = hills()
    x_adv = Patch(mask=mask, steps=10, restarts=2, step=0.2, **exact)(score, images.double(), generator=seeded(10))
    assert torch.allclose(score.silently(x_adv), score.highest(), rtol=0, atol=1e-9)


def test_samples_that_succeeded_are_left_alone_and_change_no_outcome(images, mask, hills, seeded):
    attack, easy = Patch(mask=mask, steps=10, step=0.2, draws=2, trials=2), torch.arange(len(images)) % 2 == 0
    hard = torch.where(easy, -1.0, ends(images, 2.0))
    whole, cut = hills(), hills(hard)
    together = attack(whole, images.double(), generator=seeded(11))
    half_done = attack(cut, images.double(), generator=seeded(11))
    assert torch.allclose(together[~easy], half_done[~easy], rtol=0, atol=1e-9)
    assert sum(int((rows % 2 == 0).sum()) for rows, _ in cut.seen) == 3 * int(easy.sum())  # one judgement


def test_a_shared_patch_stops_where_all_succeed_and_else_keeps_the_most_successes(images, mask, hills, seeded):
    attack = Patch(mask=mask, shared=True, steps=10, step=0.2, **exact)
    done = hills(ends(images, -1.0))
    attack.train(done, images, generator=seeded(12))
    assert len(done.seen) == 1
    score = hills(ends(images, 0.8))
    x_adv = attack(score, images.double(), generator=seeded(12))
    judged = [values for _, values in score.seen if len(values) == len(images)]
    reached = max(int((values >= 0.8).sum()) for values in judged)
    assert int((score.silently(x_adv) >= 0.8).sum()) == reached


def test_trials_are_satisfied_by_what_counts_as_success(images, seeded, linear_score):
    """A patch that must succeed in further views does so in more of other views than one that must not."""
    big = torch.nn.functional.interpolate(images, size=(20, 16))
    wide = torch.zeros(1, 20, 16)
    wide[:, 5:15, 4:12] = 1
    weights = torch.randn(big.shape, generator=seeded(13))
    views = Wear(shift=0.1).draw(20, seeded(14))
    shares = []
    for trials in (0, 8):
        attack = Patch(mask=wide, steps=60, step=0.1, wear=Wear(shift=0.1), trials=trials)
        score = linear_score(weights, (weights * paste(big, torch.full_like(big, 0.5), wide)).sum((1, 2, 3)) + 2)
        x_adv = attack(score, big, generator=seeded(15))
        held = [score.succeeded(score(seen(big, x_adv, wide, view))) for view in views]
        shares.append(float(torch.stack(held).float().mean()))
    assert shares[1] > shares[0] + 0.1


def test_pasting_is_the_mean_weighted_by_the_mask(images, mask):
    patch = 1 - images
    assert torch.allclose(paste(images, patch, mask), (1 - mask) * images + mask * patch, atol=rounding(2))


def test_the_plain_view_is_pasting(images, mask):
    patch = 1 - images.flip(0)
    assert torch.allclose(seen(images, patch, mask, View()), paste(images, patch, mask), atol=1e-5)


def test_views_move_enlarge_and_light_the_patch():
    images, patch, mask = torch.zeros(1, 3, 40, 50), torch.full((1, 3, 40, 50), 0.5), torch.zeros(1, 40, 50)
    mask[:, 10:20, 20:30] = 1
    moved = seen(images, patch, mask, View(right=0.2, down=-0.1))[0, 0]
    assert torch.allclose(moved, 0.5 * mask[0].roll((-4, 10), dims=(0, 1)), atol=1e-4)
    larger = seen(images, patch, mask, View(scale=2))[0, 0]
    assert float((larger > 0.25).sum()) == pytest.approx(400, rel=0.1)
    rows, columns = (larger > 0.25).nonzero().float().mean(0)
    assert (float(rows), float(columns)) == pytest.approx((14.5, 24.5), abs=0.1), "about the middle of the mask"
    lit = seen(images, patch.clone().mul_(0.5), mask, View(contrast=0.5, brightness=0.2))[0, 0]
    assert float(lit.max()) == pytest.approx(0.5 + 0.5 * (0.25 - 0.5) + 0.2, abs=1e-5)


def test_views_stay_within_their_bounds_and_use_them(seeded):
    wear = Wear(shift=0.1, scale=0.2, contrast=0.3, brightness=0.4)
    views = wear.draw(400, seeded(16))
    for values, middle, bound in (
        ([view.right for view in views], 0, 0.1),
        ([view.down for view in views], 0, 0.1),
        ([view.scale for view in views], 1, 0.2),
        ([view.contrast for view in views], 1, 0.3),
        ([view.brightness for view in views], 0, 0.4),
    ):
        assert -bound <= min(values) - middle < -0.95 * bound
        assert 0.95 * bound < max(values) - middle <= bound


@pytest.mark.parametrize("shared", [False, True])
def test_penalties_shape_the_patch(shared, images, linear_score, seeded):
    mask = torch.ones(1, 5, 4)
    score = linear_score(0.01 * torch.randn(images.shape, generator=seeded(17)))
    plain = Patch(mask=mask, shared=shared, steps=40, wear=None, smoothness=0.0)
    palette = torch.tensor([[0.3, 0.6, 0.4]])
    smooth = replace(plain, smoothness=10.0)
    printed = replace(plain, printability=10.0, palette=palette)
    rough, even, true = (attack(score, images, generator=seeded(18)) for attack in (plain, smooth, printed))
    assert float(total_variation(even, mask).mean()) < 0.7 * float(total_variation(rough, mask).mean())
    nearer, further = (float(non_printability(x, mask, palette).mean()) for x in (true, rough))
    assert nearer < 0.8 * further


def test_what_cannot_be_is_refused(images, mask, hills, seeded):
    for wrong in ({"steps": 0}, {"restarts": 0}, {"draws": 0}, {"trials": -1}, {"step": 0.0}, {"smoothness": -1.0}):
        with pytest.raises(ValueError, match="at least"):
            Patch(mask=mask, **wrong)
    with pytest.raises(ValueError, match="wear"):
        Patch(mask=mask, trials=1, wear=None)
    with pytest.raises(ValueError, match="bounds of a view"):
        Wear(scale=1.0)
    for shape in (mask[0], 2 * mask, mask.expand(3, -1, -1)):
        with pytest.raises(SteadfaceError, match=r"\(1, H, W\) within 0..1"):
            Patch(mask=shape)
    with pytest.raises(SteadfaceError, match="no room"):
        Patch(mask=0 * mask)
    for shared in (False, True):
        with pytest.raises(SteadfaceError, match="images of 5 x 4 under a mask of 4 x 4"):
            Patch(mask=mask[:, :4], shared=shared)(hills(), images, generator=seeded(0))
