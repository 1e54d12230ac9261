"""What the first operations of an ONNX graph say of the pixels that it takes.

    v = scale x + shift        per colour, followed from the images x on through constants alone

Only what is done to the images themselves says anything: a Sub or a Mul later on belongs to the network (a PReLU
written as `relu(x) + a (x - |x|)`, say). What is not certain is not stated, and is left to probing.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from steadface.recognizers.convention import NORMALISATIONS, SIZE, Convention, Known
from steadface.recognizers.onnx.read import Array, Node, OnnxFile, noted_in

FOLDING = frozenset(["Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"])
"""Of a constant they make the same numbers in another shape or type."""

MOVING = FOLDING | {"Dropout", "Flatten", "Gather", "Resize", "Slice", "Upsample"}
"""They take pixels elsewhere and leave their values as they are."""

INTEGERS = frozenset({onnx.TensorProto.UINT8, onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.INT16})

INNER = (0.2, 0.8)
"""Where in the range of pixels, as a share of it, a mean of faces lies."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Line:
    """scale x + shift, each (1,) or (3,); `measured` where a BatchNormalization made it, from the pixels themselves."""

    scale: Floats
    shift: Floats
    measured: bool = False

    def then(self, other: "_Line") -> "_Line":
        return _Line(
            scale=self.scale * other.scale, shift=self.shift * other.scale + other.shift, measured=other.measured
        )


def convention_of(file: OnnxFile) -> Convention:
    """What the file says of the pixels, in words of ours where we wrote it; defaults where it says nothing."""
    if (noted := noted_in(file)) is not None:
        return noted.convention
    found = "0..255" if file.dtype == np.uint8 else None
    # Operations with fewer inputs than they take, or constants that do not fit, are refused where the graph is run.
    with suppress(ValueError, IndexError, TypeError), np.errstate(all="ignore"):
        found = found or stated_range(file.nodes, file.constants, file.input)
    known = Known(
        size="default" if file.size is None else "file",
        pixel_range="default" if found is None else "file",
        channel_order="default",
    )
    return Convention(size=file.size or SIZE, pixel_range=found or "-1..1", known=known)


def stated_range(nodes: Sequence[Node], constants: Mapping[str, Array], images: str) -> str | None:
    """The `PixelRange` that a graph's own operations on its `images` ask for; None where they do not say."""
    readers, makers = defaultdict(list), {name: node for node in nodes for name in node.outputs}
    for node in nodes:
        for name in node.inputs:
            if node.op != "Shape":
                readers[name].append(node)
    line, current = _Line(scale=np.ones(1), shift=np.zeros(1)), images
    while len(readers[current]) == 1 and not line.measured:  # with two readers nothing is done to all that follows
        (node,) = readers[current]
        if node.op == "Cast" and node.attributes.get("to") in INTEGERS and _untouched(line):
            return "0..255"  # in any other range nothing would be left
        step = _moved(node, current) or _step(node, current, constants, makers)
        if step is None:
            break
        line, current = line.then(step), node.outputs[0]
    return _range_before(line)


def _moved(node: Node, current: str) -> _Line | None:
    if node.op not in MOVING or node.inputs[0] != current:
        return None
    return _Line(scale=np.ones(1), shift=np.zeros(1))


def _step(node: Node, current: str, constants: Mapping[str, Array], makers: Mapping[str, Node]) -> _Line | None:
    """What a node with constants makes of `current`; None where it is none of these, or they are not one per colour."""
    if node.op == "BatchNormalization":
        return _normalised(node, constants)
    if node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    first = node.inputs[0] == current
    value = _constant(node.inputs[1] if first else node.inputs[0], constants, makers)
    if value is None or (node.op in ("Sub", "Div") and not first):
        return None
    if node.op == "Mul" or node.op == "Div":
        with np.errstate(divide="ignore"):
            return _Line(scale=value if node.op == "Mul" else 1 / value, shift=np.zeros(1))
    return _Line(scale=np.ones(1), shift=value if node.op == "Add" else -value)


def _normalised(node: Node, constants: Mapping[str, Array]) -> _Line | None:
    """By the statistics alone: what training made of them afterwards says nothing of the pixels."""
    mean, variance = (constants.get(name) for name in node.inputs[3:5])
    if mean is None or variance is None or mean.size not in (1, 3):
        return None
    deviation = np.sqrt(variance.astype(np.float64).reshape(-1) + node.attributes.get("epsilon", 1e-5))
    return _Line(scale=1 / deviation, shift=-mean.astype(np.float64).reshape(-1) / deviation, measured=True)


def _constant(name: str, constants: Mapping[str, Array], makers: Mapping[str, Node]) -> Floats | None:
    """One number, or one per colour, however the exporter brought it into shape."""
    while name not in constants:
        node = makers.get(name)
        if node is None or node.op not in FOLDING:
            return None
        name = node.inputs[0]
    value = np.asarray(constants[name])
    return value.astype(np.float64).reshape(-1) if value.size in (1, 3) and value.dtype.kind in "fiu" else None


def _untouched(line: _Line) -> bool:
    return bool((line.scale == 1).all() and (line.shift == 0).all())


def _range_before(line: _Line) -> str | None:
    """The range of x for which scale x + shift is what networks are given."""
    if not np.isfinite(line.scale).all() or (line.scale <= 0).any() or not np.isfinite(line.shift).all():
        return None
    mean, spread = -line.shift / line.scale, 1 / line.scale
    if _all_between(mean / 255, *INNER):  # nobody takes 100 away from pixels in 0..1
        return "0..255"
    if line.measured:
        return "0..1" if _all_between(mean, 0.25, 0.75) and _all_between(spread, 0.08, 0.4) else None
    enlarged, central = _all_between(line.scale, 64, 512), _all_between(mean, *INNER)
    if (np.abs(mean) < 1e-6).all():
        return "0..255" if _all_between(255 * line.scale, 0.5, 4) else "0..1" if enlarged else None
    if _all_between(mean, 0.49, 0.51) or _imagenet(mean, spread) or (enlarged and central):
        return "0..1"
    return "-1..1" if enlarged and _all_between(mean, -1.05, -0.95) else None


def _imagenet(mean: Floats, spread: Floats) -> bool:
    """Whether these are ImageNet's statistics of pixels in 0..1, in either order of colours."""
    wanted = [np.array(part) / 255 for part in NORMALISATIONS["imagenet"]]
    return any(
        np.allclose(mean, wanted[0][::step], atol=0.005) and np.allclose(spread, wanted[1][::step], atol=0.005)
        for step in (1, -1)
    )


def _all_between(values: Floats, low: float, high: float) -> bool:
    return bool(((low <= values) & (values <= high)).all())
