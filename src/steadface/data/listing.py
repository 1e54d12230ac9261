"""What a listing of faces leaves out, and how it says so."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from steadface.errors import SteadfaceError

EXAMPLES_SHOWN = 3


class Skips:
    """Counts what was left out by reason (a plural, as in 'empty files') and remembers the first few."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: str, example: str, *, count: int = 1) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + count
        shown = self._examples.setdefault(reason, [])
        if len(shown) < EXAMPLES_SHOWN:
            shown.append(example)

    def extend(self, reason: str, examples: Iterable[str]) -> None:
        for example in examples:
            self.add(reason, example)

    @property
    def messages(self) -> tuple[str, ...]:
        return tuple(
            f"skipped {reason}: {count} ({abbreviated(self._examples[reason], count)})"
            for reason, count in self.counts.items()
        )


def abbreviated(examples: list[str], total: int) -> str:
    """The first few examples, then how many more there are."""
    shown = examples[:EXAMPLES_SHOWN]
    more = total - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def people_with_images(labels: NDArray[np.int64], names: list[str], min_images: int, skips: Skips) -> NDArray[np.bool_]:
    """(C,) mask of the people who have images, and at least `min_images` of them; the others are counted."""
    if min_images < 1:
        raise SteadfaceError(f"min_images is {min_images}; give 1 or more")
    images = np.bincount(labels, minlength=len(names))
    few = (images > 0) & (images < min_images)
    skips.extend("people without a usable image", (names[person] for person in np.flatnonzero(images == 0)))
    skips.extend(f"people with fewer than {min_images} images", (names[person] for person in np.flatnonzero(few)))
    kept: NDArray[np.bool_] = images >= min_images
    return kept
