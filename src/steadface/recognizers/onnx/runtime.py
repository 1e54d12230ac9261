"""An ONNX recogniser as a network: its graph converted to torch where that agrees with onnxruntime, else the latter.

    || converted(x) - runtime(x) || <= PARITY || runtime(x) ||      for each of 1 and of 4 images of noise

For onnxruntime on a CPU PReLUs are rewritten, which gives the same embeddings sooner:

    PReLU(x) = a x + (1 - a) max(x, 0)                              a the slope of each channel

and those with a rounded corner (`rounding.py`), in six operations for nine:

    (1 + a) / 2 x - (1 - a) / 2 c + (1 - a) / 2 sqrt(x^2 + c^2)

onnxruntime convolves in a memory layout of its own, blocks of channels, and has no PReLU for it: around each one all
maps are laid out anew, twice. For max(x, 0), sums and BatchNormalization, here a factor for each channel, it has.
Weights that are too small to count become zero there too (`backbones/frozen.py`).
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from steadface.backbones.frozen import negligible, zero_negligible
from steadface.backbones.soundness import noise_for
from steadface.devices import open_session
from steadface.errors import InvalidInput, SteadfaceError, Unsupported, first_line
from steadface.graphs.sizes import MOST_LIVE, MOST_WORK, Unrunnable, check_cost, check_growth
from steadface.recognizers.adapters import Adapted, External, embedding_output
from steadface.recognizers.convention import Convention
from steadface.recognizers.onnx.operations import NotConverted
from steadface.recognizers.onnx.read import Array, Node, OnnxFile, noted_in
from steadface.recognizers.onnx.rounding import Group, groups
from steadface.recognizers.onnx.torch import OnnxGraph

if TYPE_CHECKING:
    import onnxruntime

Rewritten = tuple[list[onnx.NodeProto], dict[str, Array]]
"""Nodes in place of one, and their constants."""

MANY = 16
"""Images at which it is looked whether what a graph holds grows with their number."""

PARITY = 1e-4
"""How far, relative to its length, a converted embedding may be from onnxruntime's."""


