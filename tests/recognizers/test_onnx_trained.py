"""What of a graph is trained, folded and rounded, and that the file says the same as the network."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

from steadface.backbones.base import PReLU
from steadface.errors import SteadfaceError
from steadface.recognizers import open_recognizer
from steadface.recognizers.onnx.learnable import folded, learnable, with_constants
from steadface.recognizers.onnx.read import Node, OnnxFile, read_onnx
from steadface.recognizers.onnx.rounding import ROUNDED, joined, rectifiers, rounded
from steadface.recognizers.onnx.torch import OnnxGraph
from steadface.recognizers.onnx.trained import OnnxNetwork, check_parity, deviations, save_onnx

from ..rounding import rounding
from .recognisers import Embedding, backbone, exported, written

RNG = np.random.default_rng(0)


def node(op: str, inputs: str, outputs: str, **attributes: object):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def numbers(*shape: int) -> np.ndarray:
    return (0.3 * RNG.normal(size=shape)).astype(np.float32)


def graph(tmp_path, rectifier, constants=None, opset: int = 17) -> OnnxFile:
    """A convolution, what rectifies it, and a product."""
    nodes = [node("Conv", "images k", "c"), *rectifier, node("Flatten", "r", "f"), node("MatMul", "f w", "embeddings")]
    held = {"k": numbers(4, 3, 3, 3), "w": numbers(4 * 14 * 14, 8), **(constants or {})}
    return read_onnx(written(tmp_path / "g.onnx", nodes, held, opset=opset))


SLOPE = {"a": np.float32([0.1, 0.2, 0.3, -0.1]).reshape(4, 1, 1)}
ZERO = {"zero": np.float32(0)}
RECTIFIERS: dict[str, tuple[list[Any], dict[str, Any], Any, int]] = {
    "PRelu": ([node("PRelu", "c a", "r")], SLOPE, SLOPE["a"], 1),
    "Relu": ([node("Relu", "c", "r")], {}, 0.0, 1),
    "LeakyRelu": ([node("LeakyRelu", "c", "r", alpha=0.2)], {}, 0.2, 1),
    "as TensorFlow writes a PReLU": (
        [
            *(node("Relu", "c", "p"), node("Abs", "c", "m"), node("Sub", "c m", "d")),
            *(node("Mul", "d h", "s"), node("Add", "p s", "r")),
        ],
        {"h": SLOPE["a"] / 2},
        SLOPE["a"],
        1,
    ),
    "as a maximum and a minimum": (
        [
            *(node("Max", "zero c", "p"), node("Min", "c zero", "n")),
            *(node("Mul", "n a", "s"), node("Add", "p s", "r")),
        ],
        {**ZERO, **SLOPE},
        SLOPE["a"],
        2,
    ),
}


@pytest.mark.parametrize("kind", RECTIFIERS)
def test_a_rounded_rectifier_is_that_of_our_own_networks_and_is_read_as_one(tmp_path, kind) -> None:
    nodes, constants, slope, groups = RECTIFIERS[kind]
    file = graph(tmp_path, nodes, constants)
    made = rounded(file, {"c": 0.4})
    sharp = dict.fromkeys(("Relu", "PRelu", "LeakyRelu", "Max", "Min", "Abs"))
    assert not {one.op for one in made.nodes} & sharp.keys()
    assert [one.op for one in joined(made.nodes, made.constants)].count(ROUNDED) == groups
    given: list[torch.Tensor] = []
    ours = PReLU(4)
    ours.weight.data = torch.as_tensor(np.broadcast_to(np.reshape(slope, -1), 4).copy(), dtype=torch.float32)
    ours.corner = 0.4
    seen: list[torch.Tensor] = []

    def watch(one: Node, inputs: list[torch.Tensor]) -> None:
        if one.op == "Conv":
            given.append(torch.conv2d(inputs[0], inputs[1]))
        if one.op == "Flatten":
            seen.append(inputs[0])

    OnnxGraph(made, None).run(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), watch)
    torch.testing.assert_close(seen[0], ours(given[0]), rtol=0, atol=rounding(16, 10))


def test_what_is_cut_off_above_and_what_is_smooth_keep_their_form(tmp_path) -> None:
    cut = graph(tmp_path, [node("Relu", "c", "p"), node("Min", "p six", "r")], {"six": np.float32(6)})
    assert [len(found) for found in rectifiers(cut)] == [0, 1]
    smooth = graph(tmp_path, [node("Sigmoid", "c", "g"), node("Mul", "c g", "r")])
    assert rectifiers(smooth) == ([], [])
    assert rectifiers(graph(tmp_path, [node("Relu", "c", "r")], opset=6))[0] == []


NORM = {"s": np.float32([1, 2, 3, 4]), "t": numbers(4), "m": numbers(4), "v": np.float32([1, 2, 0.5, 3])}


def test_weights_are_what_layers_hold_and_nothing_else(tmp_path) -> None:
    nodes = [
        *(node("Sub", "images mean", "x"), node("Mul", "x factors", "y"), node("Conv", "y k kb", "c")),
        *(node("BatchNormalization", "c s t m v", "n"), node("Mul", "n half", "h"), node("Mul", "h gains", "g")),
        *(node("Reshape", "bias shape", "b"), node("Add", "g b", "a"), node("Flatten", "a", "f")),
        *(node("Transpose", "wt", "w", perm=[1, 0]), node("MatMul", "f w", "embeddings")),
    ]
    held = {
        **{"mean": numbers(3, 1, 1), "factors": np.float32([1, 2, 3]).reshape(3, 1, 1), "half": np.float32(0.5)},
        **{"k": numbers(4, 3, 3, 3), "kb": numbers(4), "gains": numbers(4, 1, 1), "bias": numbers(4)},
        **{"shape": np.array([4, 1, 1]), "wt": numbers(8, 4 * 14 * 14), **NORM},
    }
    file = read_onnx(written(tmp_path / "g.onnx", nodes, held))
    assert learnable(file) == {"k", "kb", "s", "t", "gains", "bias", "wt"}


def test_a_weight_that_something_else_reads_too_stays(tmp_path) -> None:
    twice = [node("Conv", "c k2", "d"), node("Conv", "d k2", "e"), node("Relu", "e", "r")]
    held = {"k2": numbers(4, 4, 1, 1), "w": numbers(4 * 14 * 14, 8)}
    assert learnable(graph(tmp_path, twice, held)) == {"k", "k2", "w"}, "tied weights stay tied"
    squared = [node("ReduceSum", "k2", "e", keepdims=0), node("Conv", "c k2", "d"), node("Mul", "d e", "r")]
    assert learnable(graph(tmp_path, squared, held)) == {"k", "w"}


def test_a_normalisation_is_folded_node_for_node_where_nobody_else_reads_it(tmp_path) -> None:
    norm, relu = node("BatchNormalization", "c s t m v", "n"), node("Relu", "n", "r")
    file = graph(tmp_path, [norm, relu], NORM)
    made, left = folded(file)
    assert left == 0
    assert [one.op for one in made.nodes] == [one.op for one in file.nodes]
    assert np.array_equal(made.constants["s"], np.ones(4))
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    one, other = (OnnxGraph(each, None)(images) for each in (file, made))
    torch.testing.assert_close(
        one, other, rtol=0, atol=rounding(27 + 4 * 14 * 14, 100 * float(one.detach().abs().max()))
    )
    beside = graph(tmp_path, [norm, node("Add", "n c", "q"), node("Relu", "q", "r")], NORM)
    assert folded(beside) == (beside, 1)


def test_a_network_is_written_as_it_computes(tmp_path) -> None:
    network = backbone()
    path = exported(tmp_path / "face.onnx", Embedding(network))
    given = OnnxNetwork.of(open_recognizer(path))
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    measured = given.measured(images, 0.5)
    assert {one / measured.noted.scales[name] for name, one in deviations(given, images).items()} <= {1, 2, 4, 8, 16}
    made = measured.prepared(corner=0.5, folds=True)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    save_onnx(tmp_path / "new.onnx", made, {"steps": 3})
    again = open_recognizer(tmp_path / "new.onnx")
    assert not again.notes
    largest = float(made(images).detach().abs().max())
    torch.testing.assert_close(again.network(images), made(images), rtol=0, atol=rounding(2000, 10 * largest))
    wrong = with_constants(made.file, {name: 2 * value for name, value in made.graph.constants().items()})
    with pytest.raises(SteadfaceError, match="nothing was written"):
        check_parity(made, wrong)


def test_half_precision_is_refused_with_what_to_give(tmp_path) -> None:
    nodes = [
        *(node("Cast", "images", "i", to=10), node("Conv", "i k", "c"), node("Cast", "c", "d", to=1)),
        *(node("GlobalAveragePool", "d", "g"), node("Flatten", "g", "embeddings")),
    ]
    path = written(tmp_path / "half.onnx", nodes, {"k": numbers(40, 3, 3, 3).astype(np.float16)})
    with pytest.raises(SteadfaceError, match=r"float16.*give the float32 file"):
        OnnxNetwork.of(open_recognizer(path))
