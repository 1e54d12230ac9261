"""What every source of aligned faces offers, and the sources that need no files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from steadface.data.pictureheader import MOST_SCANS, claimed_size, too_many_scans, without_profile
from steadface.errors import InvalidInput, too_few
from steadface.files import read_file, stand_in

Image = NDArray[np.uint8]
"""(H, W, 3) RGB, 8 bits."""

MOST_PIXELS = 64_000_000
"""Of a picture that is taken as a face, however few bytes it has; an aligned face has 12,544."""
MOST_ENCODED = 1 << 28
"""Bytes of its file: that many pixels, uncompressed, in 32 bits."""

OLDER_CROP_MARGIN = 8
"""The 112 x 96 crop is the 112 x 112 one without this many columns on either side."""


TEMPLATE: NDArray[np.float64] = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Of an aligned face of 112 x 112: left eye, right eye, nose, left and right corner of the mouth, in image order, x and
y in pixels (Deng et al., "ArcFace", CVPR 2019, as InsightFace aligns).
"""


class UnreadableImage(InvalidInput):
    """One image cannot be decoded; the message names it. Loaders replace it, evaluation reports it."""

    http_status = 422


class FaceSource(Protocol):
    """Aligned faces of named people, read lazily; picklable, since worker processes read from it.

    `labels` is (N,) int64 in 0..C-1, an index into the C names of `people`.
    """

    @property
    def labels(self) -> NDArray[np.int64]: ...

    @property
    def people(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Image:
        """The image at its own size, (H, W, 3) RGB. Raises `UnreadableImage`."""
        ...

    def name(self, index: int) -> str:
        """What to call the image in a message."""
        ...

    def fingerprint(self) -> str:
        """Hex digest of the listing, so that a run is not resumed on data that has changed."""
        ...


@runtime_checkable
class EncodedSource(Protocol):
    """A source whose images are encoded files or parts of one: `sizes` (N,) int64 are their bytes."""

    @property
    def sizes(self) -> NDArray[np.int64]: ...

    def read_encoded(self, index: int) -> bytes:
        """The image as it is stored. Raises `UnreadableImage`."""
        ...


def as_text(name: str) -> str:
    """A file's or person's name as UTF-8 has it, with escapes for bytes that are none."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class ArrayFaces:
    """Faces held in memory: `images` (N, H, W, 3) uint8 RGB, `labels` (N,) in 0..C-1, `people` C names.

    Raises `SteadfaceError` for another shape or type, and for labels outside `people`.
    """

    def __init__(self, images: NDArray[np.uint8], labels: ArrayLike, people: Sequence[str]) -> None:
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise InvalidInput(
                f"images are {images.dtype} of shape {images.shape}; give uint8 RGB of shape (N, H, W, 3)"
            )
        self.images = images
        self.labels = checked_labels(labels, len(images), len(people))
        self.people = tuple(people)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Image:
        image: Image = self.images[index]
        return image

    def name(self, index: int) -> str:
        return f"{self.people[self.labels[index]]} (image {index} in memory)"

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.images.shape, self.people)).encode())
        digest.update(self.labels.tobytes())
        digest.update(np.ascontiguousarray(self.images).data)
        return digest.hexdigest()


class Subset:
    """Some images of a source, in the order of `indices`; the people left are relabelled 0..C'-1.

    People keep the order they have in the source. Raises `SteadfaceError` for an index that is not there.
    """

    def __init__(self, source: FaceSource, indices: ArrayLike) -> None:
        self.source = source
        self.indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        outside = self.indices[(self.indices < 0) | (self.indices >= len(source))]
        if len(outside):
            raise InvalidInput(f"index {outside[0]} is outside the source's 0..{len(source) - 1}")
        kept, labels = np.unique(source.labels[self.indices], return_inverse=True)
        self.labels = labels.astype(np.int64).reshape(-1)
        self.people = tuple(source.people[label] for label in kept)

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> Image:
        return self.source.read(int(self.indices[index]))

    def name(self, index: int) -> str:
        return self.source.name(int(self.indices[index]))

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.source.fingerprint().encode())
        digest.update(self.indices.tobytes())
        return digest.hexdigest()


class JoinedFaces:
    """Several sources one after the other. Nobody is in two of them: labels count on and people follow each other."""

    def __init__(self, sources: Sequence[FaceSource]) -> None:
        self.sources = tuple(sources)
        self._ends = np.cumsum([len(source) for source in self.sources])
        before = np.cumsum([0, *(len(source.people) for source in self.sources)])[:-1]
        self.labels: NDArray[np.int64] = np.concatenate(
            [source.labels + shift for source, shift in zip(self.sources, before, strict=True)]
        )
        self.people = tuple(person for source in self.sources for person in source.people)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Image:
        source, own = self.owner(index)
        return source.read(own)

    def name(self, index: int) -> str:
        source, own = self.owner(index)
        return source.name(own)

    def fingerprint(self) -> str:
        return hashlib.sha256("".join(source.fingerprint() for source in self.sources).encode()).hexdigest()

    def owner(self, index: int) -> tuple[FaceSource, int]:
        """The source that holds an image, and the image's index there."""
        place = int(np.searchsorted(self._ends, index, side="right"))
        source = self.sources[place]
        return source, index - int(self._ends[place]) + len(source)


def stored(source: FaceSource, index: int) -> bytes:
    """An image as it is stored, or its pixels where it is not encoded. Raises `UnreadableImage`."""
    if isinstance(source, Subset):
        return stored(source.source, int(source.indices[index]))
    if isinstance(source, JoinedFaces):
        return stored(*source.owner(index))
    return source.read_encoded(index) if isinstance(source, EncodedSource) else source.read(index).tobytes()


SAMPLE = 256
"""Images whose bytes are compared when work is gone on with: of a set in which one in a hundred has changed that shows
in nine of ten cases, and of one made anew in every case. They are read in a second."""


def content(source: FaceSource, index: int) -> bytes:
    """The digest of an image's bytes. One that cannot be read counts as such, since work goes on without it."""
    try:
        return hashlib.sha256(stored(source, index)).digest()
    except UnreadableImage:
        return b"unreadable"


def checked_labels(labels: ArrayLike, images: int, people: int) -> NDArray[np.int64]:
    """`labels` as (N,) int64; raises `SteadfaceError` unless whole, one per image, and in 0..people-1."""
    array = np.asarray(labels)
    if array.shape != (images,):
        raise InvalidInput(f"{array.shape} labels for {images} images; give one label per image")
    whole = array.astype(np.int64)
    if not np.array_equal(whole, array):
        raise InvalidInput(f"label {array[whole != array][0]} is not a whole number")
    outside = whole[(whole < 0) | (whole >= people)]
    if len(outside):
        raise InvalidInput(f"label {outside[0]} is outside 0..{people - 1} for {people} people")
    return whole


def read_image(path: Path) -> Image:
    """The face in a file, see `decode_image`. Raises `UnreadableImage`."""
    return decode_image(read_encoded(path), str(path))


def read_encoded(path: Path) -> bytes:
    """The bytes of a face's file. Raises `UnreadableImage`, also for more than `MOST_ENCODED`."""
    try:
        return read_file(path, most=MOST_ENCODED)
    except OSError as error:
        raise UnreadableImage(f"{path} cannot be read: {error.strerror}") from None


def decode_image(encoded: bytes, name: str) -> Image:
    """RGB pixels (H, W, 3) of an encoded image; grey and alpha become RGB; of an animation the first picture.

    Raises `UnreadableImage`, also for one that claims more than `MOST_PIXELS`, before it is decoded.
    """
    if not encoded:
        raise UnreadableImage(f"{name} is empty")
    claimed = claimed_size(encoded)
    if claimed is None:
        raise UnreadableImage(f"{name} cannot be decoded: {kind_of(encoded) or 'not an image, or damaged'}")
    if claimed[0] * claimed[1] > MOST_PIXELS:
        raise UnreadableImage(
            f"{name} claims {claimed[0]} x {claimed[1]} pixels, and a face has at most {MOST_PIXELS // 10**6} million; "
            "save it smaller"
        )
    if too_many_scans(encoded):
        raise UnreadableImage(f"{name} is a JPEG of more than {MOST_SCANS} scans; save it anew")
    try:
        pixels = cv2.imdecode(np.frombuffer(without_profile(encoded), np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # e.g. a header that claims more pixels than OpenCV allows
        raise UnreadableImage(f"{name} cannot be decoded: {error}") from None
    if pixels is None:
        raise UnreadableImage(f"{name} cannot be decoded: not an image, or damaged")
    image: Image = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return image


def kind_of(head: bytes) -> str:
    """What a file is that is often taken for an image, by its first bytes, and what to do about it; '' for others."""
    if head[4:8] == b"ftyp":
        return "it is HEIC, AVIF or a video; export it as JPEG"
    found = stand_in(head)
    return "" if found is None else f"it is {found.what}; {found.remedy}"


def fit_size(image: Image, size: tuple[int, int]) -> Image:
    """`image` at `size` = (height, width).

    A face of 112 x 112 asked for at 112 x 96 loses 8 columns on either side, which is that older crop
    exactly; otherwise the picture is resized, by area when it shrinks and linearly when it grows.
    """
    height, width = image.shape[:2]
    if (height, width) == tuple(size):
        return image
    if (height, width) == (112, 112) and tuple(size) == (112, 96):
        return image[:, OLDER_CROP_MARGIN:-OLDER_CROP_MARGIN]
    shrinks = size[0] < height or size[1] < width
    resized: Image = cv2.resize(
        image, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return resized


FEWEST_TRAINED = 2


def split_people(
    source: FaceSource, *, fraction: float | None = None, count: int | None = None, seed: int
) -> tuple[Subset, Subset]:
    """(train, validation): all images of `count` people, or of a `fraction` of them, drawn by `seed`, are held out.

    They are drawn among those who have two images or more, since nothing can be measured on others. A fraction is
    rounded to whole people, at least one. Raises `SteadfaceError` unless exactly one of the two is given, where too
    few have two images, and when fewer than two people would be left to train on.
    """
    people = len(source.people)
    several = np.flatnonzero(np.bincount(source.labels, minlength=people) > 1)
    held_out = _held_out(len(several), fraction, count)
    if people - held_out < FEWEST_TRAINED:
        raise too_few(
            "people",
            people - held_out,
            FEWEST_TRAINED,
            why="training",
            there=f"holding out {held_out} of {people} leaves",
            remedy="bring more people or hold out fewer",
        )
    if held_out > len(several):
        raise too_few(
            "people with two images or more",
            len(several),
            held_out,
            why="holding people out",
            there=f"among {people} people there are",
            remedy="bring more images of the same people or hold out fewer",
        )
    chosen = several[np.random.default_rng(seed).permutation(len(several))[:held_out]]
    validation = np.isin(source.labels, chosen)
    return Subset(source, np.flatnonzero(~validation)), Subset(source, np.flatnonzero(validation))


def _held_out(people: int, fraction: float | None, count: int | None) -> int:
    if (fraction is None) == (count is None):
        raise InvalidInput("give the validation people as a fraction or as a count, one of the two")
    if count is not None:
        if count < 1:
            raise InvalidInput(f"{count} validation people; give 1 or more")
        return count
    if fraction is None or not 0 < fraction < 1:
        raise InvalidInput(f"validation fraction {fraction} is not between 0 and 1")
    return max(1, round(fraction * people))
