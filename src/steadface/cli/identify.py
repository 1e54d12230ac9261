"""`steadface identify`: who of the enrolled people is in a photograph?"""

from pathlib import Path
from typing import Annotated

import cv2
import typer
from rich.table import Table

from steadface.cli.console import console, say_warning
from steadface.cli.options import (
    AlignedOption,
    BackendOption,
    ContractOption,
    DetectorOption,
    FmrOption,
    GalleryOption,
    GuardOption,
    IndexOption,
    JsonOption,
    KeyOption,
    MirrorOption,
    ModelOption,
    OutputOption,
    ThresholdOption,
    given_rate,
    print_json,
)
from steadface.errors import InvalidInput
from steadface.faces.drawing import BLUE, GREEN, Marked, draw_faces
from steadface.faces.photograph import read_photograph
from steadface.files import write_atomically
from steadface.gallery.index.address import index_at
from steadface.recognition.answers import Identified, Named
from steadface.recognition.recognizer import Recognizer
from steadface.workflows.recognize import with_gallery


def identify_photograph(
    photograph: Annotated[Path, typer.Argument(help="A photograph.")],
    gallery: GalleryOption,
    model: ModelOption,
    detector: DetectorOption = None,
    aligned: AlignedOption = False,
    fmr: FmrOption = None,
    fpir: Annotated[
        float | None,
        typer.Option(
            callback=given_rate, help="Chance that a stranger is taken for anybody enrolled, instead of --fmr."
        ),
    ] = None,
    threshold: ThresholdOption = None,
    top: Annotated[int, typer.Option(min=1, help="Candidates shown for each face.")] = 3,
    draw: Annotated[Path | None, typer.Option(help="Write the photograph with boxes, names and similarities.")] = None,
    mirror: MirrorOption = None,
    backend: BackendOption = "auto",
    guard: GuardOption = None,
    index: IndexOption = "exact",
    key: KeyOption = None,
    output: OutputOption = None,
    contract: ContractOption = None,
    as_json: JsonOption = False,
) -> None:
    """Who of the enrolled people is in a photograph? Exit code **0** if anybody, **1** if nobody, **2** or more on an
    error.
    """
    if draw is not None and not cv2.haveImageWriter(draw.name):
        raise InvalidInput(f"--draw {draw} is not a name of an image; end it in .png")
    if draw is not None and draw.resolve() == photograph.resolve():
        raise InvalidInput(f"--draw {draw} would overwrite the photograph; name another file")
    searched = index_at(index)
    recognizer = Recognizer.open(
        model, output=output, contract=contract, detector=detector, mirror=mirror, backend=backend, guard=guard
    )
    with with_gallery(recognizer, gallery, key, **searched):
        answer = recognizer.identify(photograph, fmr=fmr, fpir=fpir, threshold=threshold, top=top, aligned=aligned)
    if draw is not None:
        write_atomically(draw, _drawn(photograph, answer, draw.suffix))
    if as_json:
        print_json(answer.to_json())
    else:
        _say_identified(answer)
    raise typer.Exit(0 if answer.match else 1)


def _drawn(photograph: Path, answer: Identified, suffix: str) -> bytes:
    """The photograph as a file of that kind, with every face in a box: green where somebody enrolled was found."""
    marked = [
        Marked(
            box=(0, 0, answer.width, answer.height) if face.seen.face is None else face.seen.face.box,
            caption=f"{face.person or 'nobody enrolled'}\n{_best(face)}",
            colour=GREEN if face.match else BLUE,
        )
        for face in answer.faces
    ]
    picture = draw_faces(read_photograph(photograph).pixels, marked)
    _, encoded = cv2.imencode(suffix, picture[..., ::-1])
    return encoded.tobytes()


def _best(face: Named) -> str:
    return f"{face.candidates[0].similarity:.3f}" if face.candidates else ""


def _say_identified(answer: Identified) -> None:
    if not answer.faces:
        say_warning(f"no face was found in {answer.image}")
        return
    table = Table("face", "box", "person", "similarity", "next")
    for number, face in enumerate(answer.faces, start=1):
        box = face.seen.face.box if face.seen.face is not None else None
        table.add_row(
            str(number) + (" (looks adversarial)" if face.suspicion is not None and face.suspicion.suspicious else ""),
            "" if box is None else " ".join(f"{side:.0f}" for side in box),
            face.person if face.person is not None else "nobody enrolled",
            f"{face.candidates[0].similarity:.4f}" if face.candidates else "-",
            ", ".join(f"{one.person} {one.similarity:.4f}" for one in face.candidates[face.match :]),
        )
    console.print(table)
    at = "given" if answer.fmr is None else f"FMR {answer.fmr:g}, FPIR {answer.fpir:.2g} among {answer.enrolled}"
    console.print(f"threshold {answer.threshold:.4f} ({at})")
    for note in answer.notes:
        say_warning(note)
