"""Splits in which nobody is on both sides."""

import numpy as np

from steadface.data.faces import FaceSource, Subset
from steadface.errors import InvalidInput, too_few

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
