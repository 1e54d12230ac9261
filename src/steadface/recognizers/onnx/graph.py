"""An ONNX graph while it is written: nodes, constants as torch has them, and values that name what nodes compute."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor

from steadface.errors import SteadfaceError


@dataclass
class Value:
    """What a node computes, of so many `uses`. `layer` is the node's name where a BatchNorm can be folded into it."""

    name: str
    layer: str | None = None
    uses: int = 0
    shape: Sequence[Any] = ()


class Batch:
    """The number of images, which is not known when a graph is written."""


@dataclass
class Graph:
    """With `half` floats are float16, all but the constants that are `exact`."""

    half: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    exact: set[str] = field(default_factory=set)

    def add(self, op: str, inputs: Sequence[Value | Tensor], *, foldable: bool = False, **attributes: Any) -> Value:
        """The value of a new node, called after its operation; its constants are called after it and their place."""
        name, names = f"{op}_{len(self.nodes)}", []
        for place, one in enumerate(inputs):
            names.append(one.name if isinstance(one, Value) else constant_name(name, place))
            if isinstance(one, Tensor):
                self.constants[names[-1]] = one
        self.nodes.append(helper.make_node(op, names, [name], name=name, **attributes))
        return Value(name, layer=name if foldable else None)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All constants. Raises SteadfaceError for a weight that float16 cannot hold."""
        return {key: self._array(key, value) for key, value in self.constants.items()}

    def _array(self, key: str, value: Tensor) -> NDArray[Any]:
        array: NDArray[Any] = value.detach().cpu().contiguous().numpy()
        if array.dtype.kind != "f":
            return array
        if not self.half or key in self.exact:
            return array.astype(np.float32)
        largest = float(np.abs(array).max(initial=0.0))
        if largest > float(np.finfo(np.float16).max):
            raise SteadfaceError(f"a weight of {largest:.3g} is beyond the range of float16; export without half")
        return array.astype(np.float16)


def constant_name(node: str, place: int) -> str:
    return f"{node}.{place}"
