"""Files of weights: ours, other people's, and those that are refused."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from steadface.backbones import Architecture, load_backbone, read_metadata, save_backbone
from steadface.backbones.weights import write_safetensors
from steadface.errors import SteadfaceError

from .networks import SMALL, SMALL_IRESNET, bare, same, seeded, trained


@pytest.mark.parametrize("architecture", [SMALL, SMALL_IRESNET], ids=lambda a: a.name)
def test_what_is_saved_comes_back_bitwise(architecture: Architecture, tmp_path: Path) -> None:
    saved, path = trained(architecture.model_copy(update={"std": 128.0})), tmp_path / "model.safetensors"
    save_backbone(path, saved, {"step": 3})
    state = torch.random.get_rng_state()
    loaded = load_backbone(path)
    assert torch.equal(state, torch.random.get_rng_state())
    assert same(saved, loaded)
    assert not loaded.training
    assert read_metadata(path) == {"step": 3, "architecture": saved.architecture.model_dump(mode="json")}
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_rounded_corners_come_back(tmp_path: Path) -> None:
    saved, images = trained(SMALL), torch.rand(2, 3, 32, 32, generator=seeded(9))
    sharp = saved(images)
    saved.round_corners(0.5)
    save_backbone(tmp_path / "model.safetensors", saved, {})
    loaded = load_backbone(tmp_path / "model.safetensors")
    assert same(saved, loaded)
    assert torch.equal(saved(images), loaded(images))
    assert not torch.allclose(loaded(images), sharp)


def test_a_network_in_channels_last_is_saved(tmp_path: Path) -> None:
    saved = trained(SMALL).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_backbone(tmp_path / "model.safetensors", saved, {})
    assert same(saved, load_backbone(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("more", [{}, {"in bf16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}])
def test_files_have_the_bytes_of_safetensors(more: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Whichever way they are written."""
    types = (torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool)
    tensors = {str(kind): torch.tensor([[0, 1], [1, 0]]).to(kind) for kind in types} | more
    tensors |= {"none": torch.empty(0, 3), "one": torch.tensor(2.5)}
    write_safetensors(tmp_path / "w.safetensors", tensors, {"a": 1})
    assert (tmp_path / "w.safetensors").read_bytes() == save(tensors, {"steadface": '{"a": 1}'})


def test_a_training_checkpoint_gives_its_backbone_only(tmp_path: Path) -> None:
    saved = trained(SMALL)
    tensors = {**bare(saved, "backbone."), "head.weight": torch.zeros(3, 8), "optimizer.0": torch.zeros(2)}
    metadata = {"architecture": SMALL.model_dump(mode="json")}
    write_safetensors(tmp_path / "step-10.safetensors", tensors, metadata)
    assert same(saved, load_backbone(tmp_path / "step-10.safetensors"))


def test_a_run_folder_gives_its_model_or_else_the_newest_checkpoint(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    with pytest.raises(SteadfaceError, match="is not a run folder"):
        load_backbone(tmp_path)
    for step in (9, 10, 2):
        save_backbone(checkpoints / f"step-{step}.safetensors", trained(SMALL, step), {})
    (checkpoints / ".step-11.safetensors.partial").write_bytes(b"killed while writing")
    assert same(load_backbone(tmp_path), trained(SMALL, 10))
    save_backbone(tmp_path / "model.safetensors", trained(SMALL, 1), {})
    assert same(load_backbone(tmp_path), trained(SMALL, 1))


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("architecture", [SMALL, SMALL_IRESNET], ids=lambda a: a.name)
def test_the_architecture_of_a_bare_state_dict_is_read_off_its_shapes(
    architecture: Architecture, nested: bool, prefix: str, tmp_path: Path
) -> None:
    saved = trained(architecture)
    state: dict[str, Any] = bare(saved, prefix)
    torch.save({"epoch": 3, "state_dict": state} if nested else state, tmp_path / "backbone.pth")
    assert same(saved, load_backbone(tmp_path / "backbone.pth"))


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 1.0, "embedding_size": 128, "blocks": (1, 2, 1, 1)},
        {"width": 0.336, "embedding_size": 4, "blocks": (2, 1, 1, 3), "image_size": (48, 80)},
        {"name": "iresnet34", "width": 0.125, "embedding_size": 16, "image_size": (112, 96)},
    ],
)
def test_width_depth_and_sizes_are_inferred(fields: dict[str, Any], tmp_path: Path) -> None:
    saved = Architecture.model_validate(fields).build(seeded())
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    found = load_backbone(tmp_path / "w.safetensors").architecture
    ours = saved.architecture
    assert (found.name, found.blocks, found.embedding_size) == (ours.name, ours.blocks, ours.embedding_size)  # type: ignore[attr-defined]
    assert found.image_size == ours.image_size
    assert round(64 * found.width) == round(64 * ours.width)  # type: ignore[attr-defined]


