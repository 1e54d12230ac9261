"""Verification pairs, and LFW's `pairs.txt` over a folder of images."""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steadface.arguments import as_path
from steadface.data.faces import EncodedSource, FaceSource, UnreadableImage
from steadface.data.folders import FaceFiles
from steadface.data.listing import IMAGE_SUFFIXES, abbreviated, composed, is_hidden, nearby, spellings
from steadface.errors import InvalidInput, NotFound, quoted, unreadable
from steadface.files import check_below, read_file

FOLDS = 10

MOST_BYTES = 1 << 26
"""Of a file of pairs; LFW's has 160,000."""
MOST_LINES = 1_000_000
LONGEST_LINE = 10_000
MOST_DIGITS = 18
"""Of the number of an image."""


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """P pairs of images, each in one fold: `first`, `second` (P,) index `faces`, `same` (P,) is the truth.

    `people` (N,) says who each image shows; None where a format does not tell. Raises `SteadfaceError` for
    arrays that do not fit each other.
    """

    faces: FaceSource
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]
    fold: NDArray[np.int64]
    people: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        lengths = {len(array) for array in (self.first, self.second, self.same, self.fold)}
        if len(lengths) != 1:
            raise InvalidInput(f"pair arrays of different lengths {sorted(lengths)}; give one entry per pair")
        indices = np.concatenate((self.first, self.second))
        outside = indices[(indices < 0) | (indices >= len(self.faces))]
        if len(outside):
            raise InvalidInput(f"a pair names image {outside[0]}, outside 0..{len(self.faces) - 1}")
        if self.people is not None and len(self.people) != len(self.faces):
            raise InvalidInput(f"people has {len(self.people)} entries for {len(self.faces)} images")

    def __len__(self) -> int:
        return len(self.first)

    def select(self, pairs: NDArray[np.int64] | NDArray[np.bool_]) -> "PairSet":
        """Some of the pairs, by index (P',) or mask (P,), over the same faces."""
        return PairSet(
            faces=self.faces,
            first=self.first[pairs],
            second=self.second[pairs],
            same=self.same[pairs],
            fold=self.fold[pairs],
            people=self.people,
        )

    def without_images(self, images: Iterable[int]) -> "PairSet":
        """Without the pairs that use any of `images`, such as ones found to be unreadable."""
        gone = np.fromiter(images, dtype=np.int64)
        return self.select(~(np.isin(self.first, gone) | np.isin(self.second, gone)))

    def fingerprint(self) -> str:
        """SHA-256 (hex) of which faces these are, as far as their source tells, and which are paired."""
        digest = hashlib.sha256(self.faces.fingerprint().encode())
        for array in (self.first, self.second, self.same, self.fold):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def of_one_picture(pairs: PairSet) -> NDArray[np.bool_]:
    """(P,) mask of the pairs of a picture with itself: the same image, or two that hold the same bytes.

    Bytes are read where two of a pair are as many, and compared where the source has its images encoded.
    """
    same: NDArray[np.bool_] = pairs.first == pairs.second
    faces = pairs.faces
    if not isinstance(faces, EncodedSource):
        return same
    for pair in np.flatnonzero(~same & (faces.sizes[pairs.first] == faces.sizes[pairs.second])):
        try:
            same[pair] = faces.read_encoded(pairs.first[pair]) == faces.read_encoded(pairs.second[pair])
        except UnreadableImage:
            continue
    return same


