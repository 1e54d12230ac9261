"""Layers with cheap gradients compute what PyTorch's own compute."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadface.backbones import base


def randoms(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def values_and_gradients(layer, x, seed=7):
    x = x.clone().requires_grad_(True)
    y = layer(x)
    y.backward(randoms(*y.shape, seed=seed).to(y.dtype))
    return y.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())


def test_compiled_a_rectifier_is_the_one_that_it_is_otherwise(monkeypatch):
    plain, own = nn.PReLU(5).double(), base.PReLU(5).double()
    with torch.no_grad():
        for layer in (plain, own):
            layer.weight.copy_(torch.tensor([-0.3, 0.0, 0.25, 1.0, 1.7]))
    x = randoms(4, 5, 6, 7).double()
    assert torch.equal(own(x), plain(x))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert own(x).grad_fn.name() != plain(x).grad_fn.name()
    for one, other in zip(values_and_gradients(own, x), values_and_gradients(plain, x), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("slopes", [[-0.3, 0.0, 0.25, 1.0, 1.7], [0.25]])
def test_compiled_a_rounded_corner_is_the_one_that_it_is_otherwise(slopes, monkeypatch):
    own = base.PReLU(len(slopes)).double()
    own.corner = 0.3
    with torch.no_grad():
        own.weight.copy_(torch.tensor(slopes))
    x = randoms(4, 5, 6, 7).double()
    assert torch.autograd.gradcheck(own, (x[:2, :, :2, :2].clone().requires_grad_(),))
    found = values_and_gradients(own, x)
    own.zero_grad()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for one, other in zip(found, values_and_gradients(own, x), strict=True):
        torch.testing.assert_close(one, other)


def test_a_rounded_corner_is_smooth_and_near_the_sharp_one():
    sharp, own = nn.PReLU(2).double(), base.PReLU(2).double()
    with torch.no_grad():
        for layer in (sharp, own):
            layer.weight.copy_(torch.tensor([-0.5, 0.25]))
    own.corner = 0.3
    x = torch.linspace(-30, 30, 601, dtype=torch.float64).view(-1, 1).expand(-1, 2)
    gap = (own(x) - sharp(x)).detach()
    assert torch.equal(own(torch.zeros(1, 2, dtype=torch.float64)), torch.zeros(1, 2, dtype=torch.float64))
    farthest = -0.3 * (0.5 - 0.5 * sharp.weight.detach())
    torch.testing.assert_close(gap.amin(0), farthest, rtol=0.01, atol=0)
    assert (gap <= 0).all()
    _, slope, _ = values_and_gradients(own, x)
    seeds = randoms(601, 2, seed=7).double()
    slope = slope / seeds
    assert (slope.diff(dim=0).abs().amax(0) < 0.4 * (1 - own.weight.detach())).all(), "nowhere a jump from w to 1"
    torch.testing.assert_close(
        slope[[0, -1]], torch.stack([own.weight.detach(), torch.ones(2)]).double(), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 3)])
def test_in_bf16_a_depthwise_convolution_has_the_gradients_of_the_usual_one(kernel, stride, size):
    own = base.DepthwiseConv2d(6, kernel, stride=stride)
    plain = nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=6, bias=False)
    plain.load_state_dict(own.state_dict())
    x = randoms(3, 6, size, size).bfloat16()
    found = values_and_gradients(own, x)
    expected = values_and_gradients(plain, x.float())  # the exact ones: bf16 keeps 8 bits
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other.float(), atol=0.05, rtol=0.03)


@pytest.mark.parametrize("padding", [(0, 0), (1, 0), (1, 2)])
@pytest.mark.parametrize("under_autocast", [True, False])
def test_so_it_has_with_any_padding_stride_and_kernel(padding, under_autocast):
    weight, bias, x = randoms(6, 1, 3, 5), randoms(6), randoms(3, 6, 9, 8)
    own = functools.partial(base.conv2d, stride=(2, 3), padding=padding, dilation=(1, 1), groups=6)
    usual = functools.partial(F.conv2d, stride=(2, 3), padding=padding, groups=6)
    taken = [x.bfloat16(), weight, bias] if not under_autocast else [x, weight, bias]
    results = []
    for function, given, dtype in ((own, taken, torch.bfloat16), (usual, [x.bfloat16().float(), weight, bias], None)):
        leaves = [one.clone().requires_grad_() for one in given]
        with torch.autocast("cpu", dtype, enabled=under_autocast and dtype is not None):
            y = function(*leaves)
        assert dtype is None or y.dtype == dtype
        results.append([y.detach(), *torch.autograd.grad(y.float().square().sum(), leaves)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one.float(), other, atol=0.03 * float(other.abs().max()), rtol=0.05)


def test_in_bf16_a_bias_is_added_as_usual():
    own = base.DepthwiseConv2d(4, 3, stride=2)
    x = randoms(2, 4, 8, 8).bfloat16()
    before = own(x)
    own.bias = nn.Parameter(torch.arange(4.0))
    torch.testing.assert_close(own(x), before + torch.arange(4.0).bfloat16().view(-1, 1, 1))
