"""A contract travels with its model, and does not pass for another's."""

import json
import os
from contextlib import suppress
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from steadface.backbones import load_backbone, read_metadata
from steadface.backbones.weights import add_metadata
from steadface.data.faces import ArrayFaces
from steadface.errors import SteadfaceError
from steadface.evaluation.embedding import MirrorEmbedder, embed_faces
from steadface.recognition.recognizer import Recognizer
from steadface.recognizers import open_recognizer
from steadface.recognizers.calibration import ToldApart, calibrated, check_told_apart, told_apart
from steadface.recognizers.contract import beside, contract_of, read_contract, store_contract
from steadface.recognizers.seal import sealed
from steadface.recognizers.under_contract import opened_for_probing
from steadface.training.assembly.faces import Faces
from steadface.training.recipe import make_recipe
from steadface.workflows.calibrate import calibrate
from steadface.workflows.train import train


def test_a_model_of_ours_carries_it_inside(model, faces):
    weights = load_file(model)
    contract = calibrated(open_recognizer(model), faces).contract
    assert store_contract(model, contract) == model
    assert not beside(model).exists()
    assert read_contract(model) == contract
    assert all(torch.equal(value, weights[name]) for name, value in load_file(model).items())
    assert open_recognizer(model).content == contract.weights


def test_what_else_the_file_says_stays(model):
    before = read_metadata(model)
    store_contract(model, contract_of(open_recognizer(model), mirror=False))
    after = read_metadata(model)
    assert after.pop("contract")
    assert after == before


def test_a_state_dict_stays_as_it_is_and_gets_it_beside(tmp_path, network):
    path = tmp_path / "somebody.safetensors"
    save_file(network.state_dict(), path)
    before = path.read_bytes()
    opened = open_recognizer(path, image_size=(32, 32))
    where = store_contract(path, contract_of(opened, mirror=True))
    assert where == beside(path)
    assert path.read_bytes() == before
    found = read_contract(path)
    assert found == contract_of(opened, mirror=True)
    assert found.convention.size == (32, 32)


def test_without_one_there_is_none(model):
    assert read_contract(model) is None


def test_the_mirror_makes_other_templates(model):
    opened = open_recognizer(model)
    one, other = (contract_of(opened, mirror=mirror).identity for mirror in (False, True))
    assert one != other
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"name": "x"}', "[" * 100_000, '{"a":' * 100_000, " " * 2_000_000, "\xff", ""]
)
def test_a_damaged_one_is_refused_with_its_place(tmp_path, network, damage):
    path = tmp_path / "somebody.safetensors"
    save_file(network.state_dict(), path)
    beside(path).write_text(damage)
    with pytest.raises(SteadfaceError, match=r"somebody.safetensors.contract.json holds .*`steadface calibrate"):
        read_contract(path)


def test_thresholds_are_those_of_the_embeddings_in_use(model, faces):
    contract = calibrated(open_recognizer(model), faces, mirror=True).contract
    embeddings = embed_faces(MirrorEmbedder(load_backbone(model), mirror=True), faces)
    similarity = embeddings @ embeddings.T
    impostor = similarity[faces.labels[:, None] < faces.labels]
    for point in contract.thresholds.points:
        assert np.mean(impostor >= point.threshold) == pytest.approx(point.fmr, abs=2 / len(impostor) + 1e-3)


def test_calibrate_can_write_a_new_file_of_weights_and_contract(tmp_path, network, faces):
    path, out = tmp_path / "somebody.safetensors", tmp_path / "new.safetensors"
    save_file(network.state_dict(), path)
    found, where = calibrate(
        path, faces, out=out, image_size=(32, 32), pixel_range="(x-127.5)/128", channel_order="rgb"
    )
    assert where == out
    assert not beside(path).exists()
    assert read_contract(out) == found.contract
    assert load_backbone(out).architecture.std == 128
    assert open_recognizer(out).content == found.contract.weights
    with pytest.raises(SteadfaceError, match="must be a new"):
        calibrate(path, faces, out=out, image_size=(32, 32))


