"""Which of the folders in one another are people's."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable

PARTS = re.compile(
    r"(train|training|val|valid|validation|test|testing|dev|eval|im(age)?s?|imgs?|photos?|pictures?|faces?|aligned|crops?"
    r"|cropped|raw|data(set)?|probes?|gallery|query|part|people|persons?|identit(y|ies)|ids?)([-_ ]?(set|images|\d+))?",
    re.IGNORECASE,
)
"""What folders are called that hold people's folders, and people are not."""


def parted(names: Iterable[str]) -> tuple[list[str], bool]:
    """The folders that hold two folders or more and no picture beside them, one below each folder at the top; and
    whether that is where the person folders are, for certain.

    `names` are those of pictures. It is where everything lies in one folder or in those of the parts of a set (`train`,
    `val`). Other names may be people's, whose pictures are sorted by occasion.
    """
    below: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        below[name.partition("/")[0]].add(name.rpartition("/")[0])
    common = {top: posixpath.commonpath(folders) for top, folders in below.items()}
    certain = len(below) == 1 or all(PARTS.fullmatch(top) for top in below)
    return [folder for top, folder in common.items() if folder not in below[top]], certain


def person_of(folder: str, holders: Iterable[str]) -> str:
    """Whose folder that of a picture is, or lies in: the first one below one of `holders`, or below none."""
    inside = next((folder[len(holder) + 1 :] for holder in holders if folder.startswith(f"{holder}/")), folder)
    return inside.partition("/")[0]
