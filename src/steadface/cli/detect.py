"""`steadface detect` and `align`: faces in photographs, and training folders made of them."""

from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from steadface.cli.console import console, line, say_error, say_warning, stage_bar
from steadface.cli.options import DetectorOption, JsonOption, given_pictures, print_json
from steadface.data.faces import Image
from steadface.data.listing import abbreviated
from steadface.errors import InvalidInput
from steadface.faces.alignment import template_for
from steadface.faces.detector_files import open_detector
from steadface.faces.drawing import GREEN, RED, Marked, draw_faces
from steadface.faces.searching import MIN_SIZE
from steadface.faces.surveying import Failure, Surveyed, survey
from steadface.faces.training_folder import Encoding, TrainingFolder, Wanted, align_folder, encoded
from steadface.files import write_atomically
from steadface.recognizers import parse_size

MinSizeOption = Annotated[
    float, typer.Option("--min-size", min=1, help="Leave out faces of fewer pixels (longer side of the box).")
]
PARTLY, NOTHING = 1, 2
"""Exit codes: some of the files could not be read; none of them could."""


def detect_faces(
    files: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    detector: DetectorOption = None,
    draw: Annotated[
        Path | None, typer.Option(help="Write every photograph, with its faces marked, as JPEG into this folder.")
    ] = None,
    min_size: MinSizeOption = MIN_SIZE,
    as_json: JsonOption = False,
) -> None:
    """Find the **faces** in photographs, and say what is wrong with those that are hard to recognise.

    Boxes are in pixels of the upright photograph. Exit code **0** if every file could be read, whether it shows a face
    or not; **1** if some could not, which are listed at the end; **2** if none could.
    """
    photographs = given_pictures(files)
    drawn = {} if draw is None else _drawn_files(photographs, draw)

    def then(image: Image, surveyed: Surveyed) -> None:
        if drawn:
            _draw(image, surveyed, drawn[surveyed.file])

    found: list[Surveyed | Failure] = []
    with stage_bar() as report:
        opened = open_detector(
            detector, min_size=min_size, progress=lambda done, total: report("downloading the detector", done, total)
        )
        for one in survey(photographs, opened, then=then):
            found.append(one)
            report("photographs", len(found), len(photographs))
    failures = [one for one in found if isinstance(one, Failure)]
    if as_json:
        print_json([one.to_json() for one in found])
    else:
        _print([one for one in found if isinstance(one, Surveyed)])
    for failure in failures:
        say_error(failure.error)
    _exit(len(failures), len(found))


def align_photographs(
    photographs: Annotated[Path, typer.Argument(help="A folder of photographs: one folder per person in it.")],
    out: Annotated[Path, typer.Argument(help="Folder for the aligned faces, one folder per person.")],
    detector: DetectorOption = None,
    size: Annotated[str, typer.Option(help="Pixels of a side, or height x width, e.g. 112x96.")] = "112",
    faces: Annotated[
        Wanted, typer.Option(help="Of every photograph; `largest` leaves out those where two are about as large.")
    ] = "largest",
    encoding: Annotated[Encoding, typer.Option("--format", help="PNG, or JPEG at quality 95.")] = "png",
    min_size: MinSizeOption = MIN_SIZE,
    as_json: JsonOption = False,
) -> None:
    """Make a **training folder** of aligned faces from photographs.

    Faces that are there already are kept, so that the same command goes on where it was stopped. Exit code **0** if
    every photograph could be read, **1** if some could not, **2** if none could or there was no face in any.
    """
    height, width = parse_size(size if "x" in size else f"{size}x{size}")
    template_for((height, width))
    with stage_bar() as report:
        opened = open_detector(
            detector, min_size=min_size, progress=lambda done, total: report("downloading the detector", done, total)
        )
        made = align_folder(
            photographs,
            out,
            opened,
            size=(height, width),
            wanted=faces,
            encoding=encoding,
            progress=lambda done, total: report("photographs", done, total),
        )
    if as_json:
        print_json(made.to_json())
    else:
        _say_made(made)
    unreadable = [done for done in made.photographs if done.error]
    for done in unreadable:
        say_error(done.error)
    if not made.faces:
        raise InvalidInput(f"no face of any photograph in {photographs} could be aligned")
    _exit(len(unreadable), len(made.photographs))


def _exit(failures: int, total: int) -> None:
    if failures:
        raise typer.Exit(NOTHING if failures == total else PARTLY)


def _print(found: Sequence[Surveyed]) -> None:
    table = Table()
    table.add_column("photograph", overflow="fold")
    table.add_column("faces", justify="right")
    for column in ("box", "eyes apart", "score"):
        table.add_column(column, no_wrap=True)
    table.add_column("remarks")
    for one in found:
        if not one.faces:
            table.add_row(str(one.file), "0", "", "", "", "no face was found")
        for number, (face, quality) in enumerate(one.faces):
            left, top, right, bottom = (round(side) for side in face.box)
            table.add_row(
                "" if number else str(one.file),
                "" if number else str(len(one.faces)),
                f"{left},{top} - {right},{bottom}",
                f"{quality.size:.0f} px",
                f"{face.score:.2f}",
                Text("\n".join(quality.reasons)),
            )
    if found:
        console.print(table)


def _say_made(made: TrainingFolder) -> None:
    for message in made.skipped:
        say_warning(message)
    _say_left_out("photographs without a face", made.named("no face"))
    _say_left_out("photographs in which two faces are about as large", made.named("ambiguous"))
    _say_noted("turned faces upright in", [done.name for done in made.photographs if done.turned])
    _say_noted("it is not certain which way up the face is in", [done.name for done in made.photographs if done.unsure])
    kept = len(made.named("kept"))
    console.print(
        line(
            f"{made.faces} faces in ",
            (str(made.root), "bold"),
            f", {kept} of them from an earlier run" if kept else "",
        ),
        soft_wrap=True,
        highlight=False,
    )


def _say_left_out(what: str, names: list[str]) -> None:
    if names:
        say_warning(f"left out {what}: {len(names)} ({abbreviated(names, len(names))}); --json lists them all")


def _say_noted(what: str, names: list[str]) -> None:
    if names:
        say_warning(f"{what} {len(names)} photographs ({abbreviated(names, len(names))}); --json lists them all")


def _drawn_files(photographs: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where each photograph is drawn: as they lie below the folder that holds them all."""
    above = Path(commonpath([photograph.absolute().parent for photograph in photographs]))
    drawn = {}
    for photograph in photographs:
        name = photograph.absolute().relative_to(above)
        jpeg = name.suffix.lower() in (".jpg", ".jpeg")
        drawn[photograph] = folder / (name if jpeg else name.with_name(f"{name.name}.jpg"))
        if drawn[photograph].resolve() == photograph.resolve():
            raise InvalidInput(f"--draw {folder} would overwrite {photograph}; name another folder")
    return drawn


def _draw(image: Image, surveyed: Surveyed, path: Path) -> None:
    marked = [
        Marked(
            box=face.box,
            caption=f"{face.score:.2f}",
            colour=RED if quality.reasons else GREEN,
            landmarks=face.landmarks,
        )
        for face, quality in surveyed.faces
    ]
    write_atomically(path, encoded(draw_faces(image, marked), ".jpg"))