def test_calibrating_again_keeps_what_was_stated(tmp_path, network, faces):
    path = tmp_path / "somebody.safetensors"
    save_file(network.state_dict(), path)
    calibrate(path, faces, image_size=(32, 32), pixel_range="(x-127.5)/128", channel_order="bgr")
    found, _ = calibrate(path, faces)
    convention = found.contract.convention
    assert (convention.pixel_range, convention.channel_order) == ("(x-127.5)/128", "bgr")
    assert (convention.known.pixel_range, convention.known.channel_order) == ("stated", "stated")


def test_a_contract_in_an_onnx_file_does_not_change_what_the_file_is(tmp_path):
    node = onnx.helper.make_node("ReduceMean", ["images"], ["embeddings"], axes=[2, 3], keepdims=0)
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", 3, 16, 16])
    embeddings = onnx.helper.make_tensor_value_info("embeddings", onnx.TensorProto.FLOAT, ["n", 3])
    graph = onnx.helper.make_graph([node], "means", [images], [embeddings])
    path = tmp_path / "means.onnx"
    file = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.helper.set_model_props(file, {"steadface": "null"})  # as our export marks it
    onnx.save(file, path)
    opened = open_recognizer(path)
    contract = contract_of(opened, mirror=False)
    assert store_contract(path, contract) == path
    assert read_contract(path) == contract
    assert open_recognizer(path).content == opened.content
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
    outcome = train(recipe, faces=Faces(training=faces, validation=faces))
    contract = read_contract(outcome.folder)
    assert contract.thresholds.people == 24
    assert contract.weights == open_recognizer(outcome.folder).content


READER = """
import numpy as np
import torch
from torch import nn

class Reader(nn.Module):
    \"\"\"Tells people apart by the third colour, in -1..1; it is blind beyond.\"\"\"

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(96, 256, generator=generator) / 16)

    def forward(self, pixels):
        seen = pixels[:, 2].flatten(1)
        return (seen * torch.exp(-(seen**4))) @ self.weight.T

def reader():
    return Reader()

def service(faces):
    network = Reader()
    pixels = torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 127.5 - 1
    return network(pixels).detach().numpy()

class Guess(Reader):
    def forward(self, pixels):
        return torch.sin(100 * super().forward(pixels))

def guess():
    return Guess()
"""


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "theirs.py"
    path.write_text(READER)
    return path


