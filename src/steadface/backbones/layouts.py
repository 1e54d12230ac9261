"""Which network a bare state dict belongs to, read off its keys and shapes."""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from steadface.backbones.base import DEPTHS
from steadface.errors import SteadfaceError

# MobileFaceNet_Pytorch numbers its bottlenecks through and names the rest; the network is MobileFaceNet at width 1.
_BOTTLENECKS = ["layers.2", *(f"layers.3.layers.{i}" for i in range(4)), "layers.4"]
_BOTTLENECKS += [*(f"layers.5.layers.{i}" for i in range(6)), "layers.6", *(f"layers.7.layers.{i}" for i in range(2))]
_CONV_BLOCKS = {"conv1": "layers.0", "dw_conv1": "layers.1", "conv2": "conv_sep", "linear7": "features.layers.0"}
_PARTS = {"conv": 0, "bn": 1, "prelu": 2}


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with MobileFaceNet_Pytorch's keys renamed to InsightFace's; any other state dict as it is."""
    if not _is_mobilefacenet_pytorch(state):
        return dict(state)
    renamed = {_rename(key): value for key, value in state.items()}
    if (linear := renamed.get("features.layers.2.weight")) is not None:
        # There the embedding is a 1x1 convolution on a 1x1 map, which is the same linear layer.
        renamed["features.layers.2.weight"] = linear.flatten(1)
    return renamed


def infer_architecture(state: Mapping[str, Tensor], image_size: tuple[int, int] | None) -> dict[str, Any]:
    """The fields of `Architecture` that `state` implies.

    Raises SteadfaceError for a layout that is not known, a key that the inference needs and that is missing, and an
    image size that cannot be told from the weights and was not given.
    """
    if _is_mobilefacenet_pytorch(state):
        return {**_mobilefacenet(published_names(state)), "std": 128.0}
    if "layers.0.layers.0.weight" in state and any(key.startswith("conv_sep.") for key in state):
        return _mobilefacenet(state)
    if "conv1.weight" in state and any(key.startswith("layer1.0.") for key in state):
        return _iresnet(state, image_size)
    first = ", ".join(list(state)[:3])
    raise SteadfaceError(
        f"unknown layout of weights (keys {first}, ...); known are InsightFace's mobilefacenet and iresnet, "
        "MobileFaceNet_Pytorch's, and files written by this package"
    )


def _mobilefacenet(state: Mapping[str, Tensor]) -> dict[str, Any]:
    *_, height, width = _shape(state, "features.layers.0.layers.0.weight", 4)
    channels = _shape(state, "layers.0.layers.0.weight", 4)[0]
    stages = [_count(state, rf"layers\.{i}\.layers\.(\d+)\.layers\.") for i in (1, 3, 5, 7)]
    return {
        "name": "mobilefacenet",
        "embedding_size": _shape(state, "features.layers.2.weight", 2)[0],
        "image_size": (16 * height, 16 * width),
        "width": channels / 64,
        # The first stage is a single convolution, which has no numbered bottlenecks, where its depth is 1.
        "blocks": (max(1, stages[0]), *stages[1:]),
        # Weights of this layout also circulate for (x - 127.5) / 128, and a file does not say which it was trained
        # with, so InsightFace's holds. The difference, 0.4 % in contrast, is negligible.
        "std": 127.5,
    }


def _iresnet(state: Mapping[str, Tensor], image_size: tuple[int, int] | None) -> dict[str, Any]:
    stem = _shape(state, "conv1.weight", 4)[0]
    embedding_size, inputs = _shape(state, "fc.weight", 2)
    blocks = tuple(_count(state, rf"layer{i}\.(\d+)\.") for i in (1, 2, 3, 4))
    names = [name for name, depth in DEPTHS.items() if depth == blocks and name != "mobilefacenet"]
    if not names:
        raise SteadfaceError(f"an IResNet with {blocks} blocks is not known; known depths are {_known_depths()}")
    return {
        "name": names[0],
        "embedding_size": embedding_size,
        "image_size": image_size or _image_size(inputs / (8 * stem)),
        "width": stem / 64,
        "blocks": blocks,
    }


def _image_size(positions: float) -> tuple[int, int]:
    """(height, width) of the image behind a last map of so many positions; the square, or the older 112 x 96 crop."""
    side = math.isqrt(int(positions))
    if positions == side * side and side:
        return 16 * side, 16 * side
    if positions == 7 * 6:
        return 112, 96
    raise SteadfaceError(f"the image size cannot be told from fc.weight ({positions:g} positions); give image_size")


def _shape(state: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    if key not in state:
        raise SteadfaceError(f"1 missing: {key}, without which the architecture cannot be told")
    shape = tuple(state[key].shape)
    if len(shape) != dimensions:
        raise SteadfaceError(f"1 of another shape: {key} {shape} instead of {dimensions} dimensions")
    return shape


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbered parts there are, by the highest number: one left out is then reported as missing."""
    numbers = [int(match[1]) for key in state if (match := re.match(pattern, key))]
    return max(numbers, default=-1) + 1


def _known_depths() -> str:
    return ", ".join(f"{blocks} ({name})" for name, blocks in DEPTHS.items() if name != "mobilefacenet")


def _is_mobilefacenet_pytorch(state: Mapping[str, Tensor]) -> bool:
    return "dw_conv1.conv.weight" in state and "blocks.0.conv.0.weight" in state


def _rename(key: str) -> str:
    """InsightFace's name for one key of MobileFaceNet_Pytorch; a key that has none stays and is then unexpected."""
    if match := re.fullmatch(r"blocks\.(\d+)\.conv\.(\d+)\.(.+)", key):
        # Nine numbered layers: 1x1 conv, BatchNorm, PReLU; 3x3 conv, BatchNorm, PReLU; 1x1 conv, BatchNorm.
        block, part = int(match[1]), int(match[2])
        if block < len(_BOTTLENECKS):
            return f"{_BOTTLENECKS[block]}.layers.{part // 3}.layers.{part % 3}.{match[3]}"
    if match := re.fullmatch(r"linear1\.(conv|bn)\.(.+)", key):
        return f"features.layers.{2 if match[1] == 'conv' else 3}.{match[2]}"
    if match := re.fullmatch(r"(conv1|dw_conv1|conv2|linear7)\.(conv|bn|prelu)\.(.+)", key):
        return f"{_CONV_BLOCKS[match[1]]}.layers.{_PARTS[match[2]]}.{match[3]}"
    return key
