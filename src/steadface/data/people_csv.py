"""Who is on which image where folders do not say: a CSV file of `image,person`."""

import csv
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from steadface.arguments import as_path
from steadface.data.folders import ListedFiles
from steadface.data.listing import PictureTree, Skips, abbreviated, check_distinct, composed, nearby, spellings
from steadface.errors import InvalidInput, unreadable
from steadface.files import open_file, write_atomically

HEADER = ["image", "person"]

MOST_BYTES = 1 << 30
"""Of the file: more than ten million images."""
LONGEST_LINE = 16_384
"""Characters: two paths of the longest that there can be, and quotation marks."""


class NamedFolder(ListedFiles):
    """The images below `root` whose person the CSV file `people` names; `image` is relative to `root`.

    Listed and left out as in `ImageFolder`; images that the file does not name are left out and counted too. Raises
    `SteadfaceError` for a file that cannot be read, a malformed line, images that are not there, and when nothing is
    left.
    """

    def __init__(self, root: str | os.PathLike[str], people: str | os.PathLike[str], *, min_images: int = 1) -> None:
        root, people = as_path(root, "the folder of images"), as_path(people, "the table of people")
        skips = Skips()
        person_of = read_people(people)
        sizes = dict(PictureTree(root, skips).images())
        spelt = spellings(sizes)
        person_of = {spelt.get(image, spelt.get(composed(image), image)): name for image, name in person_of.items()}
        unknown = [image for image in person_of if image not in sizes]
        if unknown:
            elsewhere = nearby(root, unknown) if len(unknown) == len(person_of) else None
            remedy = "write them relative to that folder, or remove their lines"
            problem = (
                f"{people} names {len(unknown)} images that are not below {root} or are left out "
                f"({abbreviated(unknown, len(unknown))}): "
                + (remedy if elsewhere is None else f"they lie below {elsewhere}, give that")
            )
            raise InvalidInput("; ".join((problem, *skips.messages)))
        skips.extend(f"images that {people.name} does not name", (image for image in sizes if image not in person_of))
        names = [image for image in sizes if image in person_of]
        persons = sorted(set(person_of.values()))
        check_distinct(persons, people)
        place = {person: label for label, person in enumerate(persons)}
        super().__init__(
            root,
            names,
            sizes=[sizes[name] for name in names],
            labels=np.fromiter((place[person_of[image]] for image in names), dtype=np.int64),
            people=persons,
            min_images=min_images,
            skips=skips,
            nothing=f"{people} leaves no faces of {root}",
        )


def read_people(path: Path) -> dict[str, str]:
    """Image to person, of a CSV file whose first line is `image,person`.

    Raises `SteadfaceError` for a file that cannot be read, and with the line for one that is malformed.
    """
    people: dict[str, str] = {}
    try:
        with io.TextIOWrapper(
            open_file(path, most=MOST_BYTES), encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as file:
            lines = csv.reader(_lines(file, path))
            if next(lines, None) != HEADER:
                raise InvalidInput(f"{path}, line 1: the first line must be {','.join(HEADER)}")
            for columns in filter(None, lines):  # empty lines give no columns
                if len(columns) != len(HEADER) or not all(columns):
                    raise InvalidInput(f"{path}, line {lines.line_num}: {','.join(columns)!r} is not 'image,person'")
                image, person = columns
                if image in people:
                    raise InvalidInput(f"{path}, line {lines.line_num}: {image} is named twice; keep one of the lines")
                people[image] = person
    except OSError as error:
        raise unreadable(error, f"{path} cannot be read ({error.strerror}): give a CSV file of image,person") from error
    except csv.Error as error:
        raise InvalidInput(f"{path} is not a CSV file of image,person: {error}") from error
    return people


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of a text, none of which is read much further than one can be long."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise InvalidInput(f"{path}, line {number} is longer than {LONGEST_LINE:,} characters; break or correct it")
        yield line


def write_people(path: Path, people: Iterable[tuple[str, str]]) -> None:
    """Writes (image, person) as `read_people` reads them. Raises `SteadfaceError` where it cannot be written."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([HEADER, *people])
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))