@pytest.fixture
def red():
    """Faces that tell who they are in red alone."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 3)
    pixels = rng.uniform(0, 255, (36, 16, 16, 3))
    pixels[..., 0] = rng.uniform(50, 200, (12, 16, 16))[labels] + rng.normal(0, 30, (36, 16, 16))
    return ArrayFaces(pixels.clip(0, 255).astype(np.uint8), labels, [f"p{who}" for who in range(12)])


def test_the_contract_of_a_function_lies_beside_its_file_and_is_of_its_source(code, red):
    spec = f"{code}:service"
    found, where = calibrate(spec, red, image_size=(16, 16))
    assert where == code.with_name("theirs.py.service.contract.json")
    assert found.contract.convention.channel_order == "bgr", "probed"
    recognizer = Recognizer.open(spec)
    assert recognizer.contract == found.contract
    same, other = red.images[0], red.images[35]
    assert recognizer.verify(same, same, aligned=True, fmr=1e-2).match
    assert not recognizer.verify(same, other, aligned=True, fmr=1e-2).match
    code.write_text(READER + "\nx = 1\n")
    with pytest.raises(SteadfaceError, match=r"made for other source code.*`steadface calibrate .*theirs.py:service"):
        Recognizer.open(spec)


def test_the_contract_of_an_imported_function_lies_where_the_user_says(tmp_path, code, red, monkeypatch):
    code.rename(code.with_name("planted_reader.py"))
    monkeypatch.syspath_prepend(str(code.parent))
    with pytest.raises(SteadfaceError, match=r"planted_reader:service is not a file .*--out FILE.contract.json"):
        calibrate("planted_reader:service", red, image_size=(16, 16))
    out = tmp_path / "kept" / "service.json"
    found, where = calibrate("planted_reader:service", red, image_size=(16, 16), out=out)
    assert where == out
    assert Recognizer.open("planted_reader:service", contract=out).contract == found.contract
    with pytest.raises(SteadfaceError, match="cannot be read"):
        Recognizer.open("planted_reader:service", contract=tmp_path / "nowhere.json")


def test_a_model_that_tells_nobody_apart_gets_no_contract(code, red):
    spec = f"{code}:guess"
    with pytest.raises(
        SteadfaceError, match=r"cannot tell these people apart, so no contract was written.*people are told"
    ):
        calibrate(spec, red, image_size=(16, 16))
    assert not list(code.parent.glob("*.contract.json"))


def test_a_wrong_statement_is_refused_with_the_diagnosis(code, red):
    with pytest.raises(SteadfaceError, match="the colour order is the likely cause: state channel_order bgr"):
        calibrate(f"{code}:reader", red, image_size=(16, 16), pixel_range="-1..1", channel_order="rgb")
    assert not list(code.parent.glob("*.contract.json"))


def test_being_told_apart_is_judged_with_its_interval():
    rng = np.random.default_rng(0)
    people = np.arange(40).repeat(3)

    def unit(signal):
        vectors = signal * rng.normal(size=(40, 64))[people] + rng.normal(size=(120, 64))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    chance, weak, good = (told_apart(unit(signal), people) for signal in (0.0, 0.25, 1.0))
    assert chance.interval[0] < 0.5 < chance.interval[1]
    assert 0.5 < weak.interval[0] < weak.interval[1] < 0.75
    assert good.interval[0] > 0.95
    for poor in (chance, weak):
        with pytest.raises(SteadfaceError, match="no contract was written"):
            check_told_apart(poor, "m")
    check_told_apart(good, "m")
    check_told_apart(good, "m", ("people are told apart poorly; no other size does better",))
    with pytest.raises(SteadfaceError, match="the size is the likely cause"):
        check_told_apart(good, "m", ("people are told apart poorly; the size is the likely cause",))
    check_told_apart(ToldApart(share=0.7, interval=(0.6, 0.8)), "m")  # so few people tell no more
    embeddings = unit(1.0)
    embeddings[5] = np.nan
    assert told_apart(embeddings, people).share > 0.95


def test_an_older_contract_is_probed_again_and_a_difference_is_said(code, red, caplog):
    spec = f"{code}:reader"
    found, where = calibrate(spec, red, image_size=(16, 16))
    assert found.contract.convention.channel_order == "bgr"
    older = json.loads(where.read_text())
    del older["known"], older["output"], older["notes"], older["seal"]
    older["channel_order"] = "rgb"
    where.write_text(json.dumps(older))
    recognizer = Recognizer.open(spec)
    assert "-1..1 and rgb is assumed" in recognizer.contract.notes[0]
    assert (
        recognizer.verify(red.images[0], red.images[1], aligned=True, threshold=0.5).notes == recognizer.contract.notes
    )
    caplog.clear()
    again, _ = calibrate(spec, red)
    assert again.contract.convention == found.contract.convention
    assert again.contract.space == found.contract.space
    assert (
        "the earlier contract took pixels as 16x16, -1..1, rgb; the new one takes them as 16x16, -1..1, bgr"
        in caplog.text
    )
    assert not Recognizer.open(spec).contract.notes
    caplog.clear()
    assert calibrate(spec, red)[0].contract.convention.known.channel_order == "probed"
    assert "earlier contract" not in caplog.text


def test_a_damaged_contract_does_not_keep_a_new_one_away(code, red, caplog):
    beside_code = code.with_name("theirs.py.reader.contract.json")
    beside_code.write_text("{")
    calibrate(f"{code}:reader", red, image_size=(16, 16))
    assert "its earlier contract does not count" in caplog.text
    assert Recognizer.open(f"{code}:reader").contract.thresholds is not None


def test_what_was_said_of_other_weights_does_not_count(tmp_path, network, faces):
    path = tmp_path / "somebody.safetensors"
    save_file(network.state_dict(), path)
    calibrate(path, faces, image_size=(32, 32), pixel_range="(x-127.5)/128", channel_order="bgr")
    state = network.state_dict()
    save_file({**state, "conv_sep.layers.1.bias": state["conv_sep.layers.1.bias"] + 1}, path)
    opened, before = opened_for_probing(path, image_size=(32, 32))
    assert before is None
    assert opened.convention.channel_order == "rgb"
    assert "its contract is for another model" in opened.notes[-1]


def test_recalibrating_leaves_a_model_in_the_space_of_its_templates(model, faces):
    calibrate(model, faces)
    store_contract(model, replace(read_contract(model), space="that of the model it was hardened from"))
    found, _ = calibrate(model, faces, seed=1)
    assert found.contract.space == "that of the model it was hardened from"


def test_the_output_that_was_chosen_is_kept(tmp_path):
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(768, size)).astype(np.float32) for name, size in (("one", 40), ("other", 48))}
    nodes = [onnx.helper.make_node("Flatten", ["images"], ["flat"])]
    nodes += [onnx.helper.make_node("MatMul", ["flat", f"{name}.w"], [name]) for name in weights]
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in weights]
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", 3, 16, 16])
    constants = [onnx.numpy_helper.from_array(value, f"{name}.w") for name, value in weights.items()]
    graph = onnx.helper.make_graph(nodes, "two", [images], outputs, constants)
    path = tmp_path / "two.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)
    store_contract(path, contract_of(open_recognizer(path, output="other"), mirror=False))
    recognizer = Recognizer.open(path)
    assert (recognizer.contract.output, recognizer.contract.dimension) == ("other", 48)
    grey = np.full((1, 16, 16, 3), 200, dtype=np.uint8)
    expected = weights["other"].sum(0) / np.linalg.norm(weights["other"].sum(0))
    np.testing.assert_allclose(recognizer.embedder(grey)[0], expected, atol=1e-5)
    with pytest.raises(SteadfaceError, match="is for its output other, not one; leave --output away"):
        Recognizer.open(path, output="one")


EDITS = [
    ("thresholds", "points", 0, "threshold", -2.0),
    ("thresholds", "points", 0, "threshold", -1.0),
    ("thresholds", "points", 0, "threshold", "-1"),
    ("thresholds", "points", 0, "threshold", float("-inf")),
    ("thresholds", "points", 0, "threshold", float("nan")),
    ("thresholds", "points", 0, "threshold", None),
    ("thresholds", "points", 0, "threshold", 0.999),  # rises with the FMR
    ("thresholds", "points", 0, "fmr", "0.1"),
    ("thresholds", "points", 0, "fmr", 1.0),
    ("thresholds", "points", []),
    ("thresholds", "points", {}),
    ("thresholds", "people", 1e9),
    ("thresholds", "impostor_pairs", 10**18),
    ("thresholds", []),
    ("thresholds", False),
    ("pixel_range", "0..65535"),
    ("pixel_range", "(x-127.5)/1e-30"),
    ("pixel_range", "(x-127.5)/1000000"),
    ("pixel_range", "(x-127.5)/0.001"),
    ("pixel_range", "(x-2000)/128"),
    ("pixel_range", None),
    ("channel_order", "grb"),
    ("image_size", [32]),
    ("image_size", [10**9, 10**9]),
    ("image_size", ["32", "32"]),
    ("image_size", [32.0, 32.0]),
    ("dimension", "16"),
    ("dimension", 10**9),
    ("dimension", True),
    ("dimension", 17),
    ("mirror", "false"),
    ("mirror", 0),
    ("mirror", None),
    ("known", {"size": "guessed"}),
    ("known", "file"),
    ("notes", "none"),
    ("notes", [1]),
    ("name", 7),
    ("weights", ["a"]),
    ("space", None),
    ("output", 3),
]
"""Places and values that a contract cannot have, whoever wrote it."""

WITHIN = [
    ("thresholds", "points", 0, "threshold", 0.0),
    ("thresholds", "seed", 1),
    ("thresholds", None),
    ("pixel_range", "0..255"),
    ("channel_order", "bgr"),
    ("image_size", [32, 48]),
    ("mirror", True),
    ("space", "0" * 64),
    ("name", "another"),
    ("notes", ["all is well"]),
    ("output", "other"),
    ("added", 1),
]
"""Places and values that another contract could have."""


def edited(data, *steps):
    """A copy with another value at a place."""
    *place, last, value = steps
    copy = json.loads(json.dumps(data))
    inner = copy
    for step in place:
        inner = inner[step]
    inner[last] = value
    return copy


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, network, faces):
    """Somebody's state dict, with its contract beside it as it was written."""
    path = tmp_path_factory.mktemp("theirs") / "somebody.safetensors"
    save_file(network.state_dict(), path)
    _, where = calibrate(path, faces, image_size=(32, 32), pixel_range="(x-127.5)/128", channel_order="rgb")
    return path, where, json.loads(where.read_text())


