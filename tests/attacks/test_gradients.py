import copy

import pytest
import torch
from torch import nn

from steadface.attacks import crafting, dodge, score_and_gradient

from ..rounding import rounding


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(5))


@pytest.fixture
def trained(images):
    """A network in the middle of training: gradients present, one layer frozen, one part in evaluation mode."""
    with torch.random.fork_rng():
        network = small_network()
        network(images).sum().backward()
    network[0].bias.requires_grad_(False)
    network[2].eval()
    return network


def snapshot(network):
    return {
        "state": copy.deepcopy(network.state_dict()),
        "grad": [None if p.grad is None else p.grad.clone() for p in network.parameters()],
        "flags": [p.requires_grad for p in network.parameters()],
        "modes": [part.training for part in network.modules()],
    }


def assert_unchanged(network, before):
    after = snapshot(network)
    assert after["flags"] == before["flags"]
    assert after["modes"] == before["modes"]
    for name, value in before["state"].items():
        assert torch.equal(after["state"][name], value), name
    for old, new in zip(before["grad"], after["grad"], strict=True):
        assert (old is None and new is None) or torch.equal(old, new)


def test_gradient_of_a_linear_score_is_its_weights(images, linear_score, seeded):
    weights = torch.randn(images.shape, generator=seeded(1))
    values, gradient = score_and_gradient(linear_score(weights), images)
    expected, size = ((weights * images).sum((1, 2, 3)), (weights * images).abs().sum((1, 2, 3)).max())
    assert torch.allclose(values, expected, atol=rounding(60, float(size)))
    assert torch.equal(gradient, weights)
    assert not values.requires_grad
    assert not gradient.requires_grad
    assert not images.requires_grad


def test_gradient_is_there_under_no_grad_too(images, linear_score):
    with torch.no_grad():
        _, gradient = score_and_gradient(linear_score(images), images)
    assert torch.equal(gradient, images)


def test_crafting_leaves_the_network_as_it_was(trained, images):
    before = snapshot(trained)
    with crafting(trained):
        assert not any(part.training for part in trained.modules())
        assert not any(p.requires_grad for p in trained.parameters())
        score_and_gradient(dodge(trained, torch.ones(len(images), 5)), images)
    assert_unchanged(trained, before)


def test_crafting_leaves_the_network_as_it_was_after_an_error(trained, images):
    before = snapshot(trained)

    def craft_and_fail():
        with crafting(trained):
            trained(images)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        craft_and_fail()
    assert_unchanged(trained, before)


def test_crafting_inside_crafting_and_a_module_given_twice(trained):
    before = snapshot(trained)
    with crafting(trained, trained[0]), crafting(trained):
        pass
    assert_unchanged(trained, before)


def test_score_and_gradient_alone_accumulates_no_parameter_gradient(trained, images):
    grads = snapshot(trained)["grad"]
    score_and_gradient(dodge(trained, torch.ones(len(images), 5)), images)
    for old, parameter in zip(grads, trained.parameters(), strict=True):
        assert (old is None and parameter.grad is None) or torch.equal(old, parameter.grad)


def test_a_graph_made_before_crafting_still_gives_its_gradients_afterwards(trained, images):
    trained.eval()
    expected = torch.autograd.grad(trained(images).square().sum(), trained[4].weight)[0]
    trained.zero_grad()
    loss = trained(images).square().sum()
    with crafting(trained):
        score_and_gradient(dodge(trained, torch.ones(len(images), 5)), images)
    loss.backward()
    assert torch.equal(trained[4].weight.grad, expected)
