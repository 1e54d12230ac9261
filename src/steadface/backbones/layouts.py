"""The layouts of state dicts that people bring: which network one belongs to, read off its keys and shapes."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steadface.backbones.iresnet import PUBLISHED
from steadface.errors import InvalidInput, Unsupported

State = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one family of files names its weights.

    `typical` has a key of each part of the network. `converted` gives the weights under our names, which are
    InsightFace's, and leaves what has none as it is. `fields` gives the fields of `Architecture` that these imply, for
    an image size (height, width) or None, and raises SteadfaceError naming a key that it needs and that is missing.
    `note` is what has to be said whenever such weights are taken.
    """

    title: str
    typical: tuple[str, ...]
    fields: Callable[[State, tuple[int, int] | None], dict[str, Any]]
    converted: Callable[[State], dict[str, Tensor]] = dict
    note: str = ""

    @property
    def parts(self) -> set[str]:
        """How the network's keys begin; what begins otherwise (a head, say) belongs to something else."""
        return {key.partition(".")[0] for key in self.typical}

    def missing(self, state: State, prefix: str) -> list[str]:
        """The typical keys that are not in `state` under `prefix`."""
        return [key for key in self.typical if prefix + key not in state]

    def likeliest(self, state: State) -> list[tuple[str, int]]:
        """(prefix, how many typical keys there are under it), most first; whatever the prefix is."""
        ends = tuple(f".{key}" for key in self.typical)
        counts = Counter({"": len(self.typical) - len(self.missing(state, ""))})
        counts.update(key[: 1 - len(end)] for key in state for end in ends if key.endswith(end))
        return counts.most_common()

    def prefixes(self, state: State) -> list[str]:
        """Under which most of the typical keys are found, so that what is missing can be named."""
        return [prefix for prefix, count in self.likeliest(state) if 2 * count > len(self.typical)]


def _mobilefacenet(state: State, _: tuple[int, int] | None) -> dict[str, Any]:
    height, width = _shape(state, "features.layers.0.layers.0.weight", 4)[2:]
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


def _mobilefacenet_pytorch(state: State, _: tuple[int, int] | None) -> dict[str, Any]:
    return {**_mobilefacenet(state, None), "std": 128.0}


def _iresnet(state: State, image_size: tuple[int, int] | None) -> dict[str, Any]:
    stem = _shape(state, "conv1.weight", 4)[0]
    embedding_size, inputs = _shape(state, "fc.weight", 2)
    blocks = tuple(_count(state, rf"layer{i}\.(\d+)\.") for i in (1, 2, 3, 4))
    names = [name for name, depth in PUBLISHED.items() if depth == blocks]
    if not names:
        raise Unsupported(f"an IResNet with {blocks} blocks is not known; known depths are {_known_depths()}")
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
    raise InvalidInput(f"the image size cannot be told from fc.weight ({positions:g} positions); give image_size")


def _shape(state: State, key: str, dimensions: int) -> tuple[int, ...]:
    if key not in state:
        raise InvalidInput(f"1 missing: {key}, without which the architecture cannot be told")
    shape = tuple(state[key].shape)
    if len(shape) != dimensions or 0 in shape:
        raise InvalidInput(f"1 of another shape: {key} {shape} instead of {dimensions} dimensions")
    return shape


def _count(state: State, pattern: str) -> int:
    """How many numbered parts there are, by the highest number: one left out is then reported as missing."""
    numbers = [int(match[1]) for key in state if (match := re.match(pattern, key)) and len(match[1]) < 7]
    highest = max(numbers, default=-1) + 1
    if highest > len(state):
        raise InvalidInput(f"a part numbered {highest - 1} among {len(state)} tensors; the file is damaged")
    return highest


def _known_depths() -> str:
    return ", ".join(f"{blocks} ({name})" for name, blocks in PUBLISHED.items())


