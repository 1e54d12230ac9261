"""``steadface export``: what a user gets, and what it says."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from steadface.backbones import Architecture, save_backbone
from steadface.errors import NotFound
from steadface.recognizers import open_recognizer
from steadface.recognizers.contract import contract_of, read_contract, store_contract

from ..few import SMALLEST
from .conftest import Call


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file of weights with a contract that sums mirror images."""
    architecture = Architecture(name=SMALLEST.name, image_size=(16, 16), embedding_size=8, std=128.0)
    save_backbone(tmp_path / "model.safetensors", architecture.build(torch.Generator().manual_seed(0)), {})
    contract = contract_of(open_recognizer(tmp_path / "model.safetensors"), mirror=True)
    store_contract(tmp_path / "model.safetensors", contract)
    return tmp_path / "model.safetensors"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for person in ("a", "b"):
        (tmp_path / "faces" / person).mkdir(parents=True)
        for number in range(2):
            face = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "faces" / person / f"{number}.png"), face)
    return tmp_path / "faces"


def test_the_contract_goes_along_and_galleries_of_both_match(call: Call, model: Path) -> None:
    out = model.parent / "face.onnx"
    said = call("export", model, out)
    assert said.code == 0, said.err
    assert "8-d" in said.out
    before, after = read_contract(model), read_contract(out)
    assert before is not None
    assert after is not None
    exported = open_recognizer(out)
    assert after.identity == before.identity
    assert (after.mirror, after.weights) == (True, exported.content)
    assert after.convention == exported.convention == replace(before.convention, pixel_range="0..255")
    assert sorted(path.name for path in model.parent.iterdir()) == ["face.onnx", "model.safetensors"]


def test_half_precision_is_measured_on_the_faces_given(call: Call, model: Path, images: Path) -> None:
    said = call("export", model, model.parent / "face.onnx", "--half", "--images", images, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert (found["half"], found["faces"], found["dimension"]) == (True, 4, 8)
    assert 0.99 < found["least_cosine"] <= found["mean_cosine"] <= 1.0001
    assert found["bytes"] == (model.parent / "face.onnx").stat().st_size


def test_what_is_no_model_or_no_onnx_name_is_refused_before_any_work(call: Call, model: Path) -> None:
    said = call("export", model, model.parent / "face.bin")
    assert said.code == 2
    assert "face.onnx" in said.err
    said = call("export", model.parent / "nothing.pt", model.parent / "face.onnx")
    assert said.code == NotFound.exit_code
    assert "does not exist" in said.err
    assert not (model.parent / "face.onnx").exists()


def test_two_models_become_one_that_is_calibrated_anew(call: Call, model: Path) -> None:
    other, out = model.parent / "other.safetensors", model.parent / "both.onnx"
    architecture = Architecture(name=SMALLEST.name, image_size=(16, 16), embedding_size=4)
    save_backbone(other, architecture.build(torch.Generator().manual_seed(1)), {})
    said = call("fuse", model, other, "--out", out)
    assert said.code == 0, said.err
    assert "12-d; embeds like the 2 models" in said.out
    contract = read_contract(out)
    assert contract is not None
    assert (contract.name, contract.mirror, contract.thresholds) == ("both", False, None)
    assert contract.identity != read_contract(model).identity
    said = call("fuse", model, model, "--out", model.parent / "twice.onnx")
    assert said.code == 2
    assert "is given twice" in said.err
    assert not (model.parent / "twice.onnx").exists()