def test_pixel_normalisation_can_be_stated(tmp_path: Path) -> None:
    save_file(trained(SMALL).state_dict(), tmp_path / "w.safetensors")
    assert load_backbone(tmp_path / "w.safetensors").architecture.std == 127.5
    stated = load_backbone(tmp_path / "w.safetensors", mean=0.0, std=128.0).architecture
    assert (stated.mean, stated.std) == (0.0, 128.0)


def test_an_image_size_that_the_weights_leave_open_must_be_given(tmp_path: Path) -> None:
    saved = trained(SMALL_IRESNET.model_copy(update={"image_size": (32, 48)}))
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError, match="give image_size"):
        load_backbone(tmp_path / "w.safetensors")
    assert same(load_backbone(tmp_path / "w.safetensors", image_size=(32, 48)), saved)
    with pytest.raises(SteadfaceError, match=r"1 of another shape: fc.weight \(8, 192\) instead of \(8, 512\)"):
        load_backbone(tmp_path / "w.safetensors", image_size=(64, 64))


def test_missing_counters_of_batches_are_no_misfit(tmp_path: Path) -> None:
    saved = trained(SMALL)
    state = {key: value for key, value in saved.state_dict().items() if "num_batches" not in key}
    save_file(state, tmp_path / "w.safetensors")
    x = torch.rand(2, 3, 32, 32, generator=seeded())
    torch.testing.assert_close(load_backbone(tmp_path / "w.safetensors")(x), saved(x), rtol=0, atol=0)


def test_keys_and_shapes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = trained(SMALL).state_dict()
    del state["layers.3.layers.0.layers.0.layers.1.bias"]
    state["layers.9.extra"] = torch.zeros(1)
    state["conv_sep.layers.1.bias"] = torch.zeros(5)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError) as caught:
        load_backbone(tmp_path / "w.safetensors")
    assert "1 missing: layers.3.layers.0.layers.0.layers.1.bias;" in str(caught.value)
    assert "1 unexpected: layers.9.extra;" in str(caught.value)
    assert "1 of another shape: conv_sep.layers.1.bias (5,) instead of (64,)" in str(caught.value)


@pytest.mark.parametrize("key", ["features.layers.2.weight", "features.layers.0.layers.0.weight"])
def test_a_missing_key_that_the_inference_needs_is_named(key: str, tmp_path: Path) -> None:
    state = trained(SMALL).state_dict()
    del state[key]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError, match=f"1 missing: {key}"):
        load_backbone(tmp_path / "w.safetensors")


def test_a_missing_bottleneck_is_counted(tmp_path: Path) -> None:
    """Three convolutions, three BatchNorms of four tensors and two PReLUs."""
    state = {
        key: value for key, value in trained(SMALL).state_dict().items() if not key.startswith("layers.3.layers.0.")
    }
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError, match=r"17 missing: layers\.3\.layers\.0\.\S+, \S+, \S+, \.\.\."):
        load_backbone(tmp_path / "w.safetensors")


