"""Rewritten models compute what they did."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from steadface.recognizers.onnx.quick import without_prelu

RNG = np.random.default_rng(0)


def model(slope: np.ndarray) -> onnx.ModelProto:
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
    made = model(RNG.uniform(-1.5, 1.5, (16, 1, 1)).astype(np.float32))
    quick = without_prelu(copied(made))
    onnx.checker.check_model(quick)
    x = RNG.normal(size=(3, 16, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(run(quick, x), run(made, x), atol=1e-5)
    assert "PRelu" not in {node.op_type for node in quick.graph.node}
    assert "slope" not in {one.name for one in quick.graph.initializer}, "which nobody reads any more"
    assert quick.metadata_props == made.metadata_props


def test_one_slope_for_all_channels_stays_as_it_is() -> None:
    made = model(np.full((1, 1, 5), 0.25, dtype=np.float32))
    assert without_prelu(copied(made)) == made
