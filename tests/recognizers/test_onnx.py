from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from steadface.devices import open_session
from steadface.errors import SteadfaceError
from steadface.recognition.recognizer import Recognizer
from steadface.recognizers import Convention, open_recognizer
from steadface.recognizers.adapters import Adapted
from steadface.recognizers.contract import contract_of, store_contract
from steadface.recognizers.convention import Known
from steadface.recognizers.embedder import NetworkEmbedder
from steadface.recognizers.onnx import runtime
from steadface.recognizers.onnx.read import read_onnx, read_properties
from steadface.recognizers.onnx.runtime import Runtime, without_prelu
from steadface.recognizers.onnx.torch import OnnxGraph
from steadface.recognizers.under_contract import opened_for_probing

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


@pytest.mark.parametrize("gradients", [True, False])
def test_nothing_is_computed_with_what_is_left_of_channels_that_died(tmp_path, monkeypatch, gradients) -> None:
    network = backbone()
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.PReLU)]
    assert isinstance(layers[1], nn.PReLU)
    with torch.no_grad():
        for layer in layers[:2]:
            layer.weight[:4] *= 1e-25
    file = exported(tmp_path / "face.onnx", Embedding(network))
    assert any(_below(numpy_helper.to_array(weight)) for weight in onnx.load(file).graph.initializer)
    given = []

    def watched(model):
        given.append(model)
        return open_session(model)

    monkeypatch.setattr(runtime, "open_session", watched)
    opened = open_recognizer(file, gradients=gradients)
    torch.testing.assert_close(opened.network(noise(3)), network(noise(3)), rtol=1e-4, atol=1e-5)
    held = [weight.detach().numpy() for weight in opened.network.parameters()]
    held += [numpy_helper.to_array(weight) for weight in onnx.load_from_string(given[0]).graph.initializer]
    assert sum(int((weight == 0).sum()) for weight in held) >= 4 * layers[0].weight[0].numel() + 4
    assert not any(map(_below, held))


def _below(weight: np.ndarray) -> bool:
    return weight.dtype == np.float32 and bool(((weight != 0) & (np.abs(weight) < 1e-19)).any())


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


# A shape that is computed from that of the pictures is read as numbers, which no compiler can do.
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "reshape by shape"])
def test_no_operation_breaks_what_is_compiled(tmp_path, name) -> None:
    nodes, constants = OPERATIONS[name]
    file = read_onnx(written(tmp_path / "op.onnx", [*nodes, node("Identity", "y", "embeddings")], constants))
    images = noise(2, 16)
    graph = OnnxGraph(file, file.batch)
    torch._dynamo.reset()
    compiled = torch.compile(graph, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), graph(images))


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


@pytest.fixture
def counted(monkeypatch) -> Counter[str]:
    """How often an ONNX file is parsed, opened in onnxruntime and converted to torch from here on."""
    counts: Counter[str] = Counter()

    def counting(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def call(*given, **named):
            counts[name] += 1
            return real(*given, **named)

        monkeypatch.setattr(owner, name, call)

    counting(onnx, "load")
    counting(onnxruntime, "InferenceSession")
    monkeypatch.setattr(OnnxGraph, "__init__", _counted_conversion(counts))
    return counts


def _counted_conversion(counts: Counter[str]):
    real = OnnxGraph.__init__

    def init(self, *given, **named) -> None:
        counts["conversion"] += 1
        real(self, *given, **named)

    return init


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_file_is_parsed_once_run_in_one_session_and_converted_only_for_gradients(tmp_path, counted, outputs) -> None:
    path = exported(tmp_path / "face.onnx", Embedding(backbone()))
    if outputs == 2:
        model = onnx.load(path)
        model.graph.node.append(node("ArgMax", "embeddings", "largest", axis=1))
        model.graph.output.append(helper.make_tensor_value_info("largest", TensorProto.INT64, None))
        onnx.save(model, path)
    counted.clear()
    recognizer = Recognizer.open(path)
    assert counted == {"load": 1, "InferenceSession": 1}
    counted.clear()
    opened, _ = opened_for_probing(path)
    store_contract(path, contract_of(opened, mirror=False))
    assert counted == {"load": 1, "InferenceSession": 1, "conversion": 1}
    assert opened.differentiable
    assert Recognizer.open(path).contract.weights == opened.content
    faces = (noise(3).permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    torch_faces = NetworkEmbedder(opened.network)(faces)
    np.testing.assert_allclose(recognizer.embedder(faces), torch_faces, atol=1e-5)
    counted.clear()
    assert np.array_equal(Recognizer.open(path, backend="torch").embedder(faces), torch_faces)
    assert counted == {"load": 1, "InferenceSession": 1, "conversion": 1}


def test_what_is_noted_beside_the_graph_is_read_without_it(tmp_path) -> None:
    path = written(tmp_path / "n.onnx", [node("Flatten", "images", "embeddings")])
    assert read_properties(path) == {}
    model = onnx.load(path)
    helper.set_model_props(model, {"one": "1", "long": "x" * 300})
    onnx.save(model, path)
    assert read_properties(path) == {"one": "1", "long": "x" * 300}
    for kept in (len(path.read_bytes()) - 1, 40):
        (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:kept])
        with pytest.raises(SteadfaceError, match="truncated"):
            read_properties(tmp_path / "cut.onnx")


def prelu_between(slope: np.ndarray) -> onnx.ModelProto:
    """A PReLU of that slope between two convolutions."""
    weight = RNG.normal(size=(16, 16, 3, 3)).astype(np.float32) / 12
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "weight"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("PRelu", ["a", "slope"], ["b"]),
            helper.make_node("Conv", ["b", "weight"], ["y"]),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 16, 5, 5))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 16, 3, 3))],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(slope, "slope")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    helper.set_model_props(made, {"steadface": "{}"})
    return made


