"""`steadface enroll`: add a person to a gallery."""

from pathlib import Path
from typing import Annotated

import typer

from steadface.cli.console import console, line, say_warning
from steadface.cli.options import (
    AlignedOption,
    BackendOption,
    ContractOption,
    DetectorOption,
    GalleryOption,
    JsonOption,
    KeyOption,
    MirrorOption,
    ModelOption,
    OutputOption,
    given_pictures,
    print_json,
)
from steadface.recognition.recognizer import Recognizer
from steadface.workflows.recognize import with_gallery


def enroll_person(
    person: Annotated[str, typer.Argument(help="Whom the pictures show.")],
    pictures: Annotated[list[Path], typer.Argument(help="One or more photographs, or folders of them.")],
    gallery: GalleryOption,
    model: ModelOption,
    detector: DetectorOption = None,
    aligned: AlignedOption = False,
    consent: Annotated[str | None, typer.Option(help="A note on the person's consent, kept with them.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="Until when they may be found: 2031-12-31, or a time with its zone.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also where the pictures do not look like one person, or like whoever has the name."
        ),
    ] = False,
    mirror: MirrorOption = None,
    backend: BackendOption = "auto",
    key: KeyOption = None,
    output: OutputOption = None,
    contract: ContractOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a person to a **gallery**, which is made if there is none: one template of all pictures, or nothing at all.

    Whoever is enrolled already gets one more template, if the pictures look like them.

    Enrol people who have agreed to it.
    """
    files = given_pictures(pictures)
    recognizer = Recognizer.open(
        model, output=output, contract=contract, detector=detector, mirror=mirror, backend=backend
    )
    with with_gallery(recognizer, gallery, key, create=True) as made_key:
        answer = recognizer.enroll(
            person,
            files,
            aligned=aligned,
            check=not force,
            consent=consent,
            expires=expires,
        )
    if made_key is not None:
        say_warning(
            f"made the gallery {gallery}; its key is in {made_key}: keep a copy of that elsewhere, since without it "
            "the gallery is lost"
        )
    for note in answer.notes:
        say_warning(note)
    if as_json:
        print_json(answer.to_json())
    else:
        console.print(
            line(
                "added to " if answer.added else "enrolled ",
                (answer.person, "bold"),
                f", now {answer.templates} templates," if answer.added else "",
                f" from {len(answer.faces)} picture(s); the least alike has cosine {answer.agreement:.3f} to the "
                f"template (template {answer.template})",
            ),
            soft_wrap=True,
        )
