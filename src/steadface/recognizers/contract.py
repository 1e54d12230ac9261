"""What a model file promises where it is deployed: weights, input, dimension, and the thresholds it was calibrated to.

A contract travels inside the file where the format has room for it: in the metadata of our own models and of ONNX files
that we exported. Any other model (an InsightFace state dict, somebody's ONNX file) is left untouched and has it beside
it, as `FILE.contract.json`; `path/to/file.py:function` as `file.py.function.contract.json`, and `module:function` in a
file of the user's choice. A contract names the weights it was made for, or the source code where there are none, and is
refused for others. What a function calls, a service perhaps, no contract can see. Its seal (`recognizers/seal.py`)
binds weights, pixels, mirror and thresholds to each other.
"""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from steadface.backbones import read_metadata
from steadface.backbones.reading import METADATA_KEY
from steadface.backbones.weights import add_metadata, find_weights, holds_model
from steadface.errors import SteadfaceError, Unsupported, short, unreadable
from steadface.evaluation.thresholds import Thresholds
from steadface.files import check_replaced, read_file, write_atomically
from steadface.gallery.sealing.keys import Key
from steadface.gallery.storage import DIMENSIONS, ModelIdentity, check_model
from steadface.recognizers import ChannelOrder, Convention, Known, OpenedRecognizer
from steadface.recognizers.callables import parts_of_name
from steadface.recognizers.convention import Origin
from steadface.recognizers.seal import Seal, check_signature, sealed, unsealed
from steadface.records import SMALL, Record, Word, parsed

if TYPE_CHECKING:
    import onnx

ENTRY = "contract"
BESIDE = ".contract.json"

SIGNED = "signed:"
"""Begins the fingerprint of the model of galleries that take its contract signed with their key alone."""


def _unsigned(space: str) -> str:
    if space.startswith(SIGNED):
        raise ValueError("no space of embeddings is called so")
    return space


class _Known(Record):
    size: Origin = "default"
    pixel_range: Origin = "default"
    channel_order: Origin = "default"


class _Written(Record):
    """The entries of a contract as they stand in its file."""

    name: Word
    weights: Word
    space: Annotated[Word, AfterValidator(_unsigned)]
    image_size: tuple[int, int]  # in bounds where it becomes a part of a `Convention`
    pixel_range: Word
    channel_order: ChannelOrder
    known: _Known = _Known()
    output: Word | None = None
    dimension: Annotated[int, Field(ge=2, le=DIMENSIONS)]
    mirror: bool
    thresholds: Thresholds | None
    notes: Annotated[tuple[str, ...], Field(max_length=100)] = ()