# MobileFaceNet_Pytorch numbers its bottlenecks through and names the rest; the network is MobileFaceNet at width 1.
_BOTTLENECKS = ["layers.2", *(f"layers.3.layers.{i}" for i in range(4)), "layers.4"]
_BOTTLENECKS += [*(f"layers.5.layers.{i}" for i in range(6)), "layers.6", *(f"layers.7.layers.{i}" for i in range(2))]
_CONV_BLOCKS = {"conv1": "layers.0", "dw_conv1": "layers.1", "conv2": "conv_sep", "linear7": "features.layers.0"}
_PARTS = {"conv": 0, "bn": 1, "prelu": 2}


def _renamed(key: str, value: Tensor) -> tuple[str, Tensor]:
    name = _name(key)
    # There the embedding is a 1x1 convolution on a 1x1 map, which is the same linear layer.
    return name, value.flatten(1) if name == "features.layers.2.weight" and value.dim() > 1 else value


def _name(key: str) -> str:
    """InsightFace's name for one key of MobileFaceNet_Pytorch; a key that has none stays and is then unexpected."""
    if match := re.fullmatch(r"blocks\.(\d{1,6})\.conv\.(\d{1,6})\.(.+)", key):
        # Nine numbered layers: 1x1 conv, BatchNorm, PReLU; 3x3 conv, BatchNorm, PReLU; 1x1 conv, BatchNorm.
        block, part = int(match[1]), int(match[2])
        if block < len(_BOTTLENECKS):
            return f"{_BOTTLENECKS[block]}.layers.{part // 3}.layers.{part % 3}.{match[3]}"
    if match := re.fullmatch(r"linear1\.(conv|bn)\.(.+)", key):
        return f"features.layers.{2 if match[1] == 'conv' else 3}.{match[2]}"
    if match := re.fullmatch(r"(conv1|dw_conv1|conv2|linear7)\.(conv|bn|prelu)\.(.+)", key):
        return f"{_CONV_BLOCKS[match[1]]}.layers.{_PARTS[match[2]]}.{match[3]}"
    return key


_FIRST = {"input_layer.0": "conv1", "input_layer.1": "bn1", "input_layer.2": "prelu"}
_LAST = {"output_layer.0": "bn2", "output_layer.3": "fc", "output_layer.4": "features"}
_UNIT = ("bn1", "conv1", "bn2", "prelu", "conv2", "bn3")


def _from_ir(state: State) -> dict[str, Tensor]:
    """The IR network of AdaFace and face.evoLVe as the IResNet that computes the same.

    Its units are numbered through. face.evoLVe's have no BatchNorm before the PReLU; the first unit's shortcut takes
    every second pixel, and has no weights; and AdaFace does not scale the last BatchNorm. All three are layers that
    change nothing in an IResNet.
    """
    between = any(re.fullmatch(r"body\.\d+\.res_layer\.2\.running_mean", key) for key in state)
    names = _UNIT if between else tuple(name for name in _UNIT if name != "bn2")
    places = _places(state)
    found = {}
    for key, value in state.items():
        unit = re.fullmatch(r"body\.(\d{1,6})\.(res_layer|shortcut_layer)\.([0-5])\.(\w+)", key)
        head, _, last = key.rpartition(".")
        if unit and int(unit[1]) in places and int(unit[3]) < (len(names) if unit[2] == "res_layer" else 2):
            part = names[int(unit[3])] if unit[2] == "res_layer" else f"downsample.{unit[3]}"
            found[f"{places[int(unit[1])]}.{part}.{unit[4]}"] = value
        elif name := (_FIRST | _LAST).get(head):
            found[f"{name}.{last}"] = value
        else:
            found[key] = value
    inputs = _length(found, "layer1.0.bn1.weight")
    if inputs and "layer1.0.downsample.0.weight" not in found:
        found["layer1.0.downsample.0.weight"] = torch.eye(inputs)[:, :, None, None]
        found |= _idle_norm("layer1.0.downsample.1", inputs)
    for place in () if between else places.values():
        if size := _length(found, f"{place}.prelu.weight"):
            found |= _idle_norm(f"{place}.bn2", size)
    if (size := _length(found, "features.running_mean")) and "features.weight" not in found:
        found |= {"features.weight": torch.ones(size), "features.bias": torch.zeros(size)}
    return found


