"""What the commands that use a model have in common: options, the pictures they are given, JSON.

Nothing of the engine is imported before a command runs.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from steadface.cli.console import say_warning
from steadface.errors import InvalidInput
from steadface.files import plain

if TYPE_CHECKING:
    from steadface.workflows.opening import Stated

ModelOption = Annotated[
    str, typer.Option("--model", help="A run folder, a file of weights, an .onnx file or module:function.")
]
OutputOption = Annotated[
    str | None, typer.Option("--output", help="Which of several outputs of the model is the embedding.")
]
ContractOption = Annotated[
    Path | None, typer.Option("--contract", help="The model's contract, where `calibrate --out` put it elsewhere.")
]
SizeOption = Annotated[str | None, typer.Option("--size", help="Height x width that MODEL takes, e.g. 112x112.")]
RangeOption = Annotated[
    Literal["0..1", "-1..1", "0..255", "(x-127.5)/128", "imagenet"] | None,
    typer.Option("--pixel-range", help="Pixel range that MODEL takes."),
]
OrderOption = Annotated[
    Literal["rgb", "bgr"] | None, typer.Option("--channel-order", help="Colour order that MODEL takes.")
]
DetectorOption = Annotated[Path | None, typer.Option("--detector", help="A YuNet or SCRFD .onnx file.")]
AlignedOption = Annotated[bool, typer.Option("--aligned", help="The pictures are aligned faces already.")]
MirrorOption = Annotated[
    bool | None, typer.Option("--mirror/--no-mirror", help="Sum the embeddings of image and mirror image.")
]
BackendOption = Annotated[
    Literal["auto", "torch", "onnxruntime"], typer.Option(help="What runs the model; auto: .onnx files in onnxruntime.")
]


def given_threshold(threshold: float | None) -> float | None:
    """Raises InvalidInput, before anything is opened, for what is no cosine."""
    from steadface.evaluation.thresholds import checked_threshold

    return None if threshold is None else checked_threshold(threshold)


def parsed_share(text: str, option: str) -> float:
    """`0.5%` or `0.005` as a number; raises InvalidInput, naming the `option`, for what is no share."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InvalidInput(f"{option} {text} is not a share; write 0.5% or 0.005")
    return value


def given_rate(option: typer.CallbackParam, rate: float | None) -> float | None:
    """Raises InvalidInput, before anything is opened, for what is no rate."""
    from steadface.arguments import rate as checked_rate

    return None if rate is None else checked_rate(f"--{option.name}", rate)


FmrOption = Annotated[
    float | None,
    typer.Option("--fmr", callback=given_rate, help="False match rate of one comparison. [default: 1e-3]"),
]
ThresholdOption = Annotated[
    float | None, typer.Option("--threshold", callback=given_threshold, help="A similarity of your own instead.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
GalleryOption = Annotated[
    str, typer.Option("--gallery", metavar="PLACE", help="The gallery: a file, or postgresql://USER@HOST/DATABASE.")
]
IndexOption = Annotated[
    str,
    typer.Option(
        "--index",
        metavar="INDEX",
        help="What searches the gallery: exact or hnsw in memory, milvus+http://HOST:PORT/COLLECTION, or "
        "postgresql://USER@HOST/DATABASE with pgvector.",
    ),
]
KeyOption = Annotated[Path | None, typer.Option("--key", help="File with the gallery's key.")]
SignedOption = Annotated[
    Path | None, typer.Option("--key", help="File with the key that contract and guard must be signed with.")
]

GuardOption = Annotated[
    Path | None, typer.Option("--guard", help="A guard's file: also say whether a face looks adversarial.")
]


def given_pictures(given: Sequence[Path]) -> list[Path]:
    """Photographs, and those below folders, see `picture_files`; what is left out is said."""
    from steadface.data.listing import Skips
    from steadface.workflows.recognize import picture_files

    skips = Skips()
    files = picture_files(given, skips)
    say_skipped(skips.messages)
    return files


def say_skipped(messages: Sequence[str]) -> None:
    for message in messages:
        say_warning(message)


def stated(size: str | None, pixel_range: str | None, channel_order: Any, output: str | None) -> "Stated":
    """What the options of a model's pixels say. Raises InvalidInput for what is no size."""
    from steadface.recognizers import parse_size

    return {
        "image_size": None if size is None else parse_size(size),
        "pixel_range": pixel_range,
        "channel_order": channel_order,
        "output": output,
    }


def parsed_radius(text: str, norm: str) -> float:
    """A radius as `radius_from` reads it; raises InvalidInput for what is no radius of that norm."""
    from steadface.attacks.balls import radius_from

    try:
        value = radius_from(text)
    except (ValueError, ZeroDivisionError):
        value = -1.0
    if not 0 < value < math.inf:
        raise InvalidInput(f"--eps {text} is not a positive radius; write 4/255 or 0.0157")
    if norm == "linf" and value > 1:
        meant = "4/255, say" if "/" in text else f"{text}/255"
        raise InvalidInput(f"--eps {text} is more than the whole pixel range: write {meant}")
    return value


def print_json(data: Any, *, indent: int | None = 1) -> None:
    """Strict JSON in ASCII, at once: texts keep every character, as an escape; numbers that are none are null. Without
    `indent` it is one line.
    """
    # JSON leaves DEL as it is. It can stand in texts alone.
    typer.echo(json.dumps(plain(data), indent=indent, allow_nan=False).replace("\x7f", r"\u007f"))
