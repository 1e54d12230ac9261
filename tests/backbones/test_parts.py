"""The same network comes out of whatever people wrap its state dict in; what fits nothing is listed."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from steadface.backbones import Architecture, Backbone, load_backbone
from steadface.errors import SteadfaceError
from steadface.recognizers import open_recognizer

from .networks import SMALL, SMALL_IRESNET, bare, same, seeded, trained

both = pytest.mark.parametrize("architecture", [SMALL, SMALL_IRESNET], ids=lambda a: a.name)
HEAD = {"head.weight": torch.ones(3, 8), "fc7.weight": torch.ones(3, 8), "kernel": torch.ones(8, 3)}


def loaded(content: Any, file: Path) -> Backbone:
    torch.save(content, file)
    return load_backbone(file)


def refusal(content: Any, file: Path) -> str:
    with pytest.raises(SteadfaceError) as caught:
        loaded(content, file)
    return str(caught.value)


@both
def test_wrappers_are_looked_through(architecture: Architecture, tmp_path: Path) -> None:
    """Bitwise the same embedding as from the bare state dict."""
    saved, file = trained(architecture), tmp_path / "w.pth"
    images = torch.rand(2, 3, 32, 32, generator=seeded(7))
    state, expected = OrderedDict(bare(saved)), loaded(bare(saved), file)(images)
    names = ("model", "net", "state_dict", "state_dict_backbone", "model_state_dict", "network", "backbone", "anything")
    for name in names:
        assert torch.equal(loaded({"epoch": 3, name: state, "lr": 0.1}, file)(images), expected)
    assert same(loaded({"checkpoint": {"state_dict": {"model": state}}, "version": "1"}, file), saved)
    assert same(loaded([state, 7], file), saved)


@both
@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "model.",
        "net.",
        "encoder.",
        "backbone.",
        "module._orig_mod.backbone.",
        "a.b.c.features.",
    ],
)
def test_prefixes_are_looked_through(prefix: str, architecture: Architecture, tmp_path: Path) -> None:
    saved = trained(architecture)
    assert same(loaded({"state_dict": bare(saved, prefix)}, tmp_path / "w.pth"), saved)
    save_file(bare(saved, prefix), tmp_path / "w.safetensors")
    assert same(load_backbone(tmp_path / "w.safetensors"), saved)


@both
def test_wrappers_of_single_layers_are_looked_through(architecture: Architecture, tmp_path: Path) -> None:
    """As `torch.compile` and FSDP leave them where they wrap a part of the network."""
    saved = trained(architecture)
    for wrapper in ("_orig_mod.", "module.", "_fsdp_wrapped_module._checkpoint_wrapped_module."):
        state = {key.replace("layer1.0.", f"layer1.0.{wrapper}"): value for key, value in bare(saved).items()}
        state = {key.replace("conv_sep.", f"conv_sep.{wrapper}"): value for key, value in state.items()}
        assert any(wrapper in key for key in state)
        assert same(loaded(state, tmp_path / "w.pth"), saved)


@both
def test_what_is_no_part_of_the_network_is_left_out_and_said(architecture: Architecture, tmp_path: Path) -> None:
    saved, file = trained(architecture), tmp_path / "w.pth"
    assert loaded(bare(saved), file).notes == ()
    found = loaded({**bare(saved), **HEAD}, file)
    assert same(found, saved)
    (note,) = found.notes
    assert f"{file}: left out is what is no part of the network: head.weight (3, 8), fc7.weight (3, 8), kernel" in note
    assert open_recognizer(file).notes == found.notes
    beside = {**bare(saved, "model."), "head.kernel": torch.ones(8, 3), "t": torch.ones(1)}
    assert "head.kernel (8, 3), t (1,)" in loaded({"state_dict": beside}, file).notes[0]


def test_what_lies_inside_the_network_s_own_parts_must_belong_to_it(tmp_path: Path) -> None:
    state = {**bare(trained(SMALL_IRESNET)), "layer1.0.se.fc1.weight": torch.ones(4, 4)}
    assert "1 unexpected: layer1.0.se.fc1.weight" in refusal(state, tmp_path / "w.pth")


def test_the_part_that_fits_is_taken_beside_head_optimiser_and_others(tmp_path: Path) -> None:
    saved, file = trained(SMALL), tmp_path / "w.pth"
    backbone = trained(SMALL)
    optimizer = torch.optim.Adam(backbone.parameters())
    for parameter in backbone.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    checkpoint = {
        "state_dict_softmax_fc": {"weight": torch.ones(3, 8)},
        "state_optimizer": optimizer.state_dict(),
        "state_dict_backbone": bare(saved, "module."),
    }
    assert same(loaded(checkpoint, file), saved)
    damaged = bare(trained(SMALL, 5))
    del damaged["conv_sep.layers.1.bias"]
    found = loaded({"teacher": damaged, **checkpoint}, file)
    assert same(found, saved)
    assert "taken is state_dict_backbone, which fits, of teacher, state_dict_backbone" in found.notes[0]


def test_of_several_networks_that_fit_none_is_guessed(tmp_path: Path) -> None:
    raw, average, file = trained(SMALL), trained(SMALL, 5), tmp_path / "w.pth"
    message = refusal({"state_dict": bare(raw), "ema": {"module": bare(average)}}, file)
    assert "holds 2 networks that fit (state_dict, ema.module)" in message
    assert 'load_backbone(FILE, part="ema.module").state_dict(), NEW)' in message
    assert same(load_backbone(file, part="ema.module"), average)
    assert same(load_backbone(file, part="state_dict"), raw)
    with pytest.raises(SteadfaceError, match=r"no network named 'teacher', but state_dict, ema\.module"):
        load_backbone(file, part="teacher")
    save_file({**bare(raw, "model."), **bare(average, "model_ema.")}, tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError, match=r"2 networks that fit \(model, model_ema\)"):
        load_backbone(tmp_path / "w.safetensors")
    both_ways = {**bare(raw), **bare(average, "module.")}
    assert "2 networks that fit (the outermost, module)" in refusal(both_ways, file)
    assert same(load_backbone(file, part="module"), average)
    assert same(load_backbone(file, part=""), raw)


def test_a_network_that_is_there_twice_is_no_question(tmp_path: Path) -> None:
    saved = trained(SMALL)
    assert same(loaded({"model": bare(saved), "state_dict": bare(saved, "module.")}, tmp_path / "w.pth"), saved)


def test_a_dict_inside_itself_ends(tmp_path: Path) -> None:
    saved = trained(SMALL)
    content: dict[str, Any] = {"epoch": 1}
    content["self"] = content
    assert "holds no network" in refusal(content, tmp_path / "w.pth")
    content["model"] = bare(saved)
    assert same(loaded(content, tmp_path / "w.pth"), saved)


def resnet() -> dict[str, Tensor]:
    """Some of torchvision's keys, whose network lacks the slopes and the last norms."""
    keys = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer2.0.conv1.weight", "layer3.0.conv1.weight")
    return {key: torch.ones(64, 3, 7, 7) for key in keys}