def network_of(
    file: OnnxFile, convention: Convention, *, output: str | None = None, gradients: bool = True
) -> tuple[Adapted, str, tuple[str, ...]]:
    """The network of a file under a convention, the output it takes, and notes: why it has no gradients if it has none.

    Without `gradients` it stays in onnxruntime, and nothing is converted. Raises SteadfaceError where onnxruntime
    itself cannot run the file, where it has no such `output`, and where nothing tells which is the embedding.
    """
    alone, noted = _check_cost(file, convention), noted_in(file)
    core = Runtime(file)
    core.batch = 1 if alone else core.batch
    core.output = _embedding(core, convention, output or (noted.output if noted else None))
    runtime = Adapted(core, convention, name=str(file.path), differentiable=False).eval()
    expected = [_runtime_embeddings(runtime, core, count) for count in ((1, 4) if gradients else (2,))]
    if not gradients:
        return runtime, core.output, ()
    why = ""
    try:
        graph = OnnxGraph(file.taking(core.output), core.batch)
        converted = Adapted(graph, convention, name=str(file.path)).eval()
        with torch.no_grad():
            distance = max(apart(converted(noise_for(converted, len(one))), one) for one in expected)
        if distance <= PARITY:  # NaN is not parity
            return converted, core.output, ()
        why = f"the graph converted to torch differs from onnxruntime by {distance:.2g} of an embedding's length"
    except NotConverted as reason:
        why = f"{reason} is not converted to torch"
    except (SteadfaceError, RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
        why = f"the graph converted to torch fails ({first_line(error)})"
    return runtime, core.output, (f"{file.path}: no gradients, since {why}; only attacks without gradients are run",)


def _check_cost(file: OnnxFile, convention: Convention) -> bool:
    """Whether the graph takes one image at a time, although it does not say so.

    Raises SteadfaceError for a graph whose cost is beyond the bounds, or cannot be told.
    """
    bounds = {"live": MOST_LIVE, "work": MOST_WORK}
    one, many = (_shape(file, convention, count) for count in (1, MANY))
    if file.batch is not None:
        times = {key: min(file.batch, MANY) * most for key, most in bounds.items()}
        check_cost(file.path, file.model, _shape(file, convention, file.batch), **times)
        return False
    try:
        check_growth(file.path, file.model, one, many, **bounds)
    except Unrunnable:
        check_cost(file.path, file.model, one, **bounds)
        return True
    return False


def _shape(file: OnnxFile, convention: Convention, count: int) -> tuple[int, ...]:
    return (count, *convention.size, 3) if file.channels_last else (count, 3, *convention.size)


class Runtime(External):
    """Normalised pixels (B, 3, H, W) to embeddings (B, D), the `output` of a file, through onnxruntime; no gradients.

    A graph for a fixed `batch` is run as often as it takes.
    """

    def __init__(self, file: OnnxFile) -> None:
        super().__init__()
        self.session = _session(file)
        self.name, self.batch = str(file.path), file.batch
        self.outputs, self.output = file.outputs, file.output
        self._input, self._channels_last, self._dtype = file.input, file.channels_last, file.dtype

    def forward(self, pixels: Tensor) -> Tensor:
        given = self._given(pixels)
        size = self.batch or len(given)
        parts = [self._run(given[start : start + size], size) for start in range(0, len(given), size)]
        return torch.from_numpy(np.concatenate(parts).astype(np.float32)).to(pixels.device)

    def every(self, pixels: Tensor) -> list[Array]:
        """All outputs of the file, for as many of the images as it takes at a time."""
        answers: list[Array] = self.session.run(list(self.outputs), {self._input: self._given(pixels)[: self.batch]})
        return answers

    def _given(self, pixels: Tensor) -> Array:
        if self._channels_last:
            pixels = pixels.permute(0, 2, 3, 1)
        given = pixels.detach().cpu().numpy()
        return (given.round() if self._dtype == np.uint8 else given).astype(self._dtype)

    def _run(self, pixels: Array, size: int) -> Array:
        filled = pixels if len(pixels) == size else np.concatenate([pixels, pixels[-1:].repeat(size - len(pixels), 0)])
        try:
            (answer,) = self.session.run([self.output], {self._input: filled})
        except Exception as error:  # onnxruntime's own, of a number of images that it was not opened with
            height, width = pixels.shape[1:3] if self._channels_last else pixels.shape[2:]
            raise _unrunnable(self.name, size, (height, width), error) from error
        found: Array = answer[: len(pixels)]
        return found


def _session(file: OnnxFile) -> "onnxruntime.InferenceSession":
    """The file in onnxruntime, rewritten to run sooner where that can be; raises SteadfaceError."""
    rounded = _rounded_rectifiers(file)
    if rounded or any(node.op == "PRelu" for node in file.nodes) or _has_negligible(file):
        # A graph above 2 GB cannot be handed over in memory, and one of an old opset may not take the rewriting.
        with suppress(Exception):
            quick = onnx.ModelProto()
            quick.CopyFrom(file.model)
            quick = without_negligible(with_shorter_rectifiers(quick, rounded, file.constants))
            return open_session(without_prelu(quick).SerializeToString())
    try:
        return open_session(file.path)
    except Exception as error:  # onnxruntime's own, which share no public base class
        raise Unsupported(f"onnxruntime cannot load {file.path}: {first_line(error)}") from error


def _embedding(core: Runtime, convention: Convention, wanted: str | None) -> str:
    """The output that is `wanted`, or else the only one that is an embedding when the file is run on noise."""
    if wanted is None and len(core.outputs) == 1:
        return core.output
    pixels = torch.rand((2, 3, *convention.size), generator=torch.Generator().manual_seed(0))
    try:
        found = core.every(pixels)
    except Exception as error:  # onnxruntime's own: perhaps the graph takes one image at a time, and does not say so
        try:
            found = core.every(pixels[:1])
        except Exception:
            raise _unrunnable(core.name, 2, convention.size, error) from error
    count = len(found[0]) if found[0].ndim else 0
    shapes = {name: one.shape for name, one in zip(core.outputs, found, strict=True)}
    return embedding_output(core.name, shapes, count, wanted)


def _runtime_embeddings(network: Adapted, core: Runtime, count: int) -> Tensor:
    """Of so many images of noise; one image at a time where the graph allows no more, although it does not say so."""
    noise = noise_for(network, count)
    try:
        return network(noise)
    except Exception as error:  # onnxruntime's own, and embeddings that are fewer than the images
        if core.batch is None and count > 1:
            core.batch = 1
            return network(noise)
        if isinstance(error, SteadfaceError):
            raise
        raise _unrunnable(network.name, count, network.image_size, error) from error


def _unrunnable(name: str, count: int, size: tuple[int, int], error: Exception) -> SteadfaceError:
    height, width = size
    return InvalidInput(
        f"onnxruntime cannot run {name} on {count} images of {height} x {width} ({first_line(error)}); state "
        "the image_size that it takes"
    )


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest distance of embeddings from those expected, relative to their length."""
    if found.shape != expected.shape:
        return float("inf")
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


def _has_negligible(file: OnnxFile) -> bool:
    floats = (torch.from_numpy(np.array(value)) for value in file.constants.values() if value.dtype == np.float32)
    return any((negligible(value) & (value != 0)).any() for value in floats)


def without_negligible(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, changed in place, its float32 weights as `zero_negligible` leaves them."""
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            value = np.array(numpy_helper.to_array(weight))
            zero_negligible([torch.from_numpy(value)])
            weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    return model


def _rounded_rectifiers(file: OnnxFile) -> list[Group]:
    """Those with a slope for each channel."""
    found = groups(file.nodes, file.constants)
    return [one for one in found if len(one.joined.inputs) == 2 and file.constants[one.joined.inputs[1]].size > 1]


def with_shorter_rectifiers(
    model: onnx.ModelProto, rounded: Sequence[Group], constants: Mapping[str, Array]
) -> onnx.ModelProto:
    """`model`, changed in place, these rectifiers of it in fewer operations; their slopes are among the `constants`."""
    whole = (one.joined for one in rounded)
    made = {node.outputs[0]: _shorter(node, constants[node.inputs[1]].reshape(-1)) for node in whole}
    _replace(model.graph, made, {name for one in rounded for node in one.nodes for name in node.outputs})
    return model


def _shorter(node: Node, slope: Array) -> Rewritten:
    """Nodes for a rounded rectifier, and their constants."""
    (y,), x, corner = node.outputs, node.inputs[0], float(node.attributes["corner"])
    even = (1 - slope) / 2
    constants: dict[str, Array] = {
        f"{y}/line": (1 + slope) / 2,
        f"{y}/shift": -even * corner,
        f"{y}/even": even,
        f"{y}/corner": np.array(corner**2, dtype=slope.dtype),
        f"{y}/zeros": np.zeros_like(slope),
        f"{y}/ones": np.ones_like(slope),
    }
    nodes = [
        helper.make_node("Mul", [x, x], [f"{y}/square"], name=f"{y}/square"),
        helper.make_node("Add", [f"{y}/square", f"{y}/corner"], [f"{y}/sum"], name=f"{y}/sum"),
        helper.make_node("Sqrt", [f"{y}/sum"], [f"{y}/root"], name=f"{y}/root"),
        _scaled(x, f"{y}/line", y, shift=f"{y}/shift"),
        _scaled(f"{y}/root", f"{y}/even", y),
        helper.make_node("Add", [f"{y}/line/scaled", f"{y}/even/scaled"], [y], name=f"{y}/rectified"),
    ]
    return nodes, constants


def without_prelu(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, changed in place, its float32 PReLUs with a constant slope (C, 1, 1) written as other operations.

    What is still a PReLU afterwards is as it was. The metadata stay; the file's digest is another one.
    """
    constants = {one.name: one for one in model.graph.initializer}
    made = {}
    for node in model.graph.node:
        slope = constants.get(node.input[1]) if node.op_type == "PRelu" else None
        if slope is not None and slope.data_type == onnx.TensorProto.FLOAT and list(slope.dims[1:]) == [1, 1]:
            made[node.output[0]] = _rewritten(node, numpy_helper.to_array(slope).reshape(-1))
    _replace(model.graph, made)
    return model


def _rewritten(node: onnx.NodeProto, slope: Array) -> Rewritten:
    """Nodes in place of a PReLU, and their constants."""
    (y,), x = node.output, node.input[0]
    zeros, ones = np.zeros_like(slope), np.ones_like(slope)
    factors = {f"{y}/slope": slope, f"{y}/rest": 1 - slope, f"{y}/zeros": zeros, f"{y}/ones": ones}
    nodes = [
        helper.make_node("Relu", [x], [f"{y}/positive"], name=f"{y}/positive"),
        _scaled(x, f"{y}/slope", y),
        _scaled(f"{y}/positive", f"{y}/rest", y),
        helper.make_node("Add", [f"{y}/slope/scaled", f"{y}/rest/scaled"], [y], name=f"{y}/sum"),
    ]
    return nodes, factors


def _scaled(x: str, factor: str, y: str, shift: str | None = None) -> onnx.NodeProto:
    """Every channel times its factor, and shifted."""
    inputs = [x, factor, shift or f"{y}/zeros", f"{y}/zeros", f"{y}/ones"]
    return helper.make_node("BatchNormalization", inputs, [f"{factor}/scaled"], name=f"{factor}/scaled", epsilon=0.0)


def _replace(graph: onnx.GraphProto, made: Mapping[str, Rewritten], dropped: Collection[str] = ()) -> None:
    """Writes what is `made` in place of the nodes that give these outputs, and nothing for those that give a `dropped`
    one; constants that nobody reads any more go.
    """
    nodes = []
    for node in graph.node:
        if node.output[0] in made:
            new, constants = made[node.output[0]]
            nodes += new
            graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
        elif node.output[0] not in dropped:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
