"""MobileFaceNet's key names, shapes and sizes, which people's weights depend on."""

import pytest

from steadface.backbones import Architecture


def shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in architecture.skeleton().state_dict().items()}


def test_published_network_has_a_million_parameters_and_insightface_keys() -> None:
    found = shapes(Architecture(width=1, embedding_size=128))
    assert len(found) == 333
    assert found["layers.0.layers.0.weight"] == (64, 3, 3, 3)
    assert found["layers.1.layers.0.weight"] == (64, 1, 3, 3)
    assert found["layers.2.layers.0.layers.0.weight"] == (128, 64, 1, 1)
    assert found["layers.3.layers.3.layers.1.layers.2.weight"] == (128,)
    assert found["layers.4.layers.2.layers.0.weight"] == (128, 256, 1, 1)
    assert found["layers.6.layers.1.layers.0.weight"] == (512, 1, 3, 3)
    assert found["layers.7.layers.1.layers.2.layers.1.running_var"] == (128,)
    assert found["conv_sep.layers.0.weight"] == (512, 128, 1, 1)
    assert found["features.layers.0.layers.0.weight"] == (512, 1, 7, 7)
    assert found["features.layers.2.weight"] == (128, 512)
    assert found["features.layers.3.bias"] == (128,)
    network = Architecture(width=1, embedding_size=128).skeleton()
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters / 1e6 == pytest.approx(0.99, abs=0.02)


def test_double_width_widens_only_the_ends_of_the_bottlenecks() -> None:
    found = shapes(Architecture(width=2))
    assert found["layers.1.layers.0.weight"] == (128, 2, 3, 3)
    assert found["layers.3.layers.0.layers.0.layers.0.weight"] == (128, 128, 1, 1)
    assert found["layers.6.layers.0.layers.0.weight"] == (512, 256, 1, 1)
    assert found["conv_sep.layers.0.weight"] == (512, 256, 1, 1)


@pytest.mark.parametrize("width", [0.05, 0.25, 0.336, 0.5, 1.5, 3.0])
def test_any_width_can_be_built(width: float) -> None:
    found = shapes(Architecture(width=width))
    narrow = found["layers.0.layers.0.weight"][0]
    assert narrow == max(1, round(64 * width))
    assert found["layers.5.layers.0.layers.0.layers.0.weight"][1] == 2 * narrow
    assert found["conv_sep.layers.0.weight"][0] == (512 if width >= 1 else 8 * narrow)


def test_depth_is_free_and_a_deep_first_stage_is_residual() -> None:
    found = shapes(Architecture(blocks=(3, 0, 1, 5)))
    assert found["layers.1.layers.2.layers.1.layers.0.weight"] == (128, 1, 3, 3)
    assert "layers.1.layers.3.layers.0.layers.0.weight" not in found
    assert not any(key.startswith("layers.3.") for key in found)
    assert "layers.7.layers.4.layers.2.layers.1.bias" in found
