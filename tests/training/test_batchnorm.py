import copy

import pytest
import torch
from torch import nn

from steadface.backbones.frozen import frozen
from steadface.ranks import Ranks
from steadface.training.batchnorm import BatchNormPasses, share_statistics

MODES = ("clean", "separate", "frozen", "joint")


def statistics(network):
    return {name: value.clone() for name, value in network.named_buffers()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a if "running" in name)


@pytest.fixture
def faces(seeded):
    return torch.rand(8, 3, 16, 16, generator=seeded(1))


@pytest.mark.parametrize("mode", MODES)
def test_which_passes_move_the_statistics_of_the_deployed_model(mode, network, faces):
    net = network()
    passes, before = BatchNormPasses(net, mode), statistics(net)
    with passes.adversarial():
        net(faces)
    assert equal(statistics(net), before) == (mode != "joint")
    before = statistics(net)
    with passes.clean():
        net(faces)
    assert equal(statistics(net), before) == (mode == "frozen")


def test_separate_statistics_are_those_of_two_networks(network, faces):
    """Clean passes are those of a network that never saw an adversarial sample, and the other way about."""
    net, clean_only, adversarial_only = network(), network(), network()
    passes = BatchNormPasses(net, "separate")
    for step in range(3):
        x_s, x_a = faces * (1 - 0.1 * step), 1 - faces
        with passes.clean():
            assert torch.equal(net(x_s), clean_only(x_s))
        with passes.adversarial():
            assert torch.equal(net(x_a), adversarial_only(x_a))
    assert equal(statistics(net), statistics(clean_only))
    own = list(passes.state_dict().values())
    running = [value for name, value in adversarial_only.named_buffers() if "running" in name]
    assert all(torch.equal(a, b) for a, b in zip(own, running, strict=True))


@pytest.mark.parametrize("mode", ["clean", "frozen"])
def test_adversarial_passes_as_the_deployed_model_sees_them(mode, network, faces):
    net = network()
    net(faces)
    passes, deployed = BatchNormPasses(net, mode), copy.deepcopy(net).eval()
    with passes.adversarial():
        assert torch.equal(net(1 - faces), deployed(1 - faces))


@pytest.mark.parametrize("mode", MODES)
def test_an_adversarial_pass_before_the_backward_pass_changes_no_gradient(mode, network, faces):
    """Both passes come before either's backward pass; each loss has the gradient that it has on its own."""
    net, for_clean, for_adversarial = network(), network(), network()
    passes = BatchNormPasses(net, mode)
    with passes.clean():
        l_s = net(faces).pow(3).mean()
    with passes.adversarial():
        l_a = net(1 - faces).pow(3).mean()
    if mode == "clean":
        for_adversarial(faces)  # its adversarial pass normalises with what the clean pass has just left
    for_clean.train(mode != "frozen")
    for_adversarial.train(mode in ("separate", "joint"))
    for loss, alone, x in ((l_s, for_clean, faces), (l_a, for_adversarial, 1 - faces)):
        found = torch.autograd.grad(loss, net[0].weight, retain_graph=True)[0]
        expected = torch.autograd.grad(alone(x).pow(3).mean(), alone[0].weight)[0]
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-8)
        assert float(found.abs().max()) > 1e-5
    together = torch.autograd.grad(l_s + l_a, net[0].weight)[0]
    assert torch.isfinite(together).all()


@pytest.mark.parametrize("mode", MODES)
def test_train_modes_and_statistics_are_put_back_after_an_error(mode, network):
    net = network()
    net[4].eval()
    passes, before = BatchNormPasses(net, mode), statistics(net)
    for kind in (passes.clean, passes.adversarial):
        with pytest.raises(RuntimeError, match="out of memory"), kind():
            raise RuntimeError("out of memory")
        assert [part.training for part in net] == [part is not net[4] for part in net]
        assert equal(statistics(net), before)


def test_own_statistics_can_be_written_and_read_back(network, faces):
    net, other = network(), network()
    passes, fresh = BatchNormPasses(net, "separate"), BatchNormPasses(other, "separate")
    with passes.adversarial():
        net(faces)
    saved = {name: value.clone() for name, value in passes.state_dict().items()}
    assert any(not torch.equal(value, fresh.state_dict()[name]) for name, value in saved.items())
    fresh.load_state_dict(saved)
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in saved.items())
    assert BatchNormPasses(net, "joint").state_dict() == {}


def test_a_network_without_batchnorm_needs_nothing(network, faces):
    net = network(norms=False)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in net)
    passes = BatchNormPasses(net, "separate")
    with passes.adversarial():
        assert net(faces).shape == (8, 8)
    assert passes.state_dict() == {}
    assert not passes.starves_without_source


def test_shared_statistics_are_folded_in_a_fast_copy_as_any(network, faces):
    net = network()
    fast = frozen(net.eval())
    share_statistics(net, Ranks(rank=0, size=2))
    shared = frozen(net)
    assert [type(part) for part in shared.modules()] == [type(part) for part in fast.modules()]
    assert torch.equal(shared(faces), fast(faces))