def test_an_unknown_depth_is_said_to_be_unknown(tmp_path: Path) -> None:
    state = {**trained(SMALL_IRESNET).state_dict(), "layer1.4.bn1.bias": torch.zeros(4)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError, match=r"IResNet with \(5, 2, 2, 2\) blocks is not known"):
        load_backbone(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("keep", [0, 3, 1000])
def test_a_truncated_file_is_reported(name: str, keep: int, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("pth"):
        torch.save(trained(SMALL).state_dict(), path)
    else:
        save_backbone(path, trained(SMALL), {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SteadfaceError, match=r"w\.\w+ is (not a readable|a truncated zip|empty)"):
        load_backbone(path)


def test_a_file_without_weights_or_that_is_not_there_is_reported(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(SteadfaceError, match=r"holds no network of a known layout, but epoch \(int\)\."):
        load_backbone(tmp_path / "w.pth")
    with pytest.raises(SteadfaceError, match="does not exist"):
        load_backbone(tmp_path / "absent.pth")


@pytest.mark.parametrize("architecture", [{"name": "vit"}, {"blocks": [1]}, None, 3])
def test_metadata_that_describes_no_backbone_is_reported(architecture: object, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "w.safetensors", trained(SMALL).state_dict(), {"architecture": architecture})
    with pytest.raises(SteadfaceError, match="the architecture is not one that can be built"):
        load_backbone(tmp_path / "w.safetensors")


def test_a_failing_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_backbone(path, trained(SMALL), {"step": 1})
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SteadfaceError, match=r"cannot write .*model.safetensors: No space left on device"):
        save_backbone(path, trained(SMALL, 1), {"step": 2})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_an_absent_folder_is_made(tmp_path: Path) -> None:
    backbone, path = trained(SMALL), tmp_path / "absent" / "model.safetensors"
    save_backbone(path, backbone, {})
    assert load_backbone(path).architecture == backbone.architecture


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(SteadfaceError, match="cannot write"):
        save_backbone(tmp_path / "taken" / "model.safetensors", trained(SMALL), {})


def mobilefacenet_pytorch_keys() -> dict[str, str]:
    """Their name -> InsightFace's, written out block by block; the network is the same."""
    blocks = ["layers.2"] + [f"layers.3.layers.{i}" for i in range(4)] + ["layers.4"]
    blocks += [f"layers.5.layers.{i}" for i in range(6)] + ["layers.6", "layers.7.layers.0", "layers.7.layers.1"]
    inner = [f"{i}.layers.{part}" for i, parts in enumerate((3, 3, 2)) for part in range(parts)]
    names = {f"blocks.{b}.conv.{i}": f"{ours}.layers.{n}" for b, ours in enumerate(blocks) for i, n in enumerate(inner)}
    for theirs, ours in {"conv1": "layers.0", "dw_conv1": "layers.1", "conv2": "conv_sep"}.items():
        for i, part in enumerate(("conv", "bn", "prelu")):
            names[f"{theirs}.{part}"] = f"{ours}.layers.{i}"
    names |= {"linear7.conv": "features.layers.0.layers.0", "linear7.bn": "features.layers.0.layers.1"}
    return names | {"linear1.conv": "features.layers.2", "linear1.bn": "features.layers.3"}


def test_mobilefacenet_pytorch_is_the_same_network_under_other_names(tmp_path: Path) -> None:
    saved = trained(Architecture(width=1, embedding_size=128, image_size=(112, 96), std=128))
    back = {ours: theirs for theirs, ours in mobilefacenet_pytorch_keys().items()}
    state = {}
    for key, value in saved.state_dict().items():
        module, _, field = key.rpartition(".")
        state[f"{back[module]}.{field}"] = value
    state["linear1.conv.weight"] = state["linear1.conv.weight"][:, :, None, None]
    save_file(state, tmp_path / "w.safetensors")
    assert same(saved, load_backbone(tmp_path / "w.safetensors"))
    state["blocks.15.conv.0.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SteadfaceError, match=r"1 unexpected: blocks.15.conv.0.weight"):
        load_backbone(tmp_path / "w.safetensors")


@pytest.fixture(scope="module")
def shared_folder() -> Path:
    folder = os.environ.get("STEADFACE_FACES")
    if not folder or not (Path(folder) / "weights").is_dir():
        pytest.skip("STEADFACE_FACES names no folder with data/lfw and weights/ of real faces and models")
    return Path(folder)


@pytest.mark.parametrize(
    ("file", "size"),
    [("mobilefacenet_128d", (112, 112)), ("mobilefacenet_112x96_casia_128d", (112, 96))],
)
def test_published_weights_tell_people_apart(file: str, size: tuple[int, int], shared_folder: Path) -> None:
    import cv2

    backbone = load_backbone(shared_folder / "weights" / f"{file}.safetensors")
    assert backbone.architecture.image_size == size
    assert len(load_file(shared_folder / "weights" / f"{file}.safetensors")) == len(backbone.state_dict())
    people = sorted(d for d in (shared_folder / "data/lfw/aligned112").iterdir() if len(list(d.iterdir())) > 1)[:12]
    files = [picture for person in people for picture in sorted(person.iterdir())[:2]]
    decoded = [torch.from_numpy(cv2.imread(str(picture))[:, :, ::-1].copy()) for picture in files]
    cut = (112 - size[1]) // 2
    images = (torch.stack(decoded)[:, :, cut : cut + size[1]]).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        z = torch.nn.functional.normalize(backbone(images))
    cosines = z[0::2] @ z[1::2].T
    genuine, impostor = cosines.diagonal(), cosines[~torch.eye(12, dtype=torch.bool)]
    assert genuine.mean() > 0.5
    assert impostor.mean().abs() < 0.1
    assert genuine.median() > impostor.max()