def doubled_pictures(name: str, pairs: PairSet) -> list[str]:
    """Warnings, which begin with `name`, of pairs of a picture with itself."""
    doubled = of_one_picture(pairs)
    found = []
    for kind, mask, effect in (
        ("genuine", pairs.same, "which any model matches: remove them, they flatter it"),
        ("impostor", ~pairs.same, "which no model tells apart: one of the two names is wrong"),
    ):
        if count := np.count_nonzero(doubled & mask):
            pair = int(np.flatnonzero(doubled & mask)[0])
            found.append(
                f"{name}: {count} of the {np.count_nonzero(mask)} {kind} pairs are a picture with itself, {effect}; "
                f"the first: {pairs.faces.name(int(pairs.first[pair]))} and {pairs.faces.name(int(pairs.second[pair]))}"
            )
    return found


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One pair as written: two (person, image number), and where it stands."""

    number: int
    first: tuple[str, str]
    second: tuple[str, str]
    same: bool


def read_pairs(pairs_file: str | os.PathLike[str], images_dir: str | os.PathLike[str]) -> PairSet:
    """LFW-style pairs over `images_dir`: a folder per person with images NAME/NAME_0001.jpg or alike.

    A line has three columns (name, image, image) for a genuine pair and four (name, image, name, image) for an
    impostor one, parted by tabs or blanks. A header 'folds pairs' or 'pairs' is optional; it says how many
    genuine and how many impostor pairs each fold lists, one kind after the other. Without one, each kind is cut
    into 10 folds in file order. `faces` lists only the images in use. Raises `SteadfaceError`, with the line, for
    one that is malformed or a header that does not fit; for names that lead out of `images_dir`; and for images that
    are missing, with how many.
    """
    path = as_path(pairs_file, "the pairs file")
    lines, header = _parse(path)
    same = np.fromiter((line.same for line in lines), dtype=np.bool_)
    fold = _folds(same, header, path)
    keys = sorted({key for line in lines for key in (line.first, line.second)})
    order = {key: index for index, key in enumerate(keys)}
    faces = _find_faces(as_path(images_dir, "the folder of images"), keys, path)
    return PairSet(
        faces=faces,
        first=np.fromiter((order[line.first] for line in lines), dtype=np.int64),
        second=np.fromiter((order[line.second] for line in lines), dtype=np.int64),
        same=same,
        fold=fold,
        people=faces.labels,
    )


def contiguous_folds(pairs: int, folds: int) -> NDArray[np.int64]:
    """(P,) fold of each pair: contiguous, sizes differing by one at most, the larger ones first."""
    sizes = [len(part) for part in np.array_split(np.arange(pairs), folds)]
    return np.repeat(np.arange(folds, dtype=np.int64), sizes)


def _parse(path: Path) -> tuple[list[_Line], tuple[int, int] | None]:
    """The pairs, and (folds, pairs of each kind per fold) where a header says so."""
    try:
        text = read_file(path, most=MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise unreadable(error, f"cannot read the pairs file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"cannot read the pairs file {path}: {error}") from None
    rows = [(number, row) for number, row in enumerate(_rows(text, path), start=1) if row.strip()]
    header = re.fullmatch(r"\s*(?:(\d{1,18})\s+)?(\d{1,18})\s*", rows[0][1]) if rows else None
    lines = [_parse_row(path, number, row) for number, row in (rows[1:] if header else rows)]
    if not lines:
        raise InvalidInput(f"{path} lists no pairs")
    return lines, (int(header[1] or 1), int(header[2])) if header else None


def _rows(text: str, path: Path) -> list[str]:
    if sum(map(text.count, LINE_ENDS)) > MOST_LINES:
        raise InvalidInput(f"{path} has more than {MOST_LINES:,} lines; part it")
    rows = text.splitlines()
    if (longest := max(map(len, rows), default=0)) > LONGEST_LINE:
        raise InvalidInput(f"{path} has a line of {longest:,} characters, and a pair takes at most {LONGEST_LINE:,}")
    return rows


LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""Where `str.splitlines` ends a line."""


def _parse_row(path: Path, number: int, row: str) -> _Line:
    # Tabs first: a name may hold blanks.
    columns = [column.strip() for column in row.strip().split("\t")] if "\t" in row else row.split()
    match columns:
        case [name, a, b] if _is_number(a) and _is_number(b):
            return _Line(number=number, first=(name, a), second=(name, b), same=True)
        case [name, a, other, b] if _is_number(a) and _is_number(b):
            return _Line(number=number, first=(name, a), second=(other, b), same=name == other)
    raise InvalidInput(
        f"{path}, line {number}: {quoted(row.strip())} is neither 'name image image' nor 'name image name image'"
    )


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= MOST_DIGITS


