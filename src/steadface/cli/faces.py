"""`steadface faces`: the built-in synthetic faces as identity folders."""

from pathlib import Path
from typing import Annotated

import typer

from steadface.cli.console import console
from steadface.data.synthetic import write_synthetic_faces


def write_faces(
    out: Annotated[Path, typer.Argument(help="A folder that does not exist yet, or is empty.")],
    people: Annotated[int, typer.Option(min=1, help="How many identities.")] = 64,
    images: Annotated[int, typer.Option(min=1, help="Images of each.")] = 16,
    size: Annotated[int, typer.Option(min=16, help="Side in pixels.")] = 112,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same faces.")] = 0,
    first: Annotated[int, typer.Option(min=0, help="Number of the first person: others than an earlier set's.")] = 0,
) -> None:
    """Write procedural **synthetic faces** as identity folders, one person each, already aligned.

    They are there so that everything runs with nothing downloaded. No claim about real faces rests on them.
    """
    root = write_synthetic_faces(
        out, people=people, images_per_person=images, size=(size, size), seed=seed, first_person=first
    )
    console.print(f"{people * images} faces of {people} people in {root}", soft_wrap=True)
