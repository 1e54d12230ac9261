"""`steadface enroll`: add a person to a gallery."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from steadface.cli.console import console, line, say_warning, stage_bar
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
from steadface.data.listing import abbreviated
from steadface.errors import InvalidInput
from steadface.gallery.embedded_people import EmbeddedPeople, left_out
from steadface.gallery.place import storage_at
from steadface.gallery.storage import Storage
from steadface.recognition.recognizer import Recognizer
from steadface.workflows.enroll_embedded import check_embedded, enroll_embedded
from steadface.workflows.recognize import with_gallery


def enroll_person(
    person: Annotated[str | None, typer.Argument(help="Whom the pictures show.")] = None,
    pictures: Annotated[list[Path] | None, typer.Argument(help="One or more photographs, or folders of them.")] = None,
    *,
    gallery: GalleryOption,
    model: ModelOption,
    from_parquet: Annotated[
        Path | None,
        typer.Option(help="In place of a person: a folder that `embed` wrote, of people with labels, or a part of it."),
    ] = None,
    skip_mixed: Annotated[
        bool,
        typer.Option("--skip-mixed", help="With --from-parquet: leave out people whose pictures do not look like one."),
    ] = False,
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

    With `--from-parquet`, everybody whose pictures were embedded, under the name of their label, or nobody; they must
    not be enrolled already.

    Enrol people who have agreed to it.
    """
    storage = storage_at(gallery)
    if from_parquet is not None:
        if person is not None or aligned or detector is not None:
            raise InvalidInput("--from-parquet brings people and embeddings along: leave out person, pictures, "
                               "--aligned and --detector")  # fmt: skip
        recognizer = Recognizer.open(model, output=output, contract=contract, mirror=mirror, backend=backend)
        _enroll_embedded(recognizer, from_parquet, storage, key, consent, expires, not force, skip_mixed, as_json)
        return
    if person is None or not pictures or skip_mixed:
        raise InvalidInput("give whom the pictures show and the pictures, or --from-parquet with what `embed` wrote; "
                           "--skip-mixed goes with the latter")  # fmt: skip
    files = given_pictures(pictures)
    recognizer = Recognizer.open(
        model, output=output, contract=contract, detector=detector, mirror=mirror, backend=backend
    )
    with with_gallery(recognizer, storage, key, create=True) as made_key:
        answer = recognizer.enroll(
            person,
            files,
            aligned=aligned,
            check=not force,
            consent=consent,
            expires=expires,
        )
    _say_made(storage.name, made_key)
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


def _say_made(gallery: str, key: Path | None) -> None:
    if key is not None:
        say_warning(
            f"made the gallery {gallery}; its key is in {key}: keep a copy of that elsewhere, since without it "
            "the gallery is lost"
        )


def _enroll_embedded(
    recognizer: Recognizer,
    given: Path,
    storage: Storage,
    key: Path | None,
    consent: str | None,
    expires: str | None,
    check: bool,
    skip_mixed: bool,
    as_json: bool,
) -> None:
    people = EmbeddedPeople(given)
    check_embedded(people, recognizer)
    with with_gallery(recognizer, storage, key, create=True) as made_key, stage_bar() as progress:
        done = enroll_embedded(
            recognizer,
            people,
            consent=consent,
            expires=expires,
            check=check,
            skip_mixed=skip_mixed,
            progress=partial(progress, "people"),
        )
    _say_made(storage.name, made_key)
    if check and recognizer.alike is None:
        say_warning(
            f"{recognizer.contract.name} is not calibrated, so nothing says whether the pictures of each are of one "
            "person"
        )
    for note in (*left_out(people), *recognizer.contract.notes):
        say_warning(note)
    if as_json:
        print_json(
            {"enrolled": done.names, "mixed": done.mixed, "without": people.without, "pictures_without": people.failed}
        )
        return
    console.print(f"{len(done.names)} people enrolled from {given}", soft_wrap=True)
    if done.mixed:
        say_warning(
            f"left out {len(done.mixed)} people whose pictures do not look like one person: "
            f"{abbreviated(list(done.mixed.values()), len(done.mixed))}"
        )
