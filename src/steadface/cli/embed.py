"""`steadface embed`: embeddings of many photographs in one file."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

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
    given_pictures,
    print_json,
)
from steadface.errors import InvalidInput
from steadface.recognition.recognizer import Recognizer
from steadface.workflows import recognize


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
        raise InvalidInput(f"--out {out} must be an .npz file")
    files = given_pictures(pictures)
    recognizer = Recognizer.open(
        model, output=output, contract=contract, detector=detector, mirror=mirror, backend=backend, compile=compile
    )
    for note in recognizer.contract.notes:
        say_warning(note)
    with stage_bar() as progress:
        done = recognize.embed_pictures(
            recognizer, files, out, aligned=aligned, progress=partial(progress, "embedding")
        )
    if as_json:
        print_json({"embedded": len(done.files), "failed": done.failures, "out": str(out)})
    else:
        console.print(f"{len(done.files)} embeddings in {out}", soft_wrap=True)
        for message in done.failures.values():
            say_warning(message)
    raise typer.Exit(1 if done.failures else 0)
