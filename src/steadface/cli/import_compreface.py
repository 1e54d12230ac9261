"""`steadface import-compreface`: the people of a CompreFace, enrolled anew."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from steadface.cli.console import console, say_warning, stage_bar
from steadface.cli.options import (
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
)
from steadface.data.compreface import chosen, read_services
from steadface.gallery.place import storage_at
from steadface.recognition.recognizer import Recognizer
from steadface.workflows.import_compreface import Moved, move_subjects, write_troubles
from steadface.workflows.recognize import with_gallery

SHOWN = 10
"""Subjects in a message."""


def import_compreface(
    dump: Annotated[Path, typer.Argument(help="What `pg_dump` wrote of CompreFace's database, as plain SQL.")],
    gallery: GalleryOption,
    model: ModelOption,
    service: Annotated[
        str | None, typer.Option(help="Whose subjects, where CompreFace has several services with some.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="A CSV file of what could not be enrolled, and why; it holds names.")
    ] = None,
    detector: DetectorOption = None,
    consent: Annotated[str | None, typer.Option(help="A note on the consent of all of them, kept with them.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="Until when they may be found: 2031-12-31, or a time with its zone.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also whose pictures do not look like one person.")] = False,
    mirror: MirrorOption = None,
    backend: BackendOption = "auto",
    key: KeyOption = None,
    output: OutputOption = None,
    contract: ContractOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enrol the people of a **CompreFace** anew, from the pictures in a dump of its database. Exit code **1** if
    somebody, or a picture, could not be.

    Each in one step, with one template of all their pictures; called again it goes on where it was interrupted.
    """
    if report is not None:
        write_troubles(report, [])  # what cannot be written is said before the work
    with stage_bar() as progress:
        mebibytes = lambda done, total: progress("reading, MiB", done >> 20, total >> 20)  # noqa: E731
        subjects = chosen(read_services(dump, mebibytes), service).subjects
    recognizer = Recognizer.open(
        model, output=output, contract=contract, detector=detector, mirror=mirror, backend=backend
    )
    recognizer.seeing.detector  # noqa: B018 - before a gallery is made
    for note in recognizer.contract.notes:
        say_warning(note)
    storage = storage_at(gallery)
    with with_gallery(recognizer, storage, key, create=True) as made_key:
        pass  # a gallery that is made stays, whatever becomes of the rest
    if made_key is not None:
        say_warning(
            f"made the gallery {storage.name}; its key is in {made_key}: keep a copy of that elsewhere, since without "
            "it the gallery is lost"
        )
    done: list[Moved] = []
    try:
        with with_gallery(recognizer, storage, key or made_key), stage_bar() as progress:
            tell = partial(progress, "enrolling")
            moving = move_subjects(recognizer, subjects, check=not force, consent=consent, expires=expires)
            for one in moving:
                done.append(one)
                tell(len(done), len(subjects))
    finally:
        if report is not None:
            write_troubles(report, [trouble for one in done for trouble in one.troubles])
    _say(done, report, as_json)


def _say(done: list[Moved], report: Path | None, as_json: bool) -> None:
    enrolled, before = [one for one in done if one.pictures], [one for one in done if one.before]
    troubled = [one for one in done if one.troubles]
    if as_json:
        print_json(
            {
                "enrolled": len(enrolled),
                "pictures": sum(one.pictures for one in enrolled),
                "before": len(before),
                "troubles": [vars(trouble) for one in troubled for trouble in one.troubles],
                "notes": [note for one in done for note in one.notes],
            }
        )
    else:
        pictures = sum(one.pictures for one in enrolled)
        console.print(f"enrolled {len(enrolled)} people from {pictures} pictures; {len(before)} were enrolled before")
        for one in troubled[:SHOWN]:
            for trouble in one.troubles[:SHOWN]:
                where = "" if trouble.picture is None else f", {trouble.picture}"
                say_warning(f"{trouble.subject}{where}: {trouble.why}")
        if len(troubled) > SHOWN:
            more = f"those of {len(troubled) - SHOWN} more people" if report is None else f"all are in {report}"
            say_warning(f"and others: {more}" + ("; --report FILE keeps all" if report is None else ""))
    if troubled:
        raise typer.Exit(1)
