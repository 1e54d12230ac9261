"""Reading and writing backbones: our own files, and the layouts of state dicts that people bring.

Our own files are safetensors whose metadata entry `steadface` is a JSON object holding the architecture. Everything
else is a bare state dict whose architecture is read off its shapes. Nothing is ever unpickled beyond tensors.
"""

import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from steadface.backbones.base import Architecture, Backbone
from steadface.backbones.layouts import infer_architecture, published_names
from steadface.errors import SteadfaceError
from steadface.files import write_atomically

METADATA_KEY = "steadface"
PREFIX = "backbone."
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.|backbone\.)+")
_STEP = re.compile(r"step-(\d+)\.safetensors")


def load_backbone(
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    mean: float | None = None,
    std: float | None = None,
) -> Backbone:
    """The backbone stored at `path`, on the CPU in float32 and evaluation mode.

    `path` is a run folder (its `model.safetensors`, else the newest of `checkpoints/step-*.safetensors`), a file that
    `write_safetensors` or `save_backbone` wrote, or a state dict (.safetensors, or .pth/.pt/.ckpt read as tensors only)
    in InsightFace's MobileFaceNet or IResNet layout or MobileFaceNet_Pytorch's. `image_size` (height, width), `mean`
    and `std` (pixel units) override what the file says or, for a bare state dict, what cannot be read off it.

    Raises SteadfaceError for a file that is missing, unreadable or of an unknown layout, and names the keys that are
    missing, unexpected or of another shape.
    """
    file = find_weights(Path(path))
    state, metadata = read_state(file)
    overrides = {"image_size": image_size, "mean": mean, "std": std}
    given = {key: value for key, value in overrides.items() if value is not None}
    architecture = _architecture(file, state, metadata, given)
    state = published_names(state)
    # The drawn weights are all replaced; a generator of its own keeps the global random state untouched.
    backbone = architecture.build(torch.Generator())
    check_keys(file, state, backbone)
    backbone.load_state_dict(state, strict=False)
    return backbone.eval()


def save_backbone(path: str | os.PathLike[str], backbone: Backbone, metadata: Mapping[str, Any]) -> None:
    """Write weights, architecture and `metadata` (JSON values) to one safetensors file, atomically.

    Raises SteadfaceError where the disk refuses; what was at `path` before is then still there.
    """
    described = {**metadata, "architecture": backbone.architecture.model_dump(mode="json")}
    write_safetensors(path, backbone.state_dict(), described)


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write `tensors`, and `metadata` as JSON under the entry `steadface`; a crash leaves the old file or the new one.

    Raises SteadfaceError where the disk refuses, for instance because it is full.
    """
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write_atomically(Path(path), serialise(plain, {METADATA_KEY: json.dumps(metadata, sort_keys=True)}))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save_backbone` or `write_safetensors` put beside the weights; empty for a file of another origin."""
    file = find_weights(Path(path))
    return read_state(file, keys=())[1] if file.suffix == ".safetensors" else {}


def holds_model(file: Path) -> bool:
    """Whether `file` is a model that `save_backbone` wrote, and neither a checkpoint nor somebody's state dict."""
    if file.suffix != ".safetensors" or "architecture" not in read_metadata(file):
        return False
    with safe_open(file, framework="pt") as opened:
        return not any(name.startswith(PREFIX) for name in opened.keys())  # noqa: SIM118, it is no mapping


def add_metadata(file: Path, metadata: Mapping[str, Any]) -> None:
    """Write entries (JSON values) beside the weights of `file`, a model that `save_backbone` wrote; atomically.

    Raises SteadfaceError where the file cannot be read or written.
    """
    state, before = _read_safetensors(file, None)
    write_safetensors(file, state, {**before, **metadata})


def find_weights(path: Path) -> Path:
    """The file that `path` stands for: itself, or a run folder's model or newest checkpoint."""
    if path.is_file():
        return path
    if not path.exists():
        raise SteadfaceError(f"{path} does not exist; give a run folder, a checkpoint or a file of weights")
    model = path / "model.safetensors"
    if model.is_file():
        return model
    steps = [(int(match[1]), file) for file in path.glob("checkpoints/*") if (match := _STEP.fullmatch(file.name))]
    if not steps:
        raise SteadfaceError(
            f"{path} is not a run folder: it has neither model.safetensors nor checkpoints/step-*.safetensors"
        )
    return max(steps)[1]


def read_state(file: Path, *, keys: Iterable[str] | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors of the backbone with bare key names, metadata of ours or {}); `keys` restricts what is read."""
    if file.suffix == ".safetensors":
        return _read_safetensors(file, keys)
    return _bare(_read_pickled(file)), {}


def _read_safetensors(file: Path, keys: Iterable[str] | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys() if keys is None else keys)
            # A checkpoint also holds the head, the optimiser and more, which need not be read.
            if any(name.startswith(PREFIX) for name in names):
                names = [name for name in names if name.startswith(PREFIX)]
            state = {name: opened.get_tensor(name) for name in names}
            metadata = json.loads((opened.metadata() or {}).get(METADATA_KEY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise SteadfaceError(f"{file} is not a readable safetensors file ({error}); it may be truncated") from error
    if not isinstance(metadata, dict):
        raise SteadfaceError(f"{file}: the metadata entry {METADATA_KEY!r} is not a JSON object")
    return _bare(state), metadata


def _read_pickled(file: Path) -> dict[str, Tensor]:
    """The tensors of a torch file; nested one level down where it also holds other things."""
    try:
        with warnings.catch_warnings():
            # Remarks on the file's pickle protocol or kind: whether it can be read is what counts.
            warnings.simplefilter("ignore")
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SteadfaceError(
            f"{file} holds more than tensors, or is no torch file, and was not read: unpickling can run code. Save the "
            "state dict alone (torch.save(model.state_dict(), ...)) or as safetensors where you trust the file"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SteadfaceError(f"{file} is not a readable torch file ({reason})") from error
    for nested in ("state_dict", "model_state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(nested), dict):
            loaded = loaded[nested]
    if not isinstance(loaded, dict) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise SteadfaceError(f"{file} holds no state dict but {type(loaded).__name__}; save model.state_dict() instead")
    return {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}


def _bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that wrappers add: DistributedDataParallel, torch.compile, and our checkpoints."""
    return {_WRAPPERS.sub("", key): value for key, value in state.items()}


def _architecture(
    file: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any], given: Mapping[str, Any]
) -> Architecture:
    try:
        if "architecture" in metadata:
            return Architecture.model_validate({**metadata["architecture"], **given})
        return Architecture.model_validate({**infer_architecture(state, given.get("image_size")), **given})
    except (ValidationError, TypeError) as error:
        raise SteadfaceError(f"{file}: the architecture is not one that can be built: {error}") from error
    except SteadfaceError as error:
        raise SteadfaceError(f"{file}: {error}") from error


def check_keys(file: Path, state: Mapping[str, Tensor], backbone: Backbone) -> None:
    """Raise SteadfaceError naming what does not fit: missing and unexpected keys, other shapes; the first few each."""
    expected = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    # A step counter that inference never reads and that converters tend to drop.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key} {tuple(value.shape)} instead of {expected[key]}"
        for key, value in state.items()
        if key in expected and tuple(value.shape) != expected[key]
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    parts = [
        f"{len(names)} {kind}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for kind, names in found.items()
        if names
    ]
    if parts:
        raise SteadfaceError(
            f"{file} does not fit {backbone.architecture.name} (blocks {backbone.architecture.blocks}, width "
            f"{backbone.architecture.width:g}, {backbone.architecture.embedding_size}-d): {'; '.join(parts)}"
        )