@dataclass(frozen=True, kw_only=True)
class Contract:
    """`weights` is the SHA-256 of the file's weights; `space` names the space of its embeddings: the same for a model
    and its exports, whose vectors can be compared. `mirror` says whether image and mirror image are summed, in the
    calibration as in use; `output` which of several outputs is taken. `notes` are reasons for care that calibration
    found. Where a contract does not say how its convention came to be known, it is known by default. `seal` is that of
    the file it was read from, None for one that was not read, or written by an earlier version.
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
    seal: Seal | None = field(default=None, compare=False, repr=False)

    @property
    def identity(self) -> ModelIdentity:
        """What templates made under this contract can be compared with."""
        return ModelIdentity(fingerprint=self.space, dimension=self.dimension, mirror=self.mirror, name=self.name)

    def identity_under(self, key: Key | None) -> ModelIdentity:
        """That of a new gallery with this key: one that takes this contract signed alone, where it is signed with it.

        Raises Conflict for a signature that is not right.
        """
        if key is None or not check_signature("contract", self.seal, key, whose=self.name, expected=False):
            return self.identity
        return replace(self.identity, fingerprint=SIGNED + self.space)

    def check_gallery(self, model: ModelIdentity, key: Key, gallery: str) -> bool:
        """Whether the gallery of that name, with templates of `model`, takes contracts and guards signed with its `key`
        alone.

        Raises Conflict for a gallery of another model, and for this contract where it is not signed as it must be.
        """
        signed = model.fingerprint.startswith(SIGNED)
        own = replace(self.identity, fingerprint=SIGNED + self.space) if signed else self.identity
        check_model(model, own, gallery)
        check_signature("contract", self.seal, key, whose=self.name, expected=signed)
        return signed

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

    def written(self, key: Key | None = None) -> dict[str, Any]:
        """What stands in its file: `to_json` under a seal, signed where a key is given."""
        return sealed("contract", self.to_json(), key, before=self.seal)

    @classmethod
    def from_json(cls, data: Any) -> "Contract":
        """Raises SteadfaceError, which names the place, for what `written` did not make, or was changed since."""
        plain, seal = unsealed(data)
        found = parsed(_Written, plain)
        return cls(
            name=found.name,
            weights=found.weights,
            space=found.space,
            convention=Convention(
                size=found.image_size,
                pixel_range=found.pixel_range,
                channel_order=found.channel_order,
                known=Known(**found.known.model_dump()),
            ),
            dimension=found.dimension,
            mirror=found.mirror,
            thresholds=found.thresholds,
            output=found.output,
            notes=found.notes,
            seal=seal,
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
    if inside is None and file is None and (where is None or not os.path.lexists(where)):
        return None
    assert where is not None
    try:
        if inside is None:
            inside = read_file(where, most=SMALL)
        return Contract.from_json(json.loads(inside) if isinstance(inside, bytes | str) else inside)
    except (ValueError, OSError, RecursionError, SteadfaceError) as error:
        raise unreadable(
            error,
            f"{where} holds a contract that cannot be read ({short(str(error), 400)}); make it anew with `steadface "
            f"calibrate {model} --images FACES`",
        ) from error


def store_contract(model: Path | str, contract: Contract, file: Path | None = None, *, key: Key | None = None) -> Path:
    """Writes the contract into `model`, or beside it where it is not ours to write into, or into `file` where one is
    given, signed with `key`; returns where it now lies.
    """
    place = contract_place(model, file)
    if file is not None or place.suffix == ".json":
        write_atomically(place, json.dumps(contract.written(key), indent=1).encode())
    elif place.suffix == ".onnx":
        import onnx

        write_atomically(place, with_contract(onnx.load(place), contract, key).SerializeToString())
    else:
        add_metadata(place, {ENTRY: contract.written(key)})
    return place


def contract_place(model: Path | str, file: Path | None = None) -> Path:
    """Where the contract of a model is written: `file`, or the model's own, or one beside it.

    Raises SteadfaceError for `module:function`, which has no place of its own, and where `file` is of another kind.
    """
    if file is not None:
        check_replaced(file, b"{")
        return file
    if is_named(model):
        if (weights := parts_of_name(str(model))[1]) is not None:
            return contract_place(weights)
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


def with_contract(graph: "onnx.ModelProto", contract: Contract, key: Key | None = None) -> "onnx.ModelProto":
    """`graph` with the contract, signed with `key`, among its metadata, in place of one that it had."""
    import onnx

    others = [one for one in graph.metadata_props if one.key != METADATA_KEY]
    kept = {one.key: one.value for one in others}
    onnx.helper.set_model_props(graph, {**kept, METADATA_KEY: json.dumps(contract.written(key))})
    return graph


def beside(file: Path) -> Path:
    """Where the contract of a file lies that cannot hold it."""
    return file.with_name(file.name + BESIDE)


def is_named(model: Path | str) -> bool:
    """Whether it is `module:function`, or a function in a file."""
    return not Path(model).exists() and ":" in str(model)


def _beside_code(spec: str) -> Path | None:
    place, _, name = spec.rpartition(":")
    return Path(place).with_name(f"{Path(place).name}.{name}{BESIDE}") if place.endswith(".py") else None


def _found(model: Path | str) -> tuple[Path | None, Any]:
    """Where a contract would lie, and what lies there if that is the model itself."""
    if is_named(model):
        if (weights := parts_of_name(str(model))[1]) is not None:
            return _found(weights)
        return _beside_code(str(model)), None
    file = find_weights(Path(model))
    inside = _inside(file)
    return (beside(file), None) if inside is None else (file, inside)


def _inside(file: Path) -> Any:
    """JSON, as text in an ONNX file; None where there is none."""
    if file.suffix != ".onnx":
        return read_metadata(file).get(ENTRY)
    text = _exported(file)
    return None if text in (None, "null") else text


def _exported(file: Path) -> str | None:
    """What our export left in an ONNX file; None for other people's files."""
    from steadface.recognizers.onnx.read import read_properties  # imports onnx, and most models are no ONNX files

    return read_properties(file).get(METADATA_KEY)
