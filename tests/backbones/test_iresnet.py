"""IResNet's key names and sizes, and its wiring against a functional reference."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.backbones import Architecture


@pytest.mark.parametrize(
    ("name", "keys", "millions"),
    [
        ("iresnet18", 187, 24.03),
        ("iresnet34", 331, 34.14),
        ("iresnet50", 475, 43.59),
        ("iresnet100", 925, 65.16),
        ("iresnet152", 943, 71.14),
        ("iresnet200", 1807, 118.7),
    ],
)
def test_key_and_parameter_counts_of_the_published_networks(name: str, keys: int, millions: float) -> None:
    network = Architecture(name=name).skeleton()
    assert len(network.state_dict()) == keys
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_keys_and_shapes_are_insightface_s() -> None:
    network = Architecture(name="iresnet50").skeleton()
    found = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert found["conv1.weight"] == (64, 3, 3, 3)
    assert found["prelu.weight"] == (64,)
    assert found["layer1.0.downsample.0.weight"] == (64, 64, 1, 1)
    assert found["layer4.0.downsample.1.running_mean"] == (512,)
    assert found["layer3.13.bn3.weight"] == (256,)
    assert found["layer2.3.conv2.weight"] == (128, 128, 3, 3)
    assert "layer2.1.downsample.0.weight" not in found
    assert found["bn2.bias"] == (512,)
    assert found["fc.weight"] == (512, 25088)
    assert found["features.weight"] == (512,)


def reference(state: dict[str, Tensor], pixels: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """The network in evaluation mode, written out by key."""

    def norm(x: Tensor, key: str) -> Tensor:
        mean, variance = state[f"{key}.running_mean"], state[f"{key}.running_var"]
        return F.batch_norm(x, mean, variance, state[f"{key}.weight"], state[f"{key}.bias"], eps=1e-5)

    x = norm(F.conv2d(pixels, state["conv1.weight"], padding=1), "bn1")
    x = F.prelu(x, state["prelu.weight"])
    for layer, depth in enumerate(blocks, start=1):
        for i in range(depth):
            key, stride = f"layer{layer}.{i}", 2 if i == 0 else 1
            y = F.conv2d(norm(x, f"{key}.bn1"), state[f"{key}.conv1.weight"], padding=1)
            y = F.prelu(norm(y, f"{key}.bn2"), state[f"{key}.prelu.weight"])
            y = norm(F.conv2d(y, state[f"{key}.conv2.weight"], stride=stride, padding=1), f"{key}.bn3")
            if i == 0:
                x = norm(F.conv2d(x, state[f"{key}.downsample.0.weight"], stride=2), f"{key}.downsample.1")
            x = x + y
    x = F.linear(norm(x, "bn2").flatten(1), state["fc.weight"], state["fc.bias"])
    return norm(x, "features")


def test_wiring_is_that_of_the_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    architecture = Architecture(name="iresnet18", width=0.125, image_size=(48, 40), embedding_size=6)
    network = architecture.build(generator).double()
    pixels = torch.randn(4, 3, 48, 40, generator=generator, dtype=torch.float64)
    for _ in range(3):  # so that the statistics are not those of initialisation
        network.embed(pixels + torch.randn(pixels.shape, generator=generator, dtype=torch.float64))
    for parameter in network.parameters():
        noise = 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.add_(noise)
    network.eval()
    torch.testing.assert_close(network.embed(pixels), reference(network.state_dict(), pixels, architecture.blocks))  # type: ignore[attr-defined]


def test_the_last_norm_is_not_rescaled_by_training() -> None:
    network = Architecture(name="iresnet18", width=0.125, image_size=(16, 16)).build(torch.Generator())
    frozen = [key for key, parameter in network.named_parameters() if not parameter.requires_grad]
    assert frozen == ["features.weight"]
    assert torch.equal(network.get_parameter("features.weight"), torch.ones(512))
