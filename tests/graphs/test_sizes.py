"""What a graph costs is told before it is run: exactly where it is a right one, and refused where it is no face's."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from steadface.errors import InvalidInput, SteadfaceError, Unsupported
from steadface.graphs.sizes import MOST_LIVE, MOST_WORK, Cost, check_cost, check_growth

from .test_reading import model

FILE = Path("w.onnx")


def node(op: str, inputs: str, outputs: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, ["" if one == "-" else one for one in inputs.split()], outputs.split(), **attributes)


def cost(whole: onnx.ModelProto, *shape: int) -> Cost:
    return check_cost(FILE, whole, shape or (1, 3, 16, 16), live=MOST_LIVE, work=MOST_WORK)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_a_convolution_costs_its_weights_at_each_place_and_holds_what_is_still_read() -> None:
    nodes = [node("Conv", "x w", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "b"), node("Flatten", "b", "y")]
    found = cost(model(*nodes, constants={"w": np.ones((8, 3, 3, 3), np.float32)}), 2, 3, 16, 16)
    maps, images = 2 * 8 * 16 * 16, 2 * 3 * 16 * 16
    assert found.live == 2 * maps, "a map and what is made of it"
    assert found.work == maps * 27 + images + 8 * 27 + maps + 2 * 2 * maps


SHAPED = [
    node("Shape", "x", "s"),
    node("Gather", "s zero", "b"),
    node("Unsqueeze", "b axes", "b1"),
    node("Concat", "b1 rest", "shape", axis=0),
    node("Reshape", "x shape", "y"),
]


def test_shapes_that_a_graph_computes_are_followed() -> None:
    whole = model(*SHAPED, constants={"zero": np.array(0), "axes": ints(0), "rest": ints(-1)})
    assert cost(whole, 5, 3, 16, 16).live == 5 * 3 * 16 * 16


ENLARGING: dict[str, tuple[list[NodeProto], dict[str, object]]] = {
    "ConstantOfShape": ([node("ConstantOfShape", "n", "c")], {"n": ints(3 * 10**9)}),
    "Expand": ([node("Expand", "one n", "c")], {"one": np.ones(1, np.float32), "n": ints(10**5, 10**5)}),
    "Tile": ([node("Tile", "x n", "c")], {"n": ints(1, 1, 2000, 2000)}),
    "Range": ([node("Range", "a b d", "c")], {"a": np.float32(0), "b": np.float32(4e9), "d": np.float32(1)}),
    "Resize": ([node("Resize", "x - n", "c")], {"n": np.array([1, 1, 3000, 3000], np.float32)}),
    "Pad": ([node("Pad", "x n", "c")], {"n": ints(0, 0, 0, 0, 0, 0, 30_000, 30_000)}),
    "Conv": ([node("Conv", "x w", "c", pads=[20_000] * 4)], {"w": np.ones((4, 3, 3, 3), np.float32)}),
    "ConvTranspose": (
        [node("ConvTranspose", "x w", "c", strides=[3000] * 2)],
        {"w": np.ones((3, 1, 1, 1), np.float32)},
    ),
    "OneHot": (
        [node("Cast", "f", "i", to=TensorProto.INT64), node("OneHot", "i n v", "c")],
        {"n": ints(10**7), "v": np.array([0, 1], np.float32)},
    ),
    "RandomNormal": ([node("RandomNormal", "", "c", shape=[10**5, 10**5])], {}),
    "doubling": (
        [node("Concat", f"{f'c{i}' if i else 'f'} {f'c{i}' if i else 'f'}", f"c{i + 1}", axis=1) for i in range(40)],
        {},
    ),
    "outer product": (
        [node("Reshape", "x n", "l"), node("Reshape", "x m", "r"), node("Mul", "l r", "o"), node("MatMul", "o o", "c")],
        {"n": ints(-1, 1), "m": ints(1, -1)},
    ),
    "products of constants": (
        [node("ConstantOfShape", "n", "c0"), *(node("MatMul", f"c{i} c{i}", f"c{i + 1}") for i in range(200))],
        {"n": ints(5000, 5000)},
    ),
    "large windows": (
        [node("Pad", "x n", "p"), node("MaxPool", "p", "c", kernel_shape=[700, 700])],
        {"n": ints(0, 0, 0, 0, 0, 0, 1400, 1400)},
    ),
}


@pytest.mark.parametrize("name", ENLARGING)
def test_what_a_small_file_makes_large_is_refused_with_the_bound(name: str) -> None:
    nodes, constants = ENLARGING[name]
    whole = model(node("Flatten", "x", "f"), *nodes, constants=constants)
    with pytest.raises(InvalidInput, match=r"(holds|keeps|computes) [\d,]+ numbers at .*, more than [\d,]+"):
        cost(whole, 1, 3, 112, 112)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        (
            [node("ReduceMax", "x", "m", keepdims=0), node("Range", "a m d", "y")],
            {"a": np.float32(0), "d": np.float32(1)},
        ),
        ([node("NonZero", "x", "y")], {}),
        (
            [
                node("ReduceSum", "x", "n"),
                node("Cast", "n", "i", to=7),
                node("Reshape", "i one", "s"),
                node("Expand", "v s", "y"),
            ],
            {"one": ints(1), "v": np.float32(1)},
        ),
        ([node("Einsum", "x x x", "y", equation="abcd,abcd,abcd->abcd")], {}),
        ([node("Cast", "x", "i", to=6), node("Div", "i i", "y")], {}),
        ([node("Cast", "x", "i", to=7), node("Mod", "i n", "y")], {"n": ints(-1)}),
        ([node("Cast", "x", "t", to=8), node("Cast", "t", "y", to=1)], {}),
        ([helper.make_node("Thing", ["x"], ["y"], domain="own")], {}),
        ([helper.make_node("\x1b[2J", ["x"], ["y"])], {}),
    ],
)
def test_a_size_that_depends_on_the_pixels_or_on_nobody_knows_what_is_refused(
    nodes: list[NodeProto], constants: dict[str, object]
) -> None:
    with pytest.raises(Unsupported, match=r"cannot be told.*path/to/file.py:function") as caught:
        cost(model(*nodes, constants=constants))
    assert str(caught.value).isprintable()


def test_what_grows_faster_than_the_images_is_refused() -> None:
    growing = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "b"),
        node("Mul", "b b", "b2"),
        node("Mul", "b2 b2", "b4"),
    ]
    made = [node("Reshape", "b4 one", "n"), node("Mul", "n many", "n2"), node("ConstantOfShape", "n2", "c")]
    last = [node("ReduceSum", "c", "r", keepdims=0), node("Flatten", "x", "f"), node("Add", "f r", "y")]
    constants = {"zero": np.array(0), "one": ints(1), "many": ints(100)}
    whole = model(*growing, *made, *last, constants=constants)
    cost(whole)
    with pytest.raises(InvalidInput):
        check_growth(FILE, whole, (1, 3, 16, 16), (64, 3, 16, 16), live=MOST_LIVE, work=MOST_WORK)
    squared = [
        node("Flatten", "x", "f"),
        node("MatMul", "f w", "l"),
        node("Transpose", "l", "r"),
        node("MatMul", "l r", "y"),
    ]
    linear = model(*squared, constants={"w": np.ones((768, 1), np.float32)})
    check_growth(FILE, linear, (1, 3, 16, 16), (16, 3, 16, 16), live=MOST_LIVE, work=MOST_WORK)
    with pytest.raises(InvalidInput, match="faster than its images"):
        check_growth(FILE, linear, (1, 3, 16, 16), (2048, 3, 16, 16), live=MOST_LIVE, work=MOST_WORK)


def test_the_branch_that_is_taken_is_followed() -> None:
    def branch(*nodes: NodeProto) -> onnx.GraphProto:
        return helper.make_graph(
            list(nodes), "branch", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
        )

    small, large = branch(node("Relu", "x", "z")), branch(node("Tile", "x n", "z"))
    asked = [node("Shape", "x", "s"), node("Gather", "s zero", "b"), node("Equal", "b one", "c")]
    whole = model(
        *asked,
        helper.make_node("If", ["c"], ["y"], then_branch=small, else_branch=large),
        constants={"zero": np.array(0), "one": np.array(1), "n": ints(1, 1, 2000, 2000)},
    )
    assert cost(whole).live >= 768
    with pytest.raises(InvalidInput, match="more than"):
        cost(whole, 2, 3, 16, 16)


def test_what_onnxruntime_computes_of_a_branch_that_is_not_taken_counts() -> None:
    def branch(*nodes: NodeProto) -> onnx.GraphProto:
        return helper.make_graph(
            list(nodes), "branch", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
        )

    for factor, wrong in ((2, False), (2**31, False), (2, True)):
        inner = [node("Squeeze", "one nowhere" if wrong else "one", "v"), node("Tile", "one n", "z")]
        whole = model(
            helper.make_node(
                "If", ["c"], ["y"], then_branch=branch(node("Relu", "x", "z")), else_branch=branch(*inner)
            ),
            constants={"c": np.array(True), "one": np.ones(1, np.float32), "nowhere": ints(7), "n": ints(factor)},
        )
        if factor == 2:
            assert cost(whole).live >= 768, "what breaks the rules there does not matter"
        else:
            with pytest.raises(InvalidInput, match=r"keeps [\d,]+ numbers at 'Tile'"):
                cost(whole)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Add", "x b", "a"), node("Add", "a x", "b"), node("Identity", "a", "y")],
        [node("Identity", "nothing", "y")],
        [node("Add", "x", "y")],
        [node("Conv", "x x", "y", strides=[0, 0])],
        [node("Reshape", "x x", "y")],
    ],
)
def test_graphs_that_break_the_rules_are_refused(nodes: list[NodeProto]) -> None:
    with pytest.raises(SteadfaceError):
        cost(model(*nodes))


@pytest.mark.parametrize("factor", [0.0, -1e30, float("nan"), 1e38])
def test_maps_resized_by_what_is_no_factor_are_refused(factor: float) -> None:
    """OpenCV takes the process down with them."""
    whole = model(node("Resize", "x - n", "y"), constants={"n": np.array([1, 1, factor, factor], np.float32)})
    with pytest.raises(SteadfaceError):
        cost(whole)


def test_constants_whose_dimensions_lie_are_refused() -> None:
    for dims in ([10**12], [-1], [2**40, 2**40], [0, 2**62]):
        whole = model(node("Add", "x w", "y"))
        whole.graph.initializer.append(TensorProto(name="w", data_type=1, dims=dims, raw_data=bytes(4)))
        with pytest.raises(SteadfaceError):
            cost(whole)
