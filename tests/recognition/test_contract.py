"""A contract travels with its model, and does not pass for another's."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from steadface import api
from steadface.backbones import load_backbone, read_metadata
from steadface.errors import SteadfaceError
from steadface.evaluation.embedding import MirrorEmbedder, embed_faces
from steadface.models import open_recogniser
from steadface.recognition.calibration import calibrated
from steadface.recognition.contract import beside, contract_of, read_contract, store_contract
from steadface.training.assemble import Faces
from steadface.training.recipe import make_recipe


def test_a_model_of_ours_carries_it_inside(model, faces):
    weights = load_file(model)
    contract = calibrated(open_recogniser(model), faces).contract
    assert store_contract(model, contract) == model
    assert not beside(model).exists()
    assert read_contract(model) == contract
    assert all(torch.equal(value, weights[name]) for name, value in load_file(model).items())
    assert open_recogniser(model).content == contract.weights


def test_what_else_the_file_says_stays(model):
    before = read_metadata(model)
    store_contract(model, contract_of(open_recogniser(model), mirror=False))
    after = read_metadata(model)
    assert after.pop("contract")
    assert after == before


def test_a_state_dict_stays_as_it_is_and_gets_it_beside(tmp_path, network):
    path = tmp_path / "somebody.safetensors"
    save_file(network.state_dict(), path)
    before = path.read_bytes()
    opened = open_recogniser(path, image_size=(32, 32))
    where = store_contract(path, contract_of(opened, mirror=True))
    assert where == beside(path)
    assert path.read_bytes() == before
    found = read_contract(path)
    assert found == contract_of(opened, mirror=True)
    assert found.convention.size == (32, 32)


def test_without_one_there_is_none(model):
    assert read_contract(model) is None


def test_the_mirror_makes_other_templates(model):
    opened = open_recogniser(model)
    one, other = (contract_of(opened, mirror=mirror).identity for mirror in (False, True))
    assert one != other
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize("damage", ["{", "[]", '{"name": "x"}'])
def test_a_damaged_one_is_refused_with_its_place(tmp_path, network, damage):
    path = tmp_path / "somebody.safetensors"
    save_file(network.state_dict(), path)
    beside(path).write_text(damage)
    with pytest.raises(SteadfaceError, match=r"somebody.safetensors.contract.json holds .*`steadface calibrate"):
        read_contract(path)


def test_thresholds_are_those_of_the_embeddings_in_use(model, faces):
    contract = calibrated(open_recogniser(model), faces, mirror=True).contract
    embeddings = embed_faces(MirrorEmbedder(load_backbone(model), mirror=True), faces)
    similarity = embeddings @ embeddings.T
    impostor = similarity[faces.labels[:, None] < faces.labels]
    for point in contract.thresholds.points:
        assert np.mean(impostor >= point.threshold) == pytest.approx(point.fmr, abs=2 / len(impostor) + 1e-3)


def test_calibrate_can_write_a_new_file_of_weights_and_contract(tmp_path, network, faces):
    path, out = tmp_path / "somebody.safetensors", tmp_path / "new.safetensors"
    save_file(network.state_dict(), path)
    found, where = api.calibrate(
        path, faces, out=out, image_size=(32, 32), pixel_range="(x-127.5)/128", channel_order="rgb"
    )
    assert where == out
    assert not beside(path).exists()
    assert read_contract(out) == found.contract
    assert load_backbone(out).architecture.std == 128
    assert open_recogniser(out).content == found.contract.weights
    with pytest.raises(SteadfaceError, match="must be a new"):
        api.calibrate(path, faces, out=out, image_size=(32, 32))


def test_calibrating_again_keeps_the_convention_that_was_found(tmp_path, network, faces):
    path = tmp_path / "somebody.safetensors"
    save_file(network.state_dict(), path)
    api.calibrate(path, faces, image_size=(32, 32), pixel_range="0..255", channel_order="bgr")
    found, _ = api.calibrate(path, faces)
    assert (found.contract.convention.pixel_range, found.contract.convention.channel_order) == ("0..255", "bgr")


def test_a_contract_in_an_onnx_file_does_not_change_what_the_file_is(tmp_path):
    node = onnx.helper.make_node("ReduceMean", ["images"], ["embeddings"], axes=[2, 3], keepdims=0)
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", 3, 16, 16])
    embeddings = onnx.helper.make_tensor_value_info("embeddings", onnx.TensorProto.FLOAT, ["n", 3])
    graph = onnx.helper.make_graph([node], "means", [images], [embeddings])
    path = tmp_path / "means.onnx"
    file = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.helper.set_model_props(file, {"steadface": "null"})  # as our export marks it
    onnx.save(file, path)
    opened = open_recogniser(path)
    contract = contract_of(opened, mirror=False)
    assert store_contract(path, contract) == path
    assert read_contract(path) == contract
    assert open_recogniser(path).content == opened.content
    other = replace(contract, name="renamed")
    store_contract(path, other)
    assert read_contract(path) == other
    assert [json.loads(one.value)["name"] for one in onnx.load(path).metadata_props] == ["renamed"]


def test_a_trained_model_has_its_contract_from_the_people_held_out(tmp_path, faces):
    recipe = make_recipe(
        {
            "name": "tiny",
            "data": {"images": "unused", "size": [16, 16], "batch": 4, "validation": 0.5},
            "model": {"architecture": {"width": 0.125, "blocks": [1, 0, 0, 0], "embedding_size": 8}},
            "head": {"kind": "cosface", "s": 8, "m": 0.1},
            "method": {"gate": {"kind": "always"}},
            "evaluation": {"fmr": 0.2, "eps": ["4/255"], "steps": 1, "restarts": 1, "max_pairs": 2},
            "run": {"out": str(tmp_path / "run"), "steps": 2, "device": "cpu", "threads": 1, "tensorboard": False},
        }
    )
    outcome = api.train(recipe, faces=Faces(training=faces, validation=faces))
    contract = read_contract(outcome.folder)
    assert contract.thresholds.people == 24
    assert contract.weights == open_recogniser(outcome.folder).content
