"""Fast copies: the same function and the same input gradient, and the original as it was."""

import copy

import pytest
import torch
from torch import nn

from steadface.backbones import Architecture
from steadface.backbones.base import PReLU
from steadface.backbones.frozen import NEGLIGIBLE, FrozenPReLU, Shift, fold_norms, frozen, frozen_where_alike

from ..rounding import rounding


def network(name):
    blocks = (1, 1, 1, 1)
    architecture = Architecture(name=name, width=0.25, blocks=blocks, embedding_size=16, image_size=(32, 32))
    built = architecture.build(torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in built.modules():
            if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):  # statistics that folding must not ignore
                part.running_mean.normal_(generator=generator)
                part.running_var.uniform_(0.5, 2, generator=generator)
                part.weight.uniform_(0.5, 1.5, generator=generator)
                part.bias.normal_(generator=generator)
            if isinstance(part, nn.PReLU):
                part.weight.uniform_(-0.5, 1, generator=generator)
    return built


@pytest.fixture(params=["mobilefacenet", "iresnet18"])
def original(request):
    return network(request.param)


def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def embedded_and_gradient(network):
    x = images().requires_grad_(True)
    embedded = network(x)
    (gradient,) = torch.autograd.grad(embedded.square().sum(), x)
    return embedded.detach(), gradient


def test_embeddings_and_input_gradients_are_those_of_the_original(original):
    fast = frozen(original.eval())
    for one, other in zip(embedded_and_gradient(original), embedded_and_gradient(fast), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9 * float(one.abs().max()))


def test_no_batchnorm_is_left_that_can_be_folded(original):
    left = [part for part in frozen(original).modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d)]
    # IResNet normalises before its first convolutions, whose padding is of zeros, and before it flattens.
    expected = 0 if original.architecture.name == "mobilefacenet" else sum(original.architecture.blocks) + 1
    assert len(left) == expected


def test_the_original_stays_as_it_was(original):
    original.train()
    before = {name: value.clone() for name, value in original.state_dict().items()}
    fast = frozen(original)
    fast(images())
    assert original.training
    assert all(parameter.requires_grad for name, parameter in original.named_parameters() if name != "features.weight")
    assert all(torch.equal(before[name], value) for name, value in original.state_dict().items())
    assert not fast.training
    assert not any(parameter.requires_grad for parameter in fast.parameters())


class Normalised(nn.Module):
    """Divides by a length that a number of its own keeps above zero."""

    def __init__(self):
        super().__init__()
        self.least = nn.Parameter(torch.tensor([1e-30]))

    def forward(self, x):
        return x / x.square().sum(1, keepdim=True).sqrt().clamp_min(self.least)


def test_channels_that_died_become_zero_and_no_embedding_changes():
    generator = torch.Generator().manual_seed(7)
    parts = [nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 6, 3), nn.Flatten(), Normalised()]
    network = nn.Sequential(*parts).requires_grad_(False)
    for part, dead in ((parts[0].weight[2:5], 1e-25), (parts[0].bias[2:5], 1e-22), (parts[1].weight[2:5], 1e-30)):
        part.copy_(dead * torch.randn(part.shape, generator=generator))
    parts[2].weight[:, 2:5] *= 1e-24
    x = torch.rand(2, 3, 8, 8, generator=generator)
    fast = frozen(network)
    torch.testing.assert_close(fast(x), network(x))  # in another order of sums, since channels lie last
    for place in (0, 1, 2):
        before, after = network[place].weight, fast[place].weight
        assert (before.abs() < NEGLIGIBLE).any()
        assert torch.equal(after, torch.where(before.abs() < NEGLIGIBLE, 0, before))
    assert fast[4].least == network[4].least, "which is no weight of a channel"


def test_it_is_still_a_backbone(original):
    fast = frozen(original)
    assert fast.architecture == original.architecture
    assert fast.image_size == (32, 32)


def test_prelu_without_weight_gradients_passes_gradcheck():
    generator = torch.Generator().manual_seed(3)
    for channels in (1, 4):
        weight = torch.rand(channels, generator=generator, dtype=torch.float64) - 0.3
        x = torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
        assert torch.equal(FrozenPReLU(weight)(x), torch.prelu(x, weight))
        assert torch.autograd.gradcheck(FrozenPReLU(weight), (x,))


