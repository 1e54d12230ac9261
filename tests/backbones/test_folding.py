"""A folded network computes what it did, learns, and is read back as a plain one."""

import pytest
import torch
from torch import nn

from steadface.backbones import Architecture, load_backbone, save_backbone
from steadface.backbones.frozen import Shift, fold_map, fold_norms, frozen

NETWORKS = {
    "mobilefacenet": {"width": 0.125, "blocks": (1, 1, 1, 1)},
    "iresnet18": {"width": 0.0625},
}


def network(name, seed=0):
    """A small one in evaluation mode whose BatchNorms hold statistics and weights of their own."""
    generator = torch.Generator().manual_seed(seed)
    architecture = Architecture(name=name, image_size=(32, 32), embedding_size=8, **NETWORKS[name])
    built = architecture.build(generator).eval()
    with torch.no_grad():
        for part in built.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.copy_(0.3 * torch.randn(part.num_features, generator=generator))
                part.running_var.copy_(0.5 + torch.rand(part.num_features, generator=generator))
                part.weight.copy_(0.5 + torch.rand(part.num_features, generator=generator))
                part.bias.copy_(0.3 * torch.randn(part.num_features, generator=generator))
    return built


@pytest.fixture
def images():
    return torch.rand((5, 3, 32, 32), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_it_did(name, images):
    plain, folded = network(name), network(name)
    fold_norms(folded)
    assert any(isinstance(part, Shift) for part in folded.modules())
    torch.testing.assert_close(folded(images), plain(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_it_has_learnt_is_read_back_by_a_plain_network(name, images, tmp_path):
    folded = network(name)
    fold_norms(folded)
    optimizer = torch.optim.SGD([p for p in folded.parameters() if p.requires_grad], lr=1e-4)
    for _ in range(3):
        optimizer.zero_grad()
        folded(images).square().mean().backward()
        optimizer.step()
    save_backbone(tmp_path / "folded.safetensors", folded, {})
    plain = load_backbone(tmp_path / "folded.safetensors")
    assert not any(isinstance(part, Shift) for part in plain.modules())
    with torch.no_grad():
        torch.testing.assert_close(plain(images), folded(images), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(plain(images), network(name)(images), atol=1e-4)


def test_the_names_of_the_state_stay():
    plain, folded = network("mobilefacenet"), network("mobilefacenet")
    fold_norms(folded)
    assert {name: value.shape for name, value in folded.state_dict().items()} == {
        name: value.shape for name, value in plain.state_dict().items()
    }


def test_scale_and_statistics_are_not_learnt():
    folded = network("mobilefacenet")
    fold_norms(folded)
    for part in folded.modules():
        if isinstance(part, Shift):
            assert not part.weight.requires_grad
            assert part.bias.requires_grad


def test_the_order_of_training_and_evaluation_makes_no_difference(images):
    folded = network("mobilefacenet")
    fold_norms(folded)
    torch.testing.assert_close(folded.train()(images), folded.eval()(images))


def test_a_frozen_copy_computes_the_same(images):
    folded = network("mobilefacenet")
    fold_norms(folded)
    torch.testing.assert_close(frozen(folded)(images), folded(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_linear_map_of_what_it_gives_is_folded_in_and_read_back(name, images, tmp_path):
    plain, mapped = network(name), network(name)
    matrix = torch.randn((8, 8), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    fold_map(mapped, matrix)
    expected = plain(images) @ matrix.T.float()
    torch.testing.assert_close(mapped(images), expected, atol=1e-4, rtol=1e-4)
    save_backbone(tmp_path / "mapped.safetensors", mapped, {})
    torch.testing.assert_close(load_backbone(tmp_path / "mapped.safetensors")(images), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("given", [network("mobilefacenet"), nn.Sequential(nn.Conv2d(3, 7, 1), nn.BatchNorm2d(7))])
def test_a_map_of_another_size_has_no_layer_to_go_into(given):
    with pytest.raises(ValueError, match="does not end in a linear layer of 7 outputs"):
        fold_map(given, torch.eye(7))