def _places(state: State) -> dict[int, str]:
    """Number of each unit of an IR network -> its place in an IResNet: stages begin where channels become more."""
    units = {int(match[1]) for key in state if (match := re.match(r"body\.(\d{1,6})\.", key))}
    places, stage, within = dict[int, str](), 0, 0
    for number in sorted(units):
        kernel = state.get(f"body.{number}.res_layer.1.weight")
        wider = kernel is not None and kernel.dim() == 4 and kernel.shape[0] != kernel.shape[1]
        stage, within = (stage + 1, 0) if wider or not places else (stage, within + 1)
        places[number] = f"layer{stage}.{within}"
    return places


def _idle_norm(name: str, size: int) -> dict[str, Tensor]:
    """A BatchNorm that changes nothing: its variance and the `eps` that is added to it make 1."""
    mean, ones = torch.zeros(size), torch.ones(size)
    return {
        f"{name}.weight": ones,
        f"{name}.bias": mean,
        f"{name}.running_mean": mean,
        f"{name}.running_var": ones - 1e-5,
    }


def _length(state: State, key: str) -> int:
    return len(state[key]) if key in state and state[key].dim() else 0


def _ir(state: State, image_size: tuple[int, int] | None) -> dict[str, Any]:
    if any(".fc1." in key for key in state):
        raise Unsupported(
            "its units weigh channels (squeeze and excitation, IR-SE), which is not built here: give its export to "
            "ONNX, or the code that makes it"
        )
    if any(re.search(r"\.res_layer\.[678]\.", key) for key in state):
        raise Unsupported(
            "its units have three convolutions (AdaFace's IR-152 and IR-200), which is not built here: give its export "
            "to ONNX, or the code that makes it"
        )
    return _iresnet(state, image_size)


_STAGES = tuple(f"layer{i}.0.conv1.weight" for i in (1, 2, 3, 4))

LAYOUTS = (
    Layout(
        title="InsightFace's mobilefacenet",
        typical=(
            *("layers.0.layers.0.weight", "layers.2.layers.0.layers.0.weight", "layers.4.layers.0.layers.0.weight"),
            *("conv_sep.layers.0.weight", "features.layers.0.layers.0.weight", "features.layers.2.weight"),
        ),
        fields=_mobilefacenet,
    ),
    Layout(
        title="InsightFace's iresnet",
        typical=(
            *("conv1.weight", "bn1.weight", "prelu.weight", "layer1.0.bn1.weight", *_STAGES),
            *("bn2.weight", "fc.weight", "features.weight"),
        ),
        fields=_iresnet,
    ),
    Layout(
        title="MobileFaceNet_Pytorch's",
        typical=(
            *("conv1.conv.weight", "dw_conv1.conv.weight", "blocks.0.conv.0.weight"),
            *("conv2.conv.weight", "linear7.conv.weight", "linear1.conv.weight"),
        ),
        fields=_mobilefacenet_pytorch,
        converted=lambda state: dict(_renamed(*item) for item in state.items()),
    ),
    Layout(
        title="the IR networks of AdaFace and face.evoLVe",
        typical=(
            *("input_layer.0.weight", "input_layer.1.weight", "input_layer.2.weight", "body.0.res_layer.1.weight"),
            *("output_layer.0.weight", "output_layer.3.weight"),
        ),
        fields=_ir,
        converted=_from_ir,
        note="the pixels of AdaFace's own checkpoints are BGR, those of CVLface and face.evoLVe RGB, and a file does "
        "not say which; probing tells, and --channel-order states it",
    ),
)

OTHERS = {
    "conv2d_1a.conv.weight": "facenet-pytorch's InceptionResnetV1",
    "patch_embed.proj.weight": "a vision transformer",
}
"""A key that tells a network that is not built here -> what it is."""
