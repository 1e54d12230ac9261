"""What we note in an ONNX file that we write: how its pixels are taken, which output, and where it comes from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from steadface.errors import InvalidInput
from steadface.recognizers.convention import ChannelOrder, Convention, Known
from steadface.recognizers.onnx.read import OnnxFile, read_properties
from steadface.records import Record, Word, parsed

NOTED = "steadface_network"
"""The entry of the metadata."""


class _Pixels(Record):
    image_size: tuple[int, int]
    pixel_range: Word
    channel_order: ChannelOrder


class _Written(Record):
    pixels: _Pixels
    output: Word
    deviations: Mapping[str, Annotated[float, Field(ge=0)]] = {}


@dataclass(frozen=True, kw_only=True)
class Noted:
    """`deviations` are those of what activations with a corner are given, on faces, by the name of that value."""

    convention: Convention | None = None
    output: str | None = None
    deviations: Mapping[str, float] = field(default_factory=dict)

    def knowing(self, convention: Convention, output: str) -> "Noted":
        return replace(self, convention=convention, output=output)

    @classmethod
    def in_file(cls, file: OnnxFile) -> "Noted | None":
        """What is noted in a file; None where it is not one of ours. Raises InvalidInput for what cannot be."""
        text = next((one.value for one in file.model.metadata_props if one.key == NOTED), None)
        if text is None:
            return None
        try:
            found = parsed(_Written, text)
            convention = Convention(
                size=found.pixels.image_size,
                pixel_range=found.pixels.pixel_range,
                channel_order=found.pixels.channel_order,
                known=Known(size="file", pixel_range="file", channel_order="file"),
            )
        except InvalidInput as error:
            raise InvalidInput(f"{file.path}: its entry {NOTED} is not one that we wrote ({error})") from error
        return cls(convention=convention, output=found.output, deviations=found.deviations)

    def to_json(self) -> dict[str, Any]:
        assert self.convention is not None
        height, width = self.convention.size
        return {
            "pixels": {
                "image_size": [height, width],
                "pixel_range": self.convention.pixel_range,
                "channel_order": self.convention.channel_order,
            },
            "output": self.output,
            "deviations": dict(self.deviations),
        }


def facts_in(path: Path) -> dict[str, Any]:
    """What was noted of where the file comes from; empty for a file that we did not write."""
    try:
        noted = json.loads(read_properties(path).get(NOTED, "{}"))
        return dict(noted.get("facts", {}))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise InvalidInput(
            f"{path}: its entry {NOTED} cannot be read ({error}); put the file back as it was"
        ) from error
