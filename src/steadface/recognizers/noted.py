"""What we note in a file of somebody else's network that we write: how its pixels are taken, and which output.

In the metadata of an ONNX file, and beside the weights of a module.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from steadface.errors import InvalidInput
from steadface.recognizers.convention import ChannelOrder, Convention, Known
from steadface.records import Record, Word, parsed


class _Pixels(Record):
    image_size: tuple[int, int]
    pixel_range: Word
    channel_order: ChannelOrder


class _Written(Record):
    pixels: _Pixels
    output: Word | None = None
    scales: Mapping[str, Annotated[float, Field(ge=0)]] = {}


@dataclass(frozen=True, kw_only=True)
class Noted:
    """`scales` say, by the name of what an activation is given, what the width of its rounded corner is relative to;
    the `output` is None where there is one.
    """

    convention: Convention
    output: str | None = None
    scales: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, entry: bytes | str | Mapping[str, Any], path: Path) -> "Noted":
        """What is noted in the file at `path`. Raises InvalidInput for what cannot be."""
        try:
            found = parsed(_Written, entry)
            convention = Convention(
                size=found.pixels.image_size,
                pixel_range=found.pixels.pixel_range,
                channel_order=found.pixels.channel_order,
                known=Known(size="file", pixel_range="file", channel_order="file"),
            )
        except InvalidInput as error:
            raise InvalidInput(f"{path}: what it says of its pixels is not what we wrote ({error})") from error
        return cls(convention=convention, output=found.output, scales=found.scales)

    def under(self, convention: Convention, output: str | None) -> "Noted":
        return replace(self, convention=convention, output=output)

    def to_json(self) -> dict[str, Any]:
        return {
            "pixels": {
                "image_size": list(self.convention.size),
                "pixel_range": self.convention.pixel_range,
                "channel_order": self.convention.channel_order,
            },
            "output": self.output,
            "scales": dict(self.scales),
        }
