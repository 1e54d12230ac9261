"""Reading and writing backbones: our own files, and the state dicts that people bring.

Our own files are safetensors whose metadata entry `steadface` is a JSON object holding the architecture. Everything
else is a state dict, whatever it is wrapped in, whose architecture is read off its shapes. Nothing is ever unpickled
beyond tensors.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.numpy import save as serialise_arrays
from safetensors.torch import save as serialise
from torch import Tensor

from steadface.backbones.architecture import Architecture, with_storage
from steadface.backbones.base import Backbone
from steadface.backbones.filekinds import SAFETENSORS, file_kind, first_few, shown
from steadface.backbones.parts import Part, nothing_fits, parts_of, some, unwrapped
from steadface.backbones.reading import METADATA_KEY, PREFIX, read_file, read_safetensors
from steadface.backbones.soundness import is_constant
from steadface.errors import InvalidInput, NotFound, SteadfaceError
from steadface.files import write_atomically
from steadface.records import first_fault

MODELS = ("model.safetensors", "model.onnx")
"""What the model of a run is called: of our own networks, and where the run began with an ONNX file."""

MODULE = "module"
"""The entry beside the weights of a module of somebody else's: what is known of it but its code."""

_STEP = re.compile(r"step-(\d+)\.safetensors")
_ENDINGS = {".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".onnx"}


def load_backbone(
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    mean: float | None = None,
    std: float | None = None,
    part: str | None = None,
) -> Backbone:
    """The backbone stored at `path`, on the CPU in float32 and evaluation mode; its `notes` say what was left out.

    `path` is a run folder (its `model.safetensors`, else the newest of `checkpoints/step-*.safetensors`), a file that
    `write_safetensors` or `save_backbone` wrote, or a state dict (safetensors or a torch file, read as tensors only) in
    InsightFace's MobileFaceNet or IResNet layout, MobileFaceNet_Pytorch's, or that of AdaFace's and face.evoLVe's IR
    networks. It may lie in dicts, as checkpoints nest it, beside other things, and its keys may carry any prefix;
    `part` names the one to take where several networks fit (`state_dict.ema`, say). `image_size` (height, width),
    `mean` and `std` (pixel units) override what the file says or, for a bare state dict, what cannot be read off it.

    Raises NotFound for a file that is not there, Unsupported for an unknown layout, saying what the file holds, and
    InvalidInput for a file that is unreadable or of another kind; names keys that are missing, unexpected or of another
    shape, and weights that are no numbers or make every face the same; and where several networks fit that are not the
    same one.
    """
    file = find_weights(Path(path))
    content, metadata = read_file(file)
    overrides = {"image_size": image_size, "mean": mean, "std": std}
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        if "architecture" in metadata:
            state = {key.removeprefix(PREFIX): value for key, value in unwrapped(content).items()}
            return filled(skeleton_for(metadata["architecture"], state, given), state)
        skeleton, chosen, notes = _chosen(content, given, part)
        backbone = filled(skeleton, chosen.state)
        backbone.notes = tuple(f"{file}: {note}" for note in notes)
        return backbone
    except SteadfaceError as error:
        raise type(error)(f"{file}: {error}") from error


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
    plain, seen = dict[str, Tensor](), set[int]()
    for key, value in tensors.items():
        own = value.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        # Tied weights lie in one place, which the format refuses.
        plain[key] = own.clone() if place in seen else own
        seen.add(place)
    write_atomically(Path(path), _serialised(plain, {METADATA_KEY: json.dumps(metadata, sort_keys=True)}))


def _serialised(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The same bytes either way: arrays take a fifth of the time, which is most of it where tensors are small."""
    try:
        arrays = {key: value.numpy() for key, value in tensors.items()}
    except TypeError:  # numpy has no bfloat16
        return serialise(tensors, metadata)
    return serialise_arrays(arrays, metadata)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save_backbone` or `write_safetensors` put beside the weights; empty for a file of another origin."""
    file = find_weights(Path(path))
    return read_safetensors(file, keys=())[1] if file_kind(file) == SAFETENSORS else {}


def holds_model(file: Path) -> bool:
    """Whether `file` is a model that we wrote, and neither a checkpoint nor somebody's state dict."""
    if not {"architecture", MODULE} & read_metadata(file).keys():
        return False
    with safe_open(file, framework="pt") as opened:
        return not any(name.startswith(PREFIX) for name in opened.keys())  # noqa: SIM118, it is not a mapping


def add_metadata(file: Path, metadata: Mapping[str, Any]) -> None:
    """Write entries (JSON values) beside the weights of `file`, a model that `save_backbone` wrote; atomically.

    Raises SteadfaceError where the file cannot be read or written.
    """
    state, before = read_safetensors(file)
    write_safetensors(file, state, {**before, **metadata})


def find_weights(path: Path) -> Path:
    """The file that `path` stands for: itself, or a run folder's model or newest checkpoint."""
    if path.is_file():
        return path
    if not path.exists():
        raise NotFound(f"{path} does not exist; give a run folder, a checkpoint or a file of weights")
    for name in MODELS:
        if (path / name).is_file():
            return path / name
    steps = [(int(match[1]), file) for file in path.glob("checkpoints/*") if (match := _STEP.fullmatch(file.name))]
    if not steps:
        raise NotFound(
            f"{path} is not a run folder: it has neither model.safetensors nor checkpoints/step-*.safetensors"
            f"{_folder_hint(path)}"
        )
    return max(steps)[1]


def _folder_hint(path: Path) -> str:
    """What else a folder is that was given for a file of weights."""
    if (path / "data.pkl").is_file():
        return "; it is a torch file that was unpacked: put it together with zip -0 -r, or fetch it again"
    if (path / "saved_model.pb").is_file():
        return "; it is a TensorFlow SavedModel: convert it to ONNX"
    files = sorted(shown(file.name) for file in path.glob("*") if file.suffix in _ENDINGS)
    return f"; give a file in it: {', '.join(files[:3])}{', ...' if len(files) > 3 else ''}" if files else ""


def _chosen(content: Any, given: Mapping[str, Any], part: str | None) -> tuple[Backbone, Part, list[str]]:
    """The skeleton of the one network in a file's content that fits, the network, and what is to be said of it."""
    networks = parts_of(content)
    if not networks:
        raise nothing_fits(content)
    names = ", ".join(_place(one) for one in networks)
    networks = [one for one in networks if part in (None, one.name)]
    if not networks:
        raise NotFound(f"holds no network named {part!r}, but {names}")
    fitting, misfits = [], []
    for one in networks:
        try:
            fitting.append((skeleton_for(one.layout.fields(one.state, given.get("image_size")), one.state, given), one))
        except SteadfaceError as error:
            misfits.append(error)
    if not fitting:
        raise misfits[0]
    skeleton, chosen = fitting[0]
    different = [one for _, one in fitting[1:] if not one.same(chosen)]
    if different:
        fit = ", ".join(_place(one) for one in (chosen, *different))
        raise InvalidInput(
            f"holds {1 + len(different)} networks that fit ({fit}), and which is meant cannot be told. Save the one "
            "that you want by itself: torch.save(steadface.load_backbone(FILE, "
            f'part="{shown(different[-1].name)}").state_dict(), NEW)'
        )
    notes = [f"taken is {_place(chosen)}, which fits, of {names}"] if misfits else []
    if chosen.others:
        notes.append(f"left out is what is no part of the network: {some(chosen.others)}")
    if chosen.layout.note:
        notes.append(chosen.layout.note)
    return skeleton, chosen, notes


def _place(part: Part) -> str:
    return shown(part.name) or "the outermost"


_COUNTER = "num_batches_tracked"


def skeleton_for(fields: Any, state: Mapping[str, Tensor], given: Mapping[str, Any]) -> Backbone:
    """The network of that architecture without storage, which `state` fits."""
    try:
        architecture = Architecture.model_validate({**fields, **given})
    except (ValidationError, TypeError) as error:
        because = first_fault(error) if isinstance(error, ValidationError) else "it is not an object"
        raise InvalidInput(f"the architecture is not one that can be built: {shown(because)}") from error
    blocks = sum(architecture.options.get("blocks", ()))
    if blocks > len(state):  # or building them would take as long as the description likes
        raise InvalidInput(f"describes a network of {blocks} blocks, and has {len(state)} tensors; it is damaged")
    skeleton = architecture.skeleton()
    _check_keys(state, skeleton)
    return skeleton


def filled(skeleton: Backbone, state: Mapping[str, Tensor]) -> Backbone:
    """The network with these weights, in evaluation mode."""
    _check_values(state)
    # Counters of steps that inference never reads and that converters tend to drop.
    counters = {key: torch.tensor(0) for key in skeleton.state_dict() if key.endswith(_COUNTER)}
    backbone = with_storage(skeleton, {**counters, **state}).eval()
    _check_alive(backbone)
    return backbone


def _check_keys(state: Mapping[str, Tensor], backbone: Backbone) -> None:
    """Raise InvalidInput naming what does not fit: missing and unexpected keys, other shapes; the first few each."""
    expected = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    missing = [key for key in expected if key not in state and not key.endswith(_COUNTER)]
    unexpected = [shown(key) for key in state if key not in expected]
    shapes = [
        f"{key} {tuple(value.shape)} instead of {expected[key]}"
        for key, value in state.items()
        if key in expected and tuple(value.shape) != expected[key]
    ]
    misfits = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    parts = [f"{len(names)} {kind}: {first_few(names)}" for kind, names in misfits.items() if names]
    if parts:
        architecture = backbone.architecture
        options = "".join(f"{key} {value}, " for key, value in (architecture.model_extra or {}).items())
        raise InvalidInput(
            f"does not fit {architecture.name} ({options}{architecture.embedding_size}-d): {'; '.join(parts)}"
        )


def _check_values(state: Mapping[str, Tensor]) -> None:
    """Raise InvalidInput naming the first tensor that holds no weights: other types, NaN, variances below 0."""
    for key, value in state.items():
        if key.endswith(_COUNTER):
            continue
        if not value.is_floating_point() or value.is_meta:
            kind = "sparse, quantised or without its numbers" if value.is_meta else "whole or complex numbers"
            raise InvalidInput(
                f"{shown(key)} is {value.dtype} ({kind}); weights must be plain floating-point tensors: save the "
                "network as it was before it was quantised or made sparse"
            )
        if not value.float().isfinite().all():
            raise InvalidInput(f"{key} holds NaN or infinity; the weights are damaged, take an earlier checkpoint")
        if key.endswith("running_var") and (value < 0).any():
            raise InvalidInput(f"{key} holds variances below 0; the weights are damaged, take an earlier checkpoint")


def _check_alive(backbone: Backbone) -> None:
    """Raise InvalidInput naming weights that are all zero where they make every face the same embedding."""
    dead = [key for key, value in backbone.state_dict().items() if key.endswith("weight") and not value.any()]
    if dead and is_constant(backbone):
        raise InvalidInput(
            f"{len(dead)} weights are all zero ({first_few(dead)}), so that "
            "every face gets the same embedding; the file is damaged or was never trained"
        )
