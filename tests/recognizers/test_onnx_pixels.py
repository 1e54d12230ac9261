"""What a graph says of its pixels, and what it does not say."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from steadface.errors import SteadfaceError
from steadface.recognizers import open_recognizer
from steadface.recognizers.onnx.pixels import convention_of
from steadface.recognizers.onnx.read import read_onnx

from .recognisers import written

RNG = np.random.default_rng(0)
MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)
STD = np.array([58.395, 57.12, 57.375], dtype=np.float32)
KERAS = np.array([103.939, 116.779, 123.68], dtype=np.float32)  # in blue, green, red
CONV = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)


def node(op: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def per_colour(values: np.ndarray) -> np.ndarray:
    return values.reshape(1, 3, 1, 1)


def batch_norm(mean: float | np.ndarray, deviation: float | np.ndarray, gain: float = 1.0) -> dict[str, np.ndarray]:
    whole = np.ones(3, dtype=np.float32)
    return {"g": gain * whole, "b": 0.3 * whole, "m": mean * whole, "v": (deviation * whole) ** 2}


BN = [node("BatchNormalization", "images g b m v", "y")]
TF_PRELU = [
    node("Conv", "images w", "c"),
    node("Relu", "c", "r"),
    node("Abs", "c", "a"),
    node("Sub", "c a", "s"),
    node("Mul", "s slope", "m"),
    node("Add", "r m", "y"),
]
GRAPHS: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray], str | None]] = {
    "x / 255": ([node("Div", "images k", "y")], {"k": np.float32(255)}, "0..255"),
    "x / 255 by Mul": ([node("Mul", "images k", "y")], {"k": np.float32(1 / 255)}, "0..255"),
    "(x - 127.5) / 128": (
        [node("Sub", "images m", "d"), node("Div", "d s", "y")],
        {"m": np.float32(127.5), "s": np.float32(128)},
        "0..255",
    ),
    "Keras rescaling": (
        [node("Mul", "images s", "d"), node("Add", "d o", "y")],
        {"s": np.float32(1 / 127.5), "o": np.float32(-1)},
        "0..255",
    ),
    "Keras mean subtraction": ([node("Sub", "images m", "y")], {"m": per_colour(KERAS)}, "0..255"),
    "ImageNet on pixels": (
        [node("Sub", "images m", "d"), node("Div", "d s", "y")],
        {"m": per_colour(MEAN), "s": per_colour(STD)},
        "0..255",
    ),
    "ImageNet on 0..1": (
        [node("Sub", "images m", "d"), node("Div", "d s", "y")],
        {"m": per_colour(MEAN / 255), "s": per_colour(STD / 255)},
        "0..1",
    ),
    "2 x - 1": (
        [node("Mul", "images s", "d"), node("Sub", "d o", "y")],
        {"s": np.float32(2), "o": np.float32(1)},
        "0..1",
    ),
    "255 x": ([node("Mul", "images s", "y")], {"s": np.float32(255)}, "0..1"),
    "127.5 x + 127.5": (
        [node("Mul", "images s", "d"), node("Add", "o d", "y")],
        {"s": np.float32(127.5), "o": np.float32(127.5)},
        "-1..1",
    ),
    "constants that were shaped": (
        [node("Unsqueeze", "m axes", "shaped"), node("Sub", "images shaped", "y")],
        {"m": KERAS.reshape(3, 1, 1), "axes": np.array([0])},
        "0..255",
    ),
    "NHWC made NCHW, flipped, moved": (
        [
            node("Identity", "images", "i"),
            node("Gather", "i order", "f", axis=1),
            node("Cast", "f", "c", to=TensorProto.FLOAT),
            node("Mul", "c s", "y"),
        ],
        {"order": np.array([2, 1, 0]), "s": np.float32(1 / 128)},
        "0..255",
    ),
    "through uint8": (
        [node("Cast", "images", "i", to=TensorProto.UINT8), node("Cast", "i", "y", to=TensorProto.FLOAT)],
        {},
        "0..255",
    ),
    "255 x through uint8": (
        [
            node("Mul", "images s", "d"),
            node("Cast", "d", "i", to=TensorProto.UINT8),
            node("Cast", "i", "y", to=TensorProto.FLOAT),
        ],
        {"s": np.float32(255)},
        "0..1",
    ),
    "BatchNormalization of pixels": (BN, batch_norm(MEAN, STD, gain=0.7), "0..255"),
    "BatchNormalization of 0..1": (BN, batch_norm(MEAN / 255, 0.25), "0..1"),
    # What says nothing, or not for certain:
    "BatchNormalization of -1..1": (BN, batch_norm(-0.1, 0.5), None),
    "BatchNormalization never trained": (BN, batch_norm(0.0, 1.0), None),
    "TF's PReLU": (TF_PRELU, {"w": CONV, "slope": np.full((4, 1, 1), 0.1, np.float32)}, None),
    "Sub and Mul behind the first layer": (
        [node("Conv", "images w", "c"), node("Sub", "c m", "d"), node("Mul", "d s", "y")],
        {"w": CONV, "m": np.float32(127.5), "s": np.float32(1 / 128)},
        None,
    ),
    "a PReLU of the images themselves": (
        [
            node("Relu", "images", "r"),
            node("Abs", "images", "a"),
            node("Sub", "images a", "s"),
            node("Mul", "s k", "m"),
            node("Add", "r m", "y"),
        ],
        {"k": np.float32(0.1)},
        None,
    ),
    "each image by its own mean": (
        [node("ReduceMean", "images", "m", axes=[1, 2, 3]), node("Sub", "images m", "d"), node("Mul", "d k", "y")],
        {"k": np.float32(1 / 128)},
        None,
    ),
    "two readers": (
        [node("Mul", "images k", "a"), node("Mul", "images h", "b"), node("Add", "a b", "y")],
        {"k": np.float32(1 / 255), "h": np.float32(3)},
        None,
    ),
    "a learnt scale": (
        [node("Mul", "images s", "d"), node("Add", "d o", "y")],
        {"s": np.float32(1.7), "o": np.float32(-0.5)},
        None,
    ),
    "a negative": ([node("Sub", "k images", "y")], {"k": np.float32(255)}, None),
    "nothing": ([node("Identity", "images", "y")], {}, None),
    "a convolution": ([node("Conv", "images w", "y")], {"w": CONV}, None),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_only_what_is_done_to_the_images_themselves_says_what_they_are(tmp_path, name) -> None:
    nodes, constants, expected = GRAPHS[name]
    constants = {key: np.asarray(value) for key, value in constants.items()}
    found = convention_of(
        read_onnx(written(tmp_path / "g.onnx", [*nodes, node("Flatten", "y", "embeddings")], constants))
    )
    assert found.known.pixel_range == ("default" if expected is None else "file")
    assert found.pixel_range == (expected or "-1..1")
    assert found.known.channel_order == "default", "no graph says which colour comes first"


def test_a_transpose_in_front_and_a_file_of_colours_last(tmp_path) -> None:
    nodes = [
        node("Transpose", "images", "t", perm=[0, 3, 1, 2]),
        node("Sub", "t m", "d"),
        node("Mul", "d s", "y"),
        node("Flatten", "y", "embeddings"),
    ]
    constants = {"m": np.float32(127.5), "s": np.float32(1 / 128)}
    opened = open_recognizer(written(tmp_path / "n.onnx", nodes, constants, shape=("batch", 16, 16, 3)))
    assert (opened.convention.pixel_range, opened.convention.known.pixel_range) == ("0..255", "file")


def as_bytes(path, constants: dict[str, np.ndarray]):
    """The graph (x / 255) W of uint8 images."""
    nodes = [
        node("Cast", "images", "c", to=TensorProto.FLOAT),
        node("Div", "c k", "d"),
        node("Flatten", "d", "f"),
        node("MatMul", "f w", "embeddings"),
    ]
    model = onnx.load(written(path, nodes, constants))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, path)
    return path


def test_uint8_images_are_0_to_255_and_nothing_else_and_have_gradients(tmp_path) -> None:
    weight = RNG.normal(size=(768, 8)).astype(np.float32)
    path = as_bytes(tmp_path / "b.onnx", {"k": np.float32(255), "w": weight})
    opened = open_recognizer(path)
    assert (opened.convention.pixel_range, opened.convention.known.pixel_range) == ("0..255", "file")
    assert opened.differentiable
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    found = opened.network(images)
    expected = (images.detach() * 255).round().flatten(1) / 255 @ torch.from_numpy(weight)
    torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), images)
    torch.testing.assert_close(gradient[0].flatten(), torch.from_numpy(weight[:, 0]), rtol=1e-4, atol=1e-5)
    with pytest.raises(SteadfaceError, match="which takes uint8; leave it out"):
        open_recognizer(path, pixel_range="-1..1")
