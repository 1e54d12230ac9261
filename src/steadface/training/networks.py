"""The networks that runs start from, train and write: our own backbones, and those that other people made.

A run reads and writes all of them here, and knows them as modules with an `image_size` and an `embedding_size`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from steadface.backbones import Backbone, load_backbone, read_metadata, save_backbone
from steadface.backbones.frozen import fold_norms, frozen, frozen_where_alike
from steadface.backbones.soundness import weights_digest
from steadface.backbones.weights import MODULE, find_weights
from steadface.errors import Unsupported
from steadface.recognizers import OpenedRecognizer, open_recognizer
from steadface.recognizers.adapters import Adapted, ReversedChannels
from steadface.recognizers.foreign import Foreign
from steadface.recognizers.modules import ModuleNetwork, needs_code, save_module

Network = Backbone | Foreign
ENDINGS = (".safetensors", ".onnx")


def trained_form(opened: OpenedRecognizer) -> Network:
    """An opened recogniser as a network whose weights can be trained and written back.

    Weights made for BGR become those of the same network for RGB. Raises Unsupported, which says why, for any other.
    """
    network = opened.network
    if isinstance(network, Backbone):
        return network
    if isinstance(network, ReversedChannels):
        return network.for_rgb()
    if isinstance(network, Adapted) and (opened.path or "").endswith(".onnx"):
        from steadface.recognizers.onnx.trained import OnnxNetwork  # onnx, which most runs do without

        return OnnxNetwork.of(opened)
    if isinstance(network, Adapted):
        return ModuleNetwork.of(opened)
    raise Unsupported(
        f"{opened.name} has no weights that could be trained: give weights, an ONNX file that converts to torch, or a "
        "torch module"
    )


def load_network(path: Path, code: str | None = None) -> Network:
    """The network of a file of weights, an ONNX file or a run folder, on the CPU and in evaluation mode.

    `code` is the `module:function` that the weights of somebody's module are for; no file says which, and none is run
    because of a file.
    """
    file = find_weights(path)
    if file.suffix == ".onnx":
        return trained_form(open_recognizer(file))
    if MODULE not in read_metadata(file):
        return load_backbone(file)
    if code is None:
        raise needs_code(file)
    return trained_form(open_recognizer(f"{code}@{file}"))


def save_network(path: Path, network: Network, facts: Mapping[str, Any]) -> None:
    """Writes the network, with `facts` (JSON values) beside its weights; atomically.

    Raises SteadfaceError where the disk refuses, and for an ONNX file with which onnxruntime does not agree.
    """
    if isinstance(network, Backbone):
        save_backbone(path, network, facts)
        return
    if isinstance(network, ModuleNetwork):
        save_module(path, network, facts)
        return
    from steadface.recognizers.onnx.trained import OnnxNetwork, save_onnx

    assert isinstance(network, OnnxNetwork)
    save_onnx(path, network, facts)


def read_facts(path: Path) -> dict[str, Any]:
    """What `save_network`, or a checkpoint, put beside the weights of a file or run folder."""
    file = find_weights(path)
    if file.suffix != ".onnx":
        return read_metadata(file)
    from steadface.recognizers.onnx.read import facts_in

    return facts_in(file)


def content_of(network: Network) -> str:
    """The digest of its weights, and of its graph where that is its own."""
    return weights_digest(network) if isinstance(network, Backbone) else network.content


def prepared(network: Network, *, corner: float | None, folds: bool) -> Network:
    """The network, which may be changed, with corners rounded and BatchNorms folded, as it is trained on.

    `corner` is the half-width; of other people's networks relative to the scale of each activation.
    """
    if isinstance(network, Backbone):
        if corner is not None:
            network.round_corners(corner)
        if folds:
            fold_norms(network)
        return network
    return network.prepared(corner=corner, folds=folds)


def judged(network: Network) -> nn.Module:
    """A copy for embedding and crafting alone, faster where it is known how; see `frozen`."""
    return frozen(network) if isinstance(network, Backbone) else frozen_where_alike(network)


def file_for(folder: Path, stem: str, network: Network) -> Path:
    """Where a run keeps such a network under that name."""
    return folder / f"{stem}{ENDINGS[0] if isinstance(network, Backbone) else network.ending}"


def kept_file(folder: Path, stem: str) -> Path | None:
    """The file of that name that a run has kept, of whichever kind."""
    return next((file for ending in ENDINGS if (file := folder / f"{stem}{ending}").exists()), None)