def run(made: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def copied(made: onnx.ModelProto) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(made)
    return other


def test_slopes_of_any_sign_and_size_compute_the_same() -> None:
    made = prelu_between(RNG.uniform(-1.5, 1.5, (16, 1, 1)).astype(np.float32))
    quick = without_prelu(copied(made))
    onnx.checker.check_model(quick)
    x = RNG.normal(size=(3, 16, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(run(quick, x), run(made, x), atol=1e-5)
    assert "PRelu" not in {node.op_type for node in quick.graph.node}
    assert "slope" not in {one.name for one in quick.graph.initializer}, "which nobody reads any more"
    assert quick.metadata_props == made.metadata_props


def test_one_slope_for_all_channels_stays_as_it_is() -> None:
    made = prelu_between(np.full((1, 1, 5), 0.25, dtype=np.float32))
    assert without_prelu(copied(made)) == made


COSTLY = {
    "a product with everything": (
        [node("Flatten", "images", "f"), node("Tile", "f n", "embeddings")],
        [1, 10**7],
        "holds",
    ),
    "as many as pixels say": (
        [
            node("ReduceMax", "images", "m", keepdims=0),
            node("Range", "zero m one", "r"),
            node("Flatten", "images", "f"),
            node("ReduceSum", "r", "s", keepdims=0),
            node("Add", "f s", "embeddings"),
        ],
        [1],
        "depends on the pixels",
    ),
    "without an output": ([helper.make_node("Identity", ["images"], [])], [1], "damaged"),
    "without an input": ([node("BatchNormalization", "images", "embeddings")], [1], "damaged"),
    "a fixed batch of millions": ([node("Flatten", "images", "embeddings")], [10**7], "holds"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_what_costs_too_much_or_is_damaged_is_refused_when_it_is_opened(tmp_path, name) -> None:
    nodes, numbers, match = COSTLY[name]
    constants = {"n": np.array(numbers), "zero": np.float32(0), "one": np.float32(1)}
    shape = (numbers[0] if "batch" in name else "batch", 3, 16, 16)
    with pytest.raises(SteadfaceError, match=match):
        open_recognizer(written(tmp_path / "w.onnx", nodes, constants, shape=shape))


def test_a_number_of_images_that_a_graph_does_not_take_is_no_traceback(tmp_path) -> None:
    nodes = [node("Reshape", "images n", "embeddings")]
    network = Runtime(read_onnx(written(tmp_path / "w.onnx", nodes, {"n": np.array([2, 768])})))
    assert network(noise(2, 16)).shape == (2, 768)
    with pytest.raises(SteadfaceError, match=r"cannot run .* on 3 images of 16 x 16"):
        network(noise(3, 16))


def test_notes_beyond_the_bound_are_not_read(tmp_path) -> None:
    path = written(tmp_path / "w.onnx", [node("Flatten", "images", "embeddings")])
    whole = path.read_bytes()
    path.write_bytes(whole + b"\x72\0" * 5000)
    with pytest.raises(SteadfaceError, match="more than 4,096 parts"):
        read_properties(path)
    path.write_bytes(whole + b"\x72\x80\x80\x80\x10" + bytes(32 << 20))
    with pytest.raises(SteadfaceError, match="a note of 33,554,432 bytes"):
        read_properties(path)
