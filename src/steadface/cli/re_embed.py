"""`steadface gallery re-embed`: a gallery for another model, from the pictures of who is enrolled."""

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
    GalleryOption,
    JsonOption,
    KeyOption,
    MirrorOption,
    ModelOption,
    OutputOption,
    print_json,
    say_skipped,
)
from steadface.data.listing import Skips
from steadface.gallery.gallery import Gallery
from steadface.recognition.recognizer import Recognizer
from steadface.workflows.recognize import person_folders, templates_of


def re_embed_gallery(
    gallery: GalleryOption,
    model: ModelOption,
    images: Annotated[Path, typer.Option(help="Photographs, one folder for each person enrolled, of their name.")],
    detector: DetectorOption = None,
    aligned: AlignedOption = False,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Remove people of whom there are no photographs.")
    ] = False,
    mirror: MirrorOption = None,
    backend: BackendOption = "auto",
    key: KeyOption = None,
    output: OutputOption = None,
    contract: ContractOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a **gallery** over to another model: everybody's templates are made anew from photographs, or nobody's.

    Templates of two models cannot be compared, and none can be made from the other.
    """
    skips = Skips()
    folders = person_folders(images, skips)
    say_skipped(skips.messages)
    recognizer = Recognizer.open(
        model, output=output, contract=contract, detector=detector, mirror=mirror, backend=backend
    )
    for note in recognizer.contract.notes:
        say_warning(note)
    with Gallery.open(gallery, key=key) as opened:
        identity = recognizer.contract.identity_under(opened.key)
        names = [person.name for person in opened.people()]
        with stage_bar() as progress:
            skips, report = Skips(), partial(progress, "embedding")
            templates = templates_of(recognizer, names, folders, skips, aligned=aligned, progress=report)
        say_skipped(skips.messages)
        renewed, dropped = opened.re_embed(identity, templates, drop_missing=drop_missing)
    if as_json:
        print_json({"people": [one.person.name for one in renewed], "dropped": [person.name for person in dropped]})
        return
    console.print(f"{len(renewed)} people have templates of {recognizer.contract.name} now")
    for person in dropped:
        say_warning(f"{person.name} was removed: there were no photographs")