@pytest.mark.parametrize(
    ("content", "listed"),
    [
        (torch.ones(2, 3), r"but tensor \(2, 3\)\."),
        ([], r"but list of 0\."),
        ({"a": torch.ones(2), "b": torch.ones(3)}, r"but a \(2,\), b \(3,\)\."),
        ({str(i): torch.ones(i) for i in range(5)}, r"but 0 \(0,\), 1 \(1,\), 2 \(2,\), ... \(5 tensors\)\."),
        ({"epoch": 3, "net": {"a": torch.ones(2)}, "x": {}}, r"but epoch \(int\), net \(a \(2,\)\), x \(dict of 0\)\."),
        (dict.fromkeys("abcdefgh", 1), r"f \(int\) and 2 more\."),
        ({"x" * 10_000: torch.ones(2)}, r"but x{60}\.\.\. \(2,\)\."),
        ({"model": resnet()}, "Nearest is InsightFace's iresnet, without prelu.weight, layer1.0.bn1.weight, "),
        ({"m.conv2d_1a.conv.weight": torch.ones(2)}, "like facenet-pytorch's InceptionResnetV1, which is not built"),
    ],
)
def test_what_fits_nothing_is_listed_with_what_comes_nearest(content: Any, listed: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(SteadfaceError, match=f"w.pth: holds no network of a known layout, .*{listed}") as caught:
        load_backbone(tmp_path / "w.pth")
    assert "give code that makes it" in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 1000


def test_networks_without_end_are_not_built(tmp_path: Path) -> None:
    state = bare(trained(SMALL))
    assert "more than 32 networks" in refusal({f"net{n}": dict(state) for n in range(100)}, tmp_path / "w.pth")
