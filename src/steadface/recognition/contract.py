"""What a model file promises to whoever deploys it: weights, input, dimension, and the thresholds it was calibrated to.

A contract travels inside the file where the format has room for it: in the metadata of our own models and of ONNX files
that we exported. Any other model (an InsightFace state dict, somebody's ONNX file) is left untouched and has it beside
it, as `FILE.contract.json`. A contract names the weights it was made for and is refused for others.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from steadface.backbones import read_metadata
from steadface.backbones.filekinds import refuse_other_than_onnx
from steadface.backbones.reading import METADATA_KEY
from steadface.backbones.weights import add_metadata, find_weights, holds_model
from steadface.errors import SteadfaceError
from steadface.evaluation.thresholds import Thresholds
from steadface.files import write_atomically
from steadface.gallery.identity import ModelIdentity
from steadface.models import Convention, OpenedRecogniser, open_recogniser

ENTRY = "contract"
BESIDE = ".contract.json"


@dataclass(frozen=True, kw_only=True)
class Contract:
    """`weights` is the SHA-256 of the file's weights; `space` names the space of its embeddings: the same for a model
    and its exports, whose vectors can be compared. `mirror` says whether image and mirror image are summed, in the
    calibration as in use.
    """

    name: str
    weights: str
    space: str
    convention: Convention
    dimension: int
    mirror: bool
    thresholds: Thresholds | None = None

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
            "dimension": self.dimension,
            "mirror": self.mirror,
            "thresholds": None if self.thresholds is None else self.thresholds.to_json(),
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
            ),
            dimension=int(data["dimension"]),
            mirror=bool(data["mirror"]),
            thresholds=None if thresholds is None else Thresholds.from_json(thresholds),
        )


def contract_of(opened: OpenedRecogniser, *, mirror: bool, thresholds: Thresholds | None = None) -> Contract:
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
    )


def read_contract(model: Path) -> Contract | None:
    """The contract in `model` (a run folder or a file), or else beside it; None where there is none.

    Raises SteadfaceError for a contract that cannot be read.
    """
    file = find_weights(model)
    inside = _inside(file)
    where = file if inside is not None else beside(file)
    if inside is None and not where.is_file():
        return None
    try:
        return Contract.from_json(inside if inside is not None else json.loads(where.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError, OSError, SteadfaceError) as error:
        raise SteadfaceError(
            f"{where} holds a contract that cannot be read ({type(error).__name__}: {error}); make it anew with "
            f"`steadface calibrate {model} --images FACES`"
        ) from error


def opened_under_contract(model: Path | str, *, mirror: bool = False) -> tuple[OpenedRecogniser, Contract]:
    """A recogniser as its contract says that it takes its pixels; without one, with a contract that has no thresholds.

    Raises SteadfaceError for what cannot be opened, and for a contract made for other weights.
    """
    contract = read_contract(Path(model)) if Path(model).exists() else None
    if contract is None:
        opened = open_recogniser(model)
        return opened, contract_of(opened, mirror=mirror)
    known = contract.convention
    opened = open_recogniser(
        model, image_size=known.size, pixel_range=known.pixel_range, channel_order=known.channel_order
    )
    if contract.weights != opened.content:
        raise SteadfaceError(
            f"the contract of {model} was made for other weights ({contract.name}); make it anew with "
            f"`steadface calibrate {model} --images FACES`"
        )
    return opened, contract


def store_contract(model: Path, contract: Contract) -> Path:
    """Writes the contract into `model`, or beside it where it is not ours to write into; returns where it now lies."""
    file = find_weights(model)
    if file.suffix == ".onnx" and _exported(file):
        write_atomically(file, with_contract(onnx.load(file), contract).SerializeToString())
        return file
    if holds_model(file):
        add_metadata(file, {ENTRY: contract.to_json()})
        return file
    write_atomically(beside(file), json.dumps(contract.to_json(), indent=1).encode())
    return beside(file)


def with_contract(graph: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """`graph` with the contract among its metadata, in place of one that it had."""
    others = [one for one in graph.metadata_props if one.key != METADATA_KEY]
    kept = {one.key: one.value for one in others}
    onnx.helper.set_model_props(graph, {**kept, METADATA_KEY: json.dumps(contract.to_json())})
    return graph


def beside(file: Path) -> Path:
    """Where the contract of a file lies that cannot hold it."""
    return file.with_name(file.name + BESIDE)


def _inside(file: Path) -> Any:
    if file.suffix == ".onnx":
        return json.loads(_exported(file) or "null")
    return read_metadata(file).get(ENTRY)


def _exported(file: Path) -> str | None:
    """What our export left in an ONNX file; None for other people's files."""
    refuse_other_than_onnx(file)
    try:
        graph = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's and onnx's own, which share no base class
        raise SteadfaceError(f"{file} is not a readable ONNX file ({error}); it may be truncated") from error
    return next((one.value for one in graph.metadata_props if one.key == METADATA_KEY), None)
