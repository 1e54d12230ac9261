"""What the commands that use a trained model have in common: options, the pictures they are given, JSON."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from steadface.arguments import rate as checked_rate
from steadface.cli.console import say_warning
from steadface.data.faces import FaceSource
from steadface.data.folders import open_faces
from steadface.data.listing import PictureTree, Skips
from steadface.errors import SteadfaceError
from steadface.evaluation.thresholds import checked_threshold
from steadface.gallery.gallery import Gallery
from steadface.gallery.sealing.keys import given_key, read_or_write_key
from steadface.recognition.recognizer import Recognizer
from steadface.recognizers import ChannelOrder, PixelRange
from steadface.recognizers.embedder import Backend
from steadface.recognizers.guard import read_guard

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
RangeOption = Annotated[PixelRange | None, typer.Option("--pixel-range", help="Pixel range that MODEL takes.")]
OrderOption = Annotated[ChannelOrder | None, typer.Option("--channel-order", help="Colour order that MODEL takes.")]
DetectorOption = Annotated[Path | None, typer.Option("--detector", help="A YuNet or SCRFD .onnx file.")]
AlignedOption = Annotated[bool, typer.Option("--aligned", help="The pictures are aligned faces already.")]
MirrorOption = Annotated[
    bool | None, typer.Option("--mirror/--no-mirror", help="Sum the embeddings of image and mirror image.")
]
BackendOption = Annotated[Backend, typer.Option(help="What runs the model; auto: .onnx files in onnxruntime.")]


def given_threshold(threshold: float | None) -> float | None:
    """Raises SteadfaceError, before anything is opened, for what is no cosine."""
    return None if threshold is None else checked_threshold(threshold)


def given_rate(option: typer.CallbackParam, rate: float | None) -> float | None:
    """Raises SteadfaceError, before anything is opened, for what is no rate."""
    return None if rate is None else checked_rate(f"--{option.name}", rate)


FmrOption = Annotated[
    float | None,
    typer.Option("--fmr", callback=given_rate, help="False match rate of one comparison. [default: 1e-3]"),
]
ThresholdOption = Annotated[
    float | None, typer.Option("--threshold", callback=given_threshold, help="A similarity of your own instead.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
GalleryOption = Annotated[Path, typer.Option("--gallery", help="The gallery, a file.")]
KeyOption = Annotated[Path | None, typer.Option("--key", help="File with the gallery's key.")]

GuardOption = Annotated[
    Path | None, typer.Option("--guard", help="A guard's file: also say whether a face looks adversarial.")
]


def picture_files(given: Sequence[Path]) -> list[Path]:
    """The files among `given` as they are, and the pictures below its folders in sorted order, each once.

    What is left out is said. Raises SteadfaceError for what does not exist and for folders without pictures.
    """
    skips = Skips()
    files: dict[str, Path] = {}
    for path in given:
        if not path.exists():
            raise SteadfaceError(f"{path} does not exist; give photographs or folders of them")
        found = [path / name for name, _ in PictureTree(path, skips).images()] if path.is_dir() else [path]
        if not found:
            raise SteadfaceError("; ".join((f"there are no images in {path}", *skips.messages)))
        for file in found:
            real = os.path.realpath(file)
            if real in files:
                skips.add("pictures that were given already", str(file))
            files.setdefault(real, file)
    say_skipped(skips)
    return list(files.values())


def opened_faces(path: Path) -> FaceSource:
    """The faces at `path`, see `open_faces`; what is left out is said."""
    faces = open_faces(path)
    say_skipped(faces)
    return faces


def say_skipped(listed: object) -> None:
    for message in getattr(listed, "messages", ()):
        say_warning(message)


def opened_recognizer(
    model: str,
    *,
    output: str | None = None,
    contract: Path | None = None,
    detector: Path | None,
    mirror: bool | None,
    backend: Backend,
    guard: Path | None = None,
    compile: bool = False,
) -> Recognizer:
    """The recogniser that the options ask for."""
    recognizer = Recognizer.open(
        model,
        output=output,
        contract=contract,
        detector=detector,
        mirror=mirror,
        backend=backend,
        compile=compile,
    )
    if guard is not None:
        recognizer.guard = read_guard(guard, model=recognizer.contract.space)
    return recognizer


@contextmanager
def with_gallery(recognizer: Recognizer, gallery: Path, key: Path | None, *, create: bool = False) -> Iterator[None]:
    """Opens the recogniser's gallery; one that is not there is made if `create`, and where its key lies is said.

    Where what follows fails nothing is left of a gallery that was made for it.
    """
    model = recognizer.contract.identity
    if gallery.exists() or not create:
        with Gallery.open(gallery, key=key, model=model) as opened:
            recognizer.gallery = opened
            yield
        return
    makes_key = not key.exists() if key is not None else given_key() is None
    with Gallery.create(gallery, model=model, key=None if key is None else read_or_write_key(key)) as opened:
        recognizer.gallery = opened
        lies_in = Path(opened.key.source)
        try:
            yield
        except BaseException:
            opened.close()
            for path in (gallery, *gallery.parent.glob(f"{gallery.name}-*")):
                path.unlink(missing_ok=True)
            if makes_key:
                lies_in.unlink()
            raise
    say_warning(
        f"made the gallery {gallery}; its key is in {lies_in}: keep a copy of that elsewhere, since without it the "
        "gallery is lost"
    )


def print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=1))