def _folds(same: NDArray[np.bool_], header: tuple[int, int] | None, path: Path) -> NDArray[np.int64]:
    if header is None:
        fold = np.empty(len(same), dtype=np.int64)
        for kind in (same, ~same):
            fold[kind] = contiguous_folds(int(kind.sum()), FOLDS)
        return fold
    folds, pairs = header
    if len(same) != 2 * folds * pairs:
        raise InvalidInput(
            f"{path}: the header promises {folds} folds of {pairs} genuine and {pairs} impostor pairs, "
            f"{2 * folds * pairs} in all, but {len(same)} are listed; correct the header or remove it"
        )
    return np.repeat(np.arange(folds, dtype=np.int64), 2 * pairs)


def _find_faces(root: Path, keys: Sequence[tuple[str, str]], pairs_file: Path) -> FaceFiles:
    if not root.is_dir():
        raise NotFound(f"{root} is not a folder; give the one that holds a folder per person")
    people = sorted({person for person, _ in keys})
    spelt = spellings(entry.name for entry in root.iterdir())
    for person in people:
        # What the folder itself lists may be links of the user's own; any other name is the file's, and has to stay.
        if person not in spelt and composed(person) not in spelt:
            check_below(root / person, root, named_in=pairs_file)
    folders = {person: spelt.get(person, spelt.get(composed(person), person)) for person in people}
    stems = {person: _stems(root / folder) for person, folder in folders.items()}
    found = [_find(stems[person], composed(person), number) for person, number in keys]
    missing = [f"{person} {number}" for (person, number), file in zip(keys, found, strict=True) if not file]
    if missing:
        absent = sum(not one for one in stems.values())
        elsewhere = nearby(root, people) if absent == len(people) else None
        raise NotFound(
            f"{len(missing)} of the {len(keys)} images in {pairs_file} are not below {root} "
            f"({absent} of {len(people)} people have no images there): {abbreviated(missing, len(missing))}"
            + ("" if elsewhere is None else f"; the person folders seem to lie in {elsewhere}: give that")
        )
    names = [f"{folders[person]}/{file}" for (person, _), file in zip(keys, found, strict=True)]
    states = [_status(root / name) for name in names]
    sizes = [state.st_size if state else 0 for state in states]
    no_files = [name for name, state in zip(names, states, strict=True) if not state or not stat.S_ISREG(state.st_mode)]
    empty = [name for name, size in zip(names, sizes, strict=True) if not size]
    for wrong, what in ((no_files, "no regular files"), (empty, "empty")):
        if wrong:
            raise InvalidInput(f"{len(wrong)} images below {root} are {what}: {abbreviated(wrong, len(wrong))}")
    label = {person: index for index, person in enumerate(people)}
    return FaceFiles(root, names, sizes=sizes, labels=[label[person] for person, _ in keys], people=people)


def _status(path: Path) -> os.stat_result | None:
    """None for a link that leads nowhere."""
    try:
        return path.stat()
    except OSError:
        return None


def _stems(folder: Path) -> dict[str, str]:
    """Images of a folder by stem; of several with one stem, the first suffix of `IMAGE_SUFFIXES` wins."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return {}
    ranked = [
        (IMAGE_SUFFIXES.index(suffix), name) for name in names if (suffix := _suffix(name)) and not is_hidden(name)
    ]
    return {composed(Path(name).stem): name for _, name in sorted(ranked, reverse=True)}


def _suffix(name: str) -> str | None:
    suffix = Path(name).suffix.lower()
    return suffix if suffix in IMAGE_SUFFIXES else None


def _find(stems: dict[str, str], person: str, number: str) -> str | None:
    """The file of image `number`: NAME_0001 as in LFW, else NAME_1, else a file called by the number itself."""
    for stem in (f"{person}_{int(number):04d}", f"{person}_{number}", f"{int(number):04d}", number):
        if stem in stems:
            return stems[stem]
    return None