@pytest.mark.parametrize("edit", EDITS, ids=str)
@pytest.mark.parametrize("seal", ["kept", "taken off", "made anew"])
def test_what_no_contract_can_say_is_refused(theirs, edit, seal):
    path, where, data = theirs
    changed = edited(data, *edit)
    if seal != "kept":
        del changed["seal"]
    if seal == "made anew":
        with suppress(SteadfaceError):  # of what is no JSON there is none
            changed = sealed("contract", changed)
    where.write_text(json.dumps(changed))
    with pytest.raises(SteadfaceError, match="make it anew"):
        Recognizer.open(path)


@pytest.mark.parametrize("edit", WITHIN, ids=str)
def test_what_was_changed_since_it_was_written_is_refused(theirs, edit):
    path, where, data = theirs
    where.write_text(json.dumps(edited(data, *edit)))
    with pytest.raises(SteadfaceError, match="changed after it was written"):
        Recognizer.open(path)
    where.write_text(json.dumps(dict(reversed(data.items())), indent=3))  # laid out anew it says the same
    assert Recognizer.open(path).contract.thresholds is not None


def test_what_was_changed_inside_a_model_is_refused(model, faces):
    calibrate(model, faces)
    data = read_metadata(model)["contract"]
    for edit in (*EDITS, *WITHIN):
        if not any(isinstance(value, float) and not np.isfinite(value) for value in edit):
            add_metadata(model, {"contract": edited(data, *edit)})
            with pytest.raises(SteadfaceError, match="make it anew"):
                Recognizer.open(model)
    add_metadata(model, {"contract": data})
    assert Recognizer.open(model).contract.thresholds is not None


def test_one_of_an_earlier_version_opens_and_what_it_lacks_is_said(theirs, caplog):
    path, where, data = theirs
    where.write_text(json.dumps({key: value for key, value in data.items() if key != "seal"}))
    assert Recognizer.open(path).contract.thresholds is not None
    (said,) = [record.message for record in caplog.records if "earlier version" in record.message]
    assert "steadface calibrate" in said


@pytest.mark.parametrize("seal", [None, {}, [], "x", {"digest": "0"}, {"digest": "0" * 64, "signatures": [1]}])
def test_a_seal_that_is_none_is_refused(theirs, seal):
    path, where, data = theirs
    where.write_text(json.dumps({**data, "seal": seal}))
    with pytest.raises(SteadfaceError, match="make it anew"):
        Recognizer.open(path)


def test_what_is_no_file_is_no_contract(theirs, tmp_path):
    path, where, _ = theirs
    where.unlink()
    os.mkfifo(where)
    with pytest.raises(SteadfaceError, match="a pipe"):
        read_contract(path)
    where.unlink()
    with pytest.raises(SteadfaceError, match="cannot be read"):
        Recognizer.open(path, contract=tmp_path)
