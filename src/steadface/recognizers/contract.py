"""What a model file promises where it is deployed: weights, input, dimension, and the thresholds it was calibrated to.

A contract travels inside the file where the format has room for it: in the metadata of our own models and of ONNX files
that we exported. Any other model (an InsightFace state dict, somebody's ONNX file) is left untouched and has it beside
it, as `FILE.contract.json`; `path/to/file.py:function` as `file.py.function.contract.json`, and `module:function` in a
file of the user's choice. A contract names the weights it was made for, or the source code where there are none, and is
refused for others. What a function calls, a service perhaps, no contract can see.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from steadface.backbones import read_metadata
from steadface.backbones.reading import METADATA_KEY
from steadface.backbones.weights import add_metadata, find_weights, holds_model
from steadface.errors import SteadfaceError, Unsupported, unreadable
from steadface.evaluation.thresholds import Thresholds
from steadface.files import write_atomically
from steadface.gallery.storage import ModelIdentity
from steadface.recognizers import Convention, Known, OpenedRecognizer
from steadface.recognizers.convention import Origin

if TYPE_CHECKING:
    import onnx

ENTRY = "contract"
BESIDE = ".contract.json"


@dataclass(frozen=True, kw_only=True)
class Contract:
    """`weights` is the SHA-256 of the file's weights; `space` names the space of its embeddings: the same for a model
    and its exports, whose vectors can be compared. `mirror` says whether image and mirror image are summed, in the
    calibration as in use; `output` which of several outputs is taken. `notes` are reasons for care that calibration
    found. Where a contract does not say how its convention came to be known, it is known by default.
    """

    name: str
    weights: str
    space: str
    convention: Convention
    dimension: int
    mirror: bool
    thresholds: Thresholds | None = None
    output: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> ModelIdentity:
        """What templates made under this contract can be compared with."""
        return ModelIdentity(fingerprint=self.space, dimension=self.dimension, mirror=self.mirror, name=self.name)

    def to_json(self) -> dict[str, Any]:
        height, width = self.convention.size
        return {
            "name": self.name,
            "weights": self.weights,
            "space": self.space,
            "image_size": [height, width],
            "pixel_range": self.convention.pixel_range,
            "channel_order": self.convention.channel_order,
            "known": asdict(self.convention.known),
            "output": self.output,
            "dimension": self.dimension,
            "mirror": self.mirror,
            "thresholds": None if self.thresholds is None else self.thresholds.to_json(),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Contract":
        """Raises KeyError, TypeError or ValueError for what `to_json` did not make."""
        height, width = data["image_size"]
        thresholds = data["thresholds"]
        return cls(
            name=str(data["name"]),
            weights=str(data["weights"]),
            space=str(data["space"]),
            convention=Convention(
                size=(int(height), int(width)),
                pixel_range=str(data["pixel_range"]),
                channel_order=data["channel_order"],
                known=_known(data.get("known", {})),
            ),
            dimension=int(data["dimension"]),
            mirror=bool(data["mirror"]),
            thresholds=None if thresholds is None else Thresholds.from_json(thresholds),
            output=None if data.get("output") is None else str(data["output"]),
            notes=tuple(str(note) for note in data.get("notes", ())),
        )


def contract_of(opened: OpenedRecognizer, *, mirror: bool, thresholds: Thresholds | None = None) -> Contract:
    """The contract of a recogniser as it was opened."""
    assert opened.content is not None
    assert opened.embedding_size is not None
    return Contract(
        name=opened.name,
        weights=opened.content,
        space=opened.fingerprint,
        convention=opened.convention,
        dimension=opened.embedding_size,
        mirror=mirror,
        thresholds=thresholds,
        output=opened.output,
    )


def read_contract(model: Path | str, file: Path | str | None = None) -> Contract | None:
    """The contract in `model` (a run folder, a file or `module:function`), or else beside it, or in `file` where one is
    given; None where there is none.

    Raises SteadfaceError for a contract that cannot be read.
    """
    where, inside = _found(model) if file is None else (Path(file), None)
    if inside is None and file is None and (where is None or not where.is_file()):
        return None
    assert where is not None
    try:
        return Contract.from_json(inside if inside is not None else json.loads(where.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError, AttributeError, OSError, SteadfaceError) as error:
        raise unreadable(
            error,
            f"{where} holds a contract that cannot be read ({type(error).__name__}: {error}); make it anew with "
            f"`steadface calibrate {model} --images FACES`",
        ) from error


def store_contract(model: Path | str, contract: Contract, file: Path | None = None) -> Path:
    """Writes the contract into `model`, or beside it where it is not ours to write into, or into `file` where one is
    given; returns where it now lies.
    """
    place = contract_place(model, file)
    if file is not None or place.suffix == ".json":
        write_atomically(place, json.dumps(contract.to_json(), indent=1).encode())
    elif place.suffix == ".onnx":
        import onnx

        write_atomically(place, with_contract(onnx.load(place), contract).SerializeToString())
    else:
        add_metadata(place, {ENTRY: contract.to_json()})
    return place


def contract_place(model: Path | str, file: Path | None = None) -> Path:
    """Where the contract of a model is written: `file`, or the model's own, or one beside it.

    Raises SteadfaceError for `module:function`, which has no place of its own.
    """
    if file is not None:
        return file
    if is_named(model):
        named = _beside_code(str(model))
        if named is None:
            raise Unsupported(
                f"{model} is not a file that a contract could lie beside; say where with --out FILE{BESIDE}, and give "
                "other commands that file with --contract"
            )
        return named
    weights = find_weights(Path(model))
    ours = _exported(weights) is not None if weights.suffix == ".onnx" else holds_model(weights)
    return weights if ours else beside(weights)


def with_contract(graph: "onnx.ModelProto", contract: Contract) -> "onnx.ModelProto":
    """`graph` with the contract among its metadata, in place of one that it had."""
    import onnx

    others = [one for one in graph.metadata_props if one.key != METADATA_KEY]
    kept = {one.key: one.value for one in others}
    onnx.helper.set_model_props(graph, {**kept, METADATA_KEY: json.dumps(contract.to_json())})
    return graph


def beside(file: Path) -> Path:
    """Where the contract of a file lies that cannot hold it."""
    return file.with_name(file.name + BESIDE)


def _known(data: Mapping[str, Any]) -> Known:
    """Raises ValueError for what is not a way of knowing."""
    names = ("size", "pixel_range", "channel_order")
    origins = {name: data.get(name, "default") for name in names}
    if not set(origins.values()) <= set(get_args(Origin)):
        raise ValueError(f"known {origins}")
    return Known(**origins)


def is_named(model: Path | str) -> bool:
    """Whether it is `module:function`, or a function in a file."""
    return not Path(model).exists() and ":" in str(model)


def _beside_code(spec: str) -> Path | None:
    place, _, name = spec.rpartition(":")
    return Path(place).with_name(f"{Path(place).name}.{name}{BESIDE}") if place.endswith(".py") else None


def _found(model: Path | str) -> tuple[Path | None, Any]:
    """Where a contract would lie, and what lies there if that is the model itself."""
    if is_named(model):
        return _beside_code(str(model)), None
    file = find_weights(Path(model))
    inside = _inside(file)
    return (beside(file), None) if inside is None else (file, inside)


def _inside(file: Path) -> Any:
    if file.suffix == ".onnx":
        return json.loads(_exported(file) or "null")
    return read_metadata(file).get(ENTRY)


def _exported(file: Path) -> str | None:
    """What our export left in an ONNX file; None for other people's files."""
    from steadface.recognizers.onnx.read import read_properties  # imports onnx, and most models are no ONNX files

    return read_properties(file).get(METADATA_KEY)