def test_a_rounded_corner_stays_rounded():
    generator = torch.Generator().manual_seed(6)
    for channels in (1, 4):
        layer = PReLU(channels).double()
        layer.corner = 0.5
        fast = FrozenPReLU(layer.weight, 0.5)
        x = torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
        torch.testing.assert_close(fast(x), layer(x))
        assert torch.autograd.gradcheck(fast, (x,))


def test_a_rounded_network_computes_the_same(original):
    sharp, _ = embedded_and_gradient(frozen(original))
    original.round_corners(0.3)
    found = embedded_and_gradient(frozen(original))
    torch.testing.assert_close(found, embedded_and_gradient(original.eval()))
    assert not torch.allclose(found[0], sharp)


def test_other_modules_are_frozen_too_and_compute_the_same():
    generator = torch.Generator().manual_seed(4)
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten())
    x = torch.rand(2, 3, 8, 8, generator=generator)
    expected = other.eval()(x).detach()
    assert torch.allclose(frozen(other)(x), expected, atol=rounding(27, float(expected.abs().max())))


def test_a_prelu_after_a_linear_layer_is_frozen_too():
    chain = nn.Sequential(nn.Linear(4, 3), nn.PReLU(3, 0.3)).double()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)
    gradients = [torch.autograd.grad(part(x).square().sum(), x)[0] for part in (chain, frozen(chain))]
    torch.testing.assert_close(*gradients)


def test_under_bf16_autocast_embeddings_and_gradients_keep_their_directions(original):
    fast, x = frozen(original).float(), images().float().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        embedded = fast(x)
    (rounded,) = torch.autograd.grad(embedded.square().sum(), x)
    exact, gradient = embedded_and_gradient(fast.double())
    assert (nn.functional.cosine_similarity(embedded.double(), exact) > 0.99).all()
    assert nn.functional.cosine_similarity(rounded.double().flatten(), gradient.flatten(), dim=0) > 0.9


def test_a_second_derivative_is_refused(original):
    x = images().requires_grad_(True)
    (gradient,) = torch.autograd.grad(frozen(original)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(gradient.sum(), x)


def test_what_folding_left_of_a_batchnorm_is_folded_too(original):
    fold_norms(original.eval())
    fast = frozen(original)
    assert not any(isinstance(part, Shift) for part in fast.modules()) or original.architecture.name != "mobilefacenet"
    for one, other in zip(embedded_and_gradient(original), embedded_and_gradient(fast), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9 * float(one.abs().max()))


class Halves(nn.Sequential):
    """Applies its children in another order than they stand in."""

    def forward(self, x):
        convolution, norm, last = self
        return last(torch.relu(convolution(x)) + norm(convolution(x))).mean((2, 3))


class Signed(nn.Sequential):
    """Every copy has another sign."""

    sign = 1

    def forward(self, x):
        return self.sign * super().forward(x)

    def __deepcopy__(self, memo):
        other = Signed(*(copy.deepcopy(part, memo) for part in self))
        other.sign = -self.sign
        return other


def chain(kind=nn.Sequential):
    torch.manual_seed(6)
    made = kind(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 10) if kind is not Halves else nn.Conv2d(4, 8, 3)
    )
    made[1].running_mean.normal_()
    made[1].running_var.uniform_(0.5, 2)
    made.image_size = (12, 12)
    return made.eval()


def hooked():
    made = chain()
    made[0].register_forward_hook(lambda _module, _given, found: found.relu())
    return made


def normalised():
    made = chain()
    made[0] = WeightNorm()
    return made


class WeightNorm(nn.Conv2d):
    """Cannot be copied once it has run with gradients, as `weight_norm` of old cannot."""

    def __init__(self):
        super().__init__(3, 4, 3)

    def __deepcopy__(self, memo):
        raise RuntimeError("only tensors created explicitly by the user can be copied")


@pytest.mark.parametrize("make", [lambda: chain(Halves), lambda: chain(Signed), hooked, normalised])
def test_what_a_copy_would_not_embed_alike_is_used_itself(make):
    made = make()
    assert frozen_where_alike(made) is made


def test_what_it_embeds_alike_is_folded():
    left = [part for part in frozen_where_alike(chain()).modules() if isinstance(part, nn.BatchNorm2d)]
    assert not left
