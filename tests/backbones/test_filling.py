"""What is loaded are weights: numbers, finite, of the right shape, and not all zero."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from steadface.backbones import Architecture, load_backbone
from steadface.backbones.weights import write_safetensors
from steadface.errors import SteadfaceError

from .networks import SMALL, SMALL_IRESNET, bare, same, seeded, trained

both = pytest.mark.parametrize("architecture", [SMALL, SMALL_IRESNET], ids=lambda a: a.name)
LAST = {"mobilefacenet": "features.layers.2.weight", "iresnet18": "fc.weight"}


def with_value(architecture: Architecture, key: str, value: float) -> dict[str, Tensor]:
    state = {name: tensor.clone() for name, tensor in bare(trained(architecture)).items()}
    state[key].view(-1)[0] = value
    return state


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(architecture: Architecture, dtype: torch.dtype, tmp_path: Path) -> None:
    state = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in bare(trained(architecture)).items()
    }
    torch.save(state, tmp_path / "w.pth")
    found = load_backbone(tmp_path / "w.pth").state_dict()
    for key, value in state.items():
        assert torch.equal(found[key], value.float() if value.is_floating_point() else value)
    assert {value.dtype for value in found.values()} == {torch.float32, torch.int64}


def test_tensors_that_share_storage_or_are_not_contiguous_are_copied(tmp_path: Path) -> None:
    saved = trained(SMALL)
    state = {key: value.t().contiguous().t() if value.dim() == 2 else value for key, value in bare(saved).items()}
    flat = torch.cat([value.reshape(-1) for value in state.values() if value.is_floating_point()])
    start = 0
    for key, value in state.items():
        if value.is_floating_point() and value.dim() != 2:
            state[key] = flat[start : start + value.numel()].view(value.shape)
        start += value.numel() if value.is_floating_point() else 0
    torch.save(state, tmp_path / "w.pth")
    found = load_backbone(tmp_path / "w.pth")
    assert same(found, saved)
    assert all(value.is_contiguous() for value in found.state_dict().values())


@both
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_named(architecture: Architecture, value: float, tmp_path: Path) -> None:
    key = LAST[architecture.name]
    save_file(with_value(architecture, key, value), tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError, match=f"{key} holds NaN or infinity"):
        load_backbone(tmp_path / "w.safetensors")


def test_what_overflows_float32_is_named(tmp_path: Path) -> None:
    state = {
        key: value.double() if key == "fc.weight" else value for key, value in bare(trained(SMALL_IRESNET)).items()
    }
    state["fc.weight"][0, 0] = 1e300
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError, match=r"fc\.weight holds NaN or infinity"):
        load_backbone(tmp_path / "w.safetensors")


def test_variances_below_zero_are_named(tmp_path: Path) -> None:
    save_file(with_value(SMALL_IRESNET, "bn2.running_var", -1.0), tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError, match=r"bn2\.running_var holds variances below 0"):
        load_backbone(tmp_path / "w.safetensors")


@both
def test_our_own_files_are_checked_alike(architecture: Architecture, tmp_path: Path) -> None:
    key = LAST[architecture.name]
    metadata = {"architecture": architecture.model_dump(mode="json")}
    write_safetensors(tmp_path / "w.safetensors", with_value(architecture, key, float("nan")), metadata)
    with pytest.raises(SteadfaceError, match=f"{key} holds NaN or infinity"):
        load_backbone(tmp_path / "w.safetensors")


@both
def test_weights_that_are_all_zero_are_refused(architecture: Architecture, tmp_path: Path) -> None:
    state = {key: torch.zeros_like(value) for key, value in bare(trained(architecture)).items()}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError, match=r"\d+ weights are all zero \(.*every face gets the same embedding"):
        load_backbone(tmp_path / "w.safetensors")
    state = bare(trained(architecture))
    state[LAST[architecture.name]] = torch.zeros_like(state[LAST[architecture.name]])
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError, match=rf"1 weights are all zero \({LAST[architecture.name]}\)"):
        load_backbone(tmp_path / "w.safetensors")


def test_a_branch_that_died_is_no_dead_network(tmp_path: Path) -> None:
    """A residual block may add nothing, as networks do whose last norms start at zero."""
    saved = trained(SMALL_IRESNET)
    with torch.no_grad():
        saved.get_parameter("layer1.1.bn3.weight").zero_()
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    assert same(load_backbone(tmp_path / "w.safetensors"), saved)


@pytest.mark.parametrize("kind", ["int8", "complex", "sparse", "meta"])
def test_what_is_no_plain_number_is_named(kind: str, tmp_path: Path) -> None:
    state = bare(trained(SMALL_IRESNET))
    weight = state["fc.weight"]
    state["fc.weight"] = {
        "int8": (100 * weight).to(torch.int8),
        "complex": weight.to(torch.complex64),
        "sparse": weight.to_sparse(),
        "meta": weight.to("meta"),
    }[kind]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(SteadfaceError, match=r"fc.weight is torch\.\w+ .*plain floating-point"):
        load_backbone(tmp_path / "w.pth")


def test_an_embedding_of_another_size_than_its_norm_is_named(tmp_path: Path) -> None:
    state = {**bare(trained(SMALL)), "features.layers.2.weight": torch.ones(9, 64)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError, match=r"4 of another shape: features.layers.3.bias \(8,\) instead of \(9,\)"):
        load_backbone(tmp_path / "w.safetensors")


def test_a_network_of_no_end_is_not_built(tmp_path: Path) -> None:
    state = bare(trained(SMALL))
    save_file({**state, "layers.3.layers.99999.layers.0.bias": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError, match=r"a part numbered 99999 among \d+ tensors"):
        load_backbone(tmp_path / "w.safetensors")
    for fields in ({"embedding_size": 10**9}, {"blocks": [10**9, 1, 1, 1]}, {"image_size": [10**6, 10**6]}):
        metadata = {"architecture": {**SMALL.model_dump(mode="json"), **fields}}
        write_safetensors(tmp_path / "w.safetensors", state, metadata)
        with pytest.raises(SteadfaceError, match="the architecture is not one that can be built"):
            load_backbone(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        (
            {"name": "iresnet18", "image_size": 512, "embedding_size": 65536, "blocks": [1, 1, 1, 1]},
            r"weights, and .*most",
        ),
        ({"image_size": 513}, "above 512"),
        ({"blocks": [250, 250, 250, 250]}, r"1000 blocks, and has \d+ tensors"),
    ],
)
def test_a_network_beyond_its_file_is_not_built(fields: dict[str, object], match: str, tmp_path: Path) -> None:
    metadata = {"architecture": {"name": "iresnet18", "width": 1, **fields}}
    write_safetensors(tmp_path / "w.safetensors", bare(trained(SMALL)), metadata)
    with pytest.raises(SteadfaceError, match=match):
        load_backbone(tmp_path / "w.safetensors")


def test_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    save_file(bare(trained(SMALL)), tmp_path / "w.safetensors")
    before = torch.random.get_rng_state()
    load_backbone(tmp_path / "w.safetensors")(torch.rand(1, 3, 32, 32, generator=seeded()))
    assert torch.equal(torch.random.get_rng_state(), before)
