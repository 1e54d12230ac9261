"""``steadface embed``: embeddings of many photographs in one file."""

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from steadface.cli.console import console, say_warning, stage_bar
from steadface.cli.options import (
    AlignedOption,
    BackendOption,
    ContractOption,
    DetectorOption,
    JsonOption,
    MirrorOption,
    ModelOption,
    OutputOption,
    opened_recognizer,
    picture_files,
    print_json,
)
from steadface.data.faces import UnreadableImage
from steadface.errors import SteadfaceError
from steadface.files import write_atomically
from steadface.recognition.face_finder import NoFace

BATCH = 64


def embed_pictures(
    pictures: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="An .npz file: `embeddings` (n, D) and `files` (n,).")],
    detector: DetectorOption = None,
    aligned: AlignedOption = False,
    mirror: MirrorOption = None,
    backend: BackendOption = "auto",
    compile: Annotated[bool, typer.Option("--compile", help="Compile the model: pays for thousands of faces.")] = False,
    output: OutputOption = None,
    contract: ContractOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the unit embeddings of the largest face of each picture. Exit code **1** if some could not be embedded.

    Embeddings can be turned back into faces: keep the file like the photographs.
    """
    if out.suffix != ".npz":
        raise SteadfaceError(f"--out {out} must be an .npz file")
    files = picture_files(pictures)
    recognizer = opened_recognizer(
        model, output=output, contract=contract, detector=detector, mirror=mirror, backend=backend, compile=compile
    )
    for note in recognizer.contract.notes:
        say_warning(note)
    kept: list[str] = []
    parts: list[NDArray[np.float32]] = []
    failures: dict[str, str] = {}
    with stage_bar() as progress:
        for start in range(0, len(files), BATCH):
            faces = []
            for place, file in enumerate(files[start : start + BATCH], start=start + 1):
                try:
                    faces.append(recognizer.seeing.face(file, aligned=aligned))
                    kept.append(str(file))
                except (UnreadableImage, NoFace) as error:
                    failures[str(file)] = str(error)
                progress("embedding", place, len(files))
            if faces:
                parts.append(recognizer.embed_faces(faces))
    if not parts:
        first = next(iter(failures.values()))
        raise SteadfaceError(f"none of the {len(files)} pictures could be embedded; the first: {first}")
    buffer = io.BytesIO()
    np.savez(buffer, embeddings=np.concatenate(parts), files=np.array(kept))
    write_atomically(out, buffer.getvalue())
    if as_json:
        print_json({"embedded": len(kept), "failed": failures, "out": str(out)})
    else:
        console.print(f"{len(kept)} embeddings in {out}", soft_wrap=True)
        for message in failures.values():
            say_warning(message)
    raise typer.Exit(1 if failures else 0)
