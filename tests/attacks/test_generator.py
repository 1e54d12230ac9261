import copy

import pytest
import torch

from steadface.attacks import GenerativeAttack, PerturbationNetwork, ball, crafting, dodge, dodge_or_impersonate


@pytest.fixture
def make_attack():
    def make(*, around=None, learn=True, rate=3e-3, embedding_size=16):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            proposer = PerturbationNetwork(embedding_size=embedding_size, width=8, blocks=2)
        optimizer = torch.optim.Adam(proposer.parameters(), lr=rate)
        return GenerativeAttack(ball=around or ball("linf", 0.05), network=proposer, optimizer=optimizer, learn=learn)

    return make


def states_equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("radius", [1 / 255, 4 / 255, 2.0])
def test_budget_and_range_are_kept(make_attack, network, faces, seeded, norm, radius):
    attack = make_attack(around=ball(norm, radius))
    with torch.no_grad():
        for parameter in attack.network.parameters():
            parameter.mul_(10)  # proposals far beyond the ball
    x_adv = attack(dodge(network, network(faces).detach()), faces, generator=seeded(1))
    delta = (x_adv.double() - faces.double()).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert float(size.max()) <= radius + 1e-6
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    assert not x_adv.requires_grad


def test_an_update_touches_only_the_generator(make_attack, network, faces, seeded):
    attack = make_attack()
    recogniser = copy.deepcopy(network).train()
    before, own = copy.deepcopy(recogniser.state_dict()), network(faces).detach()
    proposer = copy.deepcopy(attack.network.state_dict())
    with crafting(recogniser):
        attack(dodge(recogniser, own), faces, generator=seeded(1))
    assert states_equal(recogniser.state_dict(), before)
    assert all(p.grad is None for p in recogniser.parameters())
    assert not any(torch.equal(v, proposer[k]) for k, v in attack.network.state_dict().items() if v.ndim > 1)


def test_without_learning_it_only_proposes(make_attack, network, faces, seeded):
    attack = make_attack(learn=False)
    before, own = copy.deepcopy(attack.network.state_dict()), network(faces).detach()
    first = attack(dodge(network, own), faces, generator=seeded(1))
    assert states_equal(attack.network.state_dict(), before)
    assert torch.equal(first, make_attack(learn=True)(dodge(network, own), faces, generator=seeded(1)))


def test_trained_against_a_recogniser_it_moves_the_cosines_their_ways(make_attack, network, faces, seeded):
    attack, generator = make_attack(), seeded(1)
    own = network(faces).detach()
    other = own.roll(1, dims=0)
    dodges = torch.arange(len(faces)) % 2 == 0
    score = dodge_or_impersonate(network, own, other, dodges)
    with torch.no_grad():
        clean = score(faces)
    before = score(make_attack()(score, faces, generator=seeded(2))).detach()
    for _ in range(40):
        with crafting(network):
            attack(score, faces, generator=generator)
    after = score(attack(score, faces, generator=seeded(2))).detach()
    for goal in (dodges, ~dodges):
        assert float(after[goal].mean()) > float(before[goal].mean()) + 0.01
        assert float(after[goal].mean()) > float(clean[goal].mean()) + 0.01


def test_in_another_ball_the_same_network_goes_on_learning(make_attack, network, faces, seeded):
    attack = make_attack()
    smaller = attack.within(ball("linf", 0.01))
    x_adv = smaller(dodge(network, network(faces).detach()), faces, generator=seeded(1))
    assert float((x_adv - faces).abs().max()) <= 0.01 + 1e-6
    assert smaller.network is attack.network
    assert smaller.optimizer is attack.optimizer


def test_it_refuses_a_score_that_has_no_direction(make_attack, images, linear_score, seeded):
    with pytest.raises(TypeError, match="LinearScore"):
        make_attack()(linear_score(images), images, generator=seeded(1))


@pytest.mark.parametrize("size", [(112, 96), (30, 33)])
def test_the_network_takes_sizes_that_are_no_multiple_of_four(size):
    proposer = PerturbationNetwork(embedding_size=5, width=4, blocks=1)
    x = torch.rand(2, 3, *size)
    assert proposer(x, torch.randn_like(x), torch.randn(2, 5)).shape == x.shape
