"""``steadface gallery re-embed``: a gallery for another model, from the pictures of who is enrolled."""

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
    opened_recognizer,
    picture_files,
    print_json,
    say_skipped,
)
from steadface.data.listing import PictureTree, Skips, composed, spellings
from steadface.gallery.gallery import Gallery


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
    folders = _person_folders(images)
    recognizer = opened_recognizer(
        model, output=output, contract=contract, detector=detector, mirror=mirror, backend=backend
    )
    for note in recognizer.contract.notes:
        say_warning(note)
    with Gallery.open(gallery, key=key) as opened:
        names = [person.name for person in opened.people()]
        with stage_bar() as progress:
            templates = {}
            for place, name in enumerate(names, start=1):
                if (folder := folders.get(name, folders.get(composed(name)))) is not None:
                    files = picture_files([images / folder])
                    templates[name] = recognizer.template(name, files, aligned=aligned)[None]
                progress("embedding", place, len(names))
        renewed, dropped = opened.re_embed(recognizer.contract.identity, templates, drop_missing=drop_missing)
    if as_json:
        print_json({"people": [one.person.name for one in renewed], "dropped": [person.name for person in dropped]})
        return
    console.print(f"{len(renewed)} people have templates of {recognizer.contract.name} now")
    for person in dropped:
        say_warning(f"{person.name} was removed: there were no photographs")


def _person_folders(images: Path) -> dict[str, str]:
    """The person folders by name, see `spellings`; what is left out is said."""
    skips = Skips()
    people = PictureTree(images, skips, by_person=True).people()
    say_skipped(skips)
    return spellings(people)
