"""steadface harden on an ONNX file: the same graph, harder to deceive."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from steadface.data.folders import open_faces
from steadface.evaluation.intervals import Figure
from steadface.evaluation.labelled import ValidationMetrics
from steadface.recognizers import open_recognizer
from steadface.recognizers.contract import read_contract
from steadface.recognizers.onnx.read import read_onnx
from steadface.training.runfolder import read_run_recipe
from steadface.training.selection import looks
from steadface.workflows.harden import Wishes, harden, harden_recipe

from ..rounding import rounding
from .conftest import Call
from .test_harden import SMALL, sets

EVERY = ("data.batch=4", "run.select.interpolate=1")


def foreign(path: Path) -> Path:
    """A graph as others write it: channels last, one image at a time, pixels prepared inside, two outputs."""
    rng = np.random.default_rng(0)
    shapes = {"k1": (8, 3, 3, 3), "k2": (8, 8, 3, 3), "w": (8 * 16, 32), "a": (8, 1, 1), "score_w": (32, 1)}
    constants = {name: (rng.normal(size=shape) / np.prod(shape[1:]) ** 0.5) for name, shape in shapes.items()}
    constants |= {"a": np.full((8, 1, 1), 0.2), "mean": np.array(127.5), "scale": np.array(1 / 127.5)}
    constants |= {name: np.ones(8) for name in ("gain", "variance")} | {"centre": np.zeros(8), "shift": np.ones(8) / 9}
    constants |= {"b": np.zeros((8, 1, 1)), "unread": np.ones(2)}
    nodes = [
        helper.make_node("Transpose", ["faces"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["nchw", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["pixels"]),
        helper.make_node("Conv", ["pixels", "k1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c1", "gain", "shift", "centre", "variance"], ["n1"]),
        helper.make_node("PRelu", ["n1", "a"], ["r1"]),
        helper.make_node("Conv", ["r1", "k2"], ["c2"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Add", ["c2", "b"], ["s2"]),
        helper.make_node("LeakyRelu", ["s2"], ["r2"], alpha=0.1),
        helper.make_node("Reshape", ["r2", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "score_w"], ["score"]),
    ]
    held = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    held.append(numpy_helper.from_array(np.array([1, 128]), "shape"))
    described = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("faces", TensorProto.FLOAT, [1, 16, 16, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in _OUTPUTS.items()],
        held,
    )
    model = helper.make_model(described, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)
    helper.set_model_props(model, {"maker": "somebody"})
    onnx.save(model, path)
    return path


_OUTPUTS = {"score": 1, "embedding": 32}


def better_and_better() -> Callable[..., ValidationMetrics]:
    """Looks in place of real ones: each sees less succeed than the one before."""
    numbers = count()

    def look(*_: object) -> ValidationMetrics:
        rate = 0.9 - 0.05 * next(numbers)
        clean, attacked = (Figure(value=value, without=(value, value)) for value in (0.1, rate))
        return ValidationMetrics(
            **dict.fromkeys(("fmr", "threshold", "tar", "eer", "genuine_mean", "impostor_mean"), 0.1),
            **{"tar_ci": (0.0, 1.0), "genuine_pairs": 9, "impostor_pairs": 9, "attacks": ()},
            **{"clean": clean, "attacked": attacked},
        )  # type: ignore[arg-type]

    return look


@pytest.fixture(autouse=True)
def _resisting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "validate", better_and_better())


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> tuple[Path, Path]:
    """The file, and the run that has ended."""
    folder = tmp_path_factory.mktemp("onnx")
    given, run = foreign(folder / "theirs.onnx"), folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looks, "validate", better_and_better())
        done = harden(given, faces, run, wishes=Wishes(max_clean_drop=1.0), overrides=(*SMALL, *EVERY))
    assert done.outcome.finished
    return given, run


def test_compiling_is_left_to_runs_that_win_it_back(hardened: tuple[Path, Path], faces: Path, tmp_path: Path) -> None:
    given = open_recognizer(hardened[0])
    long, short = (harden_recipe(given, faces, tmp_path, Wishes(minutes=minutes)).run for minutes in (10, 5))
    assert (long.compile, short.compile) == ("on", "auto")
    begun = read_run_recipe(hardened[1]).run.compile
    assert harden_recipe(given, faces, hardened[1], Wishes(minutes=60)).run.compile == begun != "on"


def test_what_has_no_corners_is_not_led_back_from_rounding_them(faces: Path, tmp_path: Path) -> None:
    path = foreign(tmp_path / "theirs.onnx")
    assert harden_recipe(open_recognizer(path), faces, tmp_path, Wishes()).model.corner
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type in ("PRelu", "LeakyRelu"):
            node.op_type = "Tanh"
            del node.input[1:], node.attribute[:]
    onnx.save(model, path)
    assert harden_recipe(open_recognizer(path), faces, tmp_path, Wishes()).model.corner is None


def described(path: Path) -> tuple[object, ...]:
    """What of a file stays."""
    model = onnx.load(path)
    graph = model.graph
    props = {one.key: one.value for one in model.metadata_props if not one.key.startswith("steadface")}
    return list(graph.input), list(graph.output), model.opset_import[0].version, model.ir_version, props


def test_the_result_is_the_same_graph_with_other_weights(hardened: tuple[Path, Path]) -> None:
    given, run = hardened
    model = run / "model.onnx"
    assert described(model) == described(given)
    before, after = (read_onnx(path).constants for path in (given, model))
    trained = {name for name in before if not np.array_equal(before[name], after[name])}
    assert trained == {"k1", "k2", "w", "a", "b", "centre", "gain", "shift", "variance"} - _as_they_were(before, after)
    assert {"k1", "k2", "w", "b", "shift"} <= trained
    assert not {"mean", "scale", "score_w", "shape"} & trained
    ops = [node.op for node in read_onnx(model).nodes]
    assert {"PRelu", "LeakyRelu"} & set(ops) == set()
    assert ops.count("Sqrt") == 2
    assert "BatchNormalization" in ops


def _as_they_were(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    """Those of a folded BatchNormalization that had stood at these values before."""
    return {name for name in ("centre", "gain", "variance") if np.array_equal(before[name], after[name])}


def test_onnxruntime_embeds_with_it_as_the_run_is_opened(hardened: tuple[Path, Path]) -> None:
    _, run = hardened
    opened = open_recognizer(run)
    assert (opened.convention.pixel_range, opened.convention.size, opened.output) == ("0..255", (16, 16), "embedding")
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(run / "model.onnx")
    turned = images.flip(1) if opened.convention.channel_order == "bgr" else images  # as probing found it
    pixels = turned.permute(0, 2, 3, 1).numpy() * 255
    theirs = np.concatenate([session.run(["embedding"], {"faces": one[None]})[0] for one in pixels])
    with torch.no_grad():
        ours = opened.network(images).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=rounding(128, 10 * float(np.abs(theirs).max())))


def test_the_run_is_a_model_for_other_commands(hardened: tuple[Path, Path], faces: Path, call: Call) -> None:
    given, run = hardened
    contract = read_contract(run)
    assert contract is not None
    assert contract.thresholds is not None
    assert contract.output == "embedding"
    assert json.loads((run / "compatibility.json").read_text())["drift"] > 0
    said = call("evaluate", run, "--images", faces)
    assert said.code == 0, said.err
    words = ("harden", given, "--images", faces, "--out", run, "--max-clean-drop", "100%", *sets(*EVERY))
    chosen = call(*words, "--choose", "step 4")
    assert chosen.code == 0, chosen.err
    assert (
        read_onnx(run / "model.onnx").constants.keys() == read_onnx(run / "candidates" / "step_4.onnx").constants.keys()
    )
    assert "step 4" in chosen.err + chosen.out


def test_with_sharp_corners_the_graph_stays_node_for_node_and_a_stopped_run_ends_bitwise_as_another(
    hardened: tuple[Path, Path], faces: Path, tmp_path: Path
) -> None:
    given, _ = hardened
    overrides = (*SMALL, *EVERY, "model.corner=null")
    wishes = Wishes(max_clean_drop=1.0, choose=None)
    for name in ("whole", "stopped"):
        left = 3 if name == "stopped" else -1

        def observe(progress: object, stops: int = left) -> None:
            if getattr(progress, "step", 0) == stops:
                raise KeyboardInterrupt

        try:
            harden(given, faces, tmp_path / name, wishes=wishes, overrides=overrides, observe=observe)
        except KeyboardInterrupt:
            harden(given, faces, tmp_path / name, wishes=wishes, overrides=overrides)
    whole, stopped = (read_onnx(tmp_path / name / "candidates" / "step_4.onnx") for name in ("whole", "stopped"))
    assert [(node.op, node.inputs) for node in whole.nodes] == [
        (node.op, node.inputs) for node in read_onnx(given).nodes
    ]
    for name, value in whole.constants.items():
        assert np.array_equal(value, stopped.constants[name]), name


def test_what_has_no_gradients_or_no_weights_is_refused_before_anything(
    faces: Path, tmp_path: Path, call: Call
) -> None:
    model = onnx.load(foreign(tmp_path / "theirs.onnx"))
    for held in model.graph.initializer:
        if held.name in ("k1", "k2", "w", "a", "b", "gain", "shift"):
            held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held).astype(np.float64), held.name))
    del model.graph.node[3:9]
    model.graph.node.insert(3, helper.make_node("Flatten", ["pixels"], ["flat"]))
    del model.graph.node[4:]
    model.graph.node.append(helper.make_node("Identity", ["flat"], ["embedding"]))
    del model.graph.output[0]
    onnx.save(model, tmp_path / "constant.onnx")
    said = call("harden", tmp_path / "constant.onnx", "--images", faces, "--out", tmp_path / "run", *sets())
    assert said.code != 0
    assert "nothing of it can be trained" in said.err
    assert not (tmp_path / "run").exists()
    assert len(open_faces(faces)) > 0
