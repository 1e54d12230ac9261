import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn

from steadface.errors import SteadfaceError
from steadface.recognizers import Convention, open_recognizer
from steadface.recognizers.adapters import Adapted
from steadface.recognizers.convention import Known
from steadface.recognizers.onnx.network import OnnxGraph, Runtime
from steadface.recognizers.onnx.read import read_onnx

from ..rounding import rounding
from .recognisers import Embedding, backbone, exported, written

RNG = np.random.default_rng(0)


def noise(count: int, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(4))


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def node(op: str, inputs: str, outputs: str = "y", **attributes: object):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_exported_backbone_has_its_embeddings_and_gradients(tmp_path, dynamic) -> None:
    network = backbone()
    opened = open_recognizer(exported(tmp_path / "face.onnx", Embedding(network), dynamic=dynamic))
    assert opened.differentiable
    assert not opened.notes
    assert opened.embedding_size == 8
    assert opened.convention == Convention(size=(32, 32), pixel_range="-1..1", channel_order="rgb")
    assert opened.convention.known == Known(size="file", pixel_range="default", channel_order="default")
    for count in (1, 3, 4):
        gradients = []
        for one in (opened.network, network):
            images = noise(count).requires_grad_(True)
            embeddings = one(images)
            gradients.append(torch.autograd.grad(embeddings[:, 0].sum(), images)[0])
            torch.testing.assert_close(embeddings, network(noise(count)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_a_batch_of_one_in_the_file_takes_any_batch_through_onnxruntime_too(tmp_path) -> None:
    network = backbone()
    path = exported(tmp_path / "one.onnx", Embedding(network), dynamic=False)
    runtime = Adapted(Runtime(read_onnx(path)), Convention(size=(32, 32)), name="one", differentiable=False)
    torch.testing.assert_close(runtime(noise(5)), network(noise(5)), rtol=1e-4, atol=1e-5)


def test_an_operation_that_is_not_converted_is_named_and_leaves_no_gradients(tmp_path) -> None:
    nodes = [node("Flatten", "images", "flat"), node("Hardmax", "flat", "embeddings")]
    opened = open_recognizer(written(tmp_path / "hard.onnx", nodes))
    assert not opened.differentiable
    assert "no gradients" in opened.notes[0]
    assert "Hardmax" in opened.notes[0]
    assert opened.network(noise(3, 16)).shape == (3, 768)


def test_a_conversion_that_disagrees_is_not_used(tmp_path, monkeypatch) -> None:
    whole = OnnxGraph.forward
    monkeypatch.setattr(OnnxGraph, "forward", lambda self, pixels: 1.001 * whole(self, pixels))
    opened = open_recognizer(exported(tmp_path / "face.onnx", Embedding(backbone())))
    assert not opened.differentiable
    assert "differs from onnxruntime by 0.001" in opened.notes[0]


@pytest.mark.parametrize(
    ("nodes", "constants", "expected"),
    [
        ([node("Sub", "images m", "a"), node("Mul", "a s", "b")], {"m": 127.5, "s": 1 / 128}, "0..255"),
        ([node("Mul", "images s", "a"), node("Sub", "a m", "b")], {"m": 1.0, "s": 2.0}, "0..1"),
        ([node("Identity", "images", "b")], {}, None),
    ],
)
def test_normalisation_in_the_graph_says_what_it_takes(tmp_path, nodes, constants, expected) -> None:
    constants = {name: np.float32(value) for name, value in constants.items()}
    file = written(tmp_path / "n.onnx", [*nodes, node("Flatten", "b", "embeddings")], constants)
    opened = open_recognizer(file)
    assert opened.convention.pixel_range == (expected or "-1..1")
    assert opened.convention.known.pixel_range == ("default" if expected is None else "file")
    centre = torch.full((1, 3, 16, 16), 0.5)
    assert float(opened.network(centre).abs().max()) < 1e-4  # grey is 0 in all three


CONV = {"w": weights(4, 3, 3, 3), "bias": weights(4)}
NORM = {name: np.abs(weights(3)) + 0.5 for name in ("scale", "shift", "mean", "var")}
OPERATIONS = {
    "conv, strided and padded": ([node("Conv", "images w bias", strides=[2, 2], pads=[1, 1, 1, 1])], CONV),
    "conv, padded unevenly": ([node("Conv", "images w", pads=[0, 1, 2, 0])], CONV),
    "conv, SAME_UPPER": ([node("Conv", "images w", strides=[2, 2], auto_pad="SAME_UPPER")], CONV),
    "conv, grouped": ([node("Conv", "images w", group=3, dilations=[2, 2])], {"w": weights(6, 1, 3, 3)}),
    "batch norm": ([node("BatchNormalization", "images scale shift mean var", epsilon=2e-5)], NORM),
    "prelu": ([node("PRelu", "images s")], {"s": weights(3, 1, 1)}),
    "prelu of one slope": ([node("PRelu", "images s")], {"s": weights(1)}),
    "leaky relu": ([node("LeakyRelu", "images", alpha=0.2)], {}),
    "sigmoid gate": ([node("Sigmoid", "images", "g"), node("Mul", "images g")], {}),
    "hard sigmoid": ([node("HardSigmoid", "images", alpha=0.3, beta=0.4)], {}),
    "hard swish": ([node("HardSwish", "images")], {}),
    "relu6": ([node("Clip", "images low high")], {"low": np.float32(0), "high": np.float32(0.6)}),
    "clip from below": ([node("Clip", "images low")], {"low": np.float32(-0.1)}),
    "tanh, erf": ([node("Tanh", "images", "t"), node("Erf", "t")], {}),
    "softmax": ([node("Softmax", "images", axis=1)], {}),
    "sub, div": ([node("Sub", "c images", "d"), node("Div", "d c")], {"c": weights(3, 1, 1)}),
    "square, root": ([node("Pow", "images two", "p"), node("Sqrt", "p")], {"two": np.float32(2)}),
    "max pool": ([node("MaxPool", "images", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], {}),
    "max pool, ceil": ([node("MaxPool", "images", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}),
    "average pool": ([node("AveragePool", "images", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])], {}),
    "average pool, counting": (
        [node("AveragePool", "images", kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)],
        {},
    ),
    "global average pool": (
        [node("GlobalAveragePool", "images", "p"), node("Squeeze", "p ax")],
        {"ax": np.array([2, 3])},
    ),
    "mean": ([node("ReduceMean", "images", axes=[2, 3], keepdims=0)], {}),
    "unit": (
        [node("Flatten", "images", "f"), node("ReduceL2", "f", "n", axes=[1], keepdims=1), node("Div", "f n")],
        {},
    ),
    "lp normalisation": ([node("Flatten", "images", "f"), node("LpNormalization", "f", axis=1, p=2)], {}),
    "gemm": (
        [node("Flatten", "images", "f"), node("Gemm", "f w b", transB=1, alpha=0.5, beta=2.0)],
        {"w": weights(5, 768), "b": weights(5)},
    ),
    "matmul": ([node("Flatten", "images", "f"), node("MatMul", "f w")], {"w": weights(768, 5)}),
    "reshape by shape": (
        [
            node("Shape", "images", "s"),
            node("Gather", "s zero", "b", axis=0),
            node("Unsqueeze", "b zeros", "bb"),
            node("Concat", "bb rest", "shape", axis=0),
            node("Reshape", "images shape"),
        ],
        {"zero": np.array(0), "zeros": np.array([0]), "rest": np.array([-1])},
    ),
    "transpose": ([node("Transpose", "images", perm=[0, 2, 3, 1])], {}),
    "slice": (
        [node("Slice", "images from to axes steps")],
        {"from": np.array([1, -6]), "to": np.array([9, 100]), "axes": np.array([2, 3]), "steps": np.array([2, 1])},
    ),
    "slice backwards": (
        [node("Slice", "images from to axes steps")],
        {
            "from": np.array([-1, 20]),
            "to": np.array([-(2**63) + 1, 3]),
            "axes": np.array([1, -1]),
            "steps": np.array([-1, -2]),
        },
    ),
    "pad": ([node("Pad", "images pads value")], {"pads": np.array([0, 0, 1, 0, 0, 0, 2, 3]), "value": np.float32(0.5)}),
    "pad by reflection": ([node("Pad", "images pads", mode="reflect")], {"pads": np.array([0, 0, 1, 2, 0, 0, 2, 1])}),
    "split": (
        [node("Split", "images s", "one two", axis=1), node("Concat", "two one", axis=1)],
        {"s": np.array([1, 2])},
    ),
    "cast": ([node("Cast", "images", "d", to=11), node("Cast", "d", to=1)], {}),
    "constant": ([node("Constant", "", "c", value_float=2.0), node("Mul", "images c")], {}),
    "dropout": ([node("Dropout", "images", "d"), node("Identity", "d")], {}),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_as_onnxruntime_computes_it(tmp_path, name) -> None:
    nodes, constants = OPERATIONS[name]
    path = written(tmp_path / "op.onnx", [*nodes, node("Identity", "y", "embeddings")], constants)
    file = read_onnx(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 4):
        images = (noise(count, 16) - 0.5).requires_grad_(True)
        (expected,) = session.run(None, {"images": images.detach().numpy()})
        found = OnnxGraph(file, file.batch)(images)
        tolerance = rounding(images[0].numel(), max(1, np.abs(expected).max()))
        torch.testing.assert_close(found.detach(), torch.from_numpy(expected), rtol=1e-4, atol=tolerance)
        assert found.requires_grad


def test_the_fingerprint_is_of_the_weights_and_the_convention(tmp_path) -> None:
    paths = [exported(tmp_path / f"{seed}.onnx", Embedding(backbone(seed))) for seed in (0, 5)]
    first, again, other = (open_recognizer(path).fingerprint for path in (paths[0], paths[0], paths[1]))
    assert first == again != other
    assert open_recognizer(paths[0], channel_order="bgr").fingerprint != first


def test_what_is_no_recogniser_is_refused(tmp_path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    grey = written(tmp_path / "grey.onnx", [node("Flatten", "images", "embeddings")], shape=("b", 1, 16, 16))
    square = exported(tmp_path / "face.onnx", Embedding(backbone()))
    with pytest.raises(SteadfaceError, match=r'is text ."no model".*fetch the file itself'):
        open_recognizer(tmp_path / "text.onnx")
    with pytest.raises(SteadfaceError, match="images of 3 colours"):
        open_recognizer(grey)
    with pytest.raises(SteadfaceError, match="whose input is 32 x 32; leave it out"):
        open_recognizer(square, image_size=(112, 112))


def test_a_graph_of_maps_is_no_recogniser(tmp_path) -> None:
    path = exported(tmp_path / "maps.onnx", nn.Conv2d(3, 2, 3), (16, 16))
    with pytest.raises(SteadfaceError, match=r"it must return embeddings \(1, D\)"):
        open_recognizer(path)
