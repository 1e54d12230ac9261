"""Which of several outputs of a recogniser is the embedding, by the shapes that they have on a batch of images."""

from collections.abc import Mapping
from math import prod

from steadface.errors import SteadfaceError

LEAST = 32
"""Embeddings have more numbers; points of a face, ages and attributes mostly fewer."""

Shape = tuple[int, ...]


def dimension(shape: Shape, count: int) -> int | None:
    """D of an output (count, D), whatever axes of length one there are beside; None for any other shape."""
    if len(shape) < 2 or shape[0] != count or max(shape[1:]) != prod(shape[1:]):
        return None
    return max(shape[1:])


def embedding_output(name: str, shapes: Mapping[str, Shape], count: int, wanted: str | None = None) -> str:
    """The output of `name` that is `wanted`, or else the only one that is an embedding of `count` images.

    Raises SteadfaceError, which lists them, where there is none of that name, where none is an embedding, or several.
    """
    if wanted is not None and wanted not in shapes:
        raise SteadfaceError(f"{name} has no output {wanted!r}; its outputs are {_listed(shapes)}")
    if wanted is not None:
        return wanted
    if len(shapes) == 1:
        return next(iter(shapes))
    sizes = {output: dimension(shape, count) or 0 for output, shape in shapes.items()}
    for least in (LEAST, 2):
        found = [output for output, size in sizes.items() if size >= least]
        if len(found) == 1:
            return found[0]
        if found:
            break
    many = f"{len(found)} of them may be embeddings" if found else "none of them is an embedding (B, D)"
    raise SteadfaceError(
        f"{name} has {len(shapes)} outputs, and {many}: {_listed(shapes)}; say which it is with --output NAME (output= "
        "in Python)"
    )


def _listed(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name} ({' x '.join(map(str, shape[1:])) or 'no axis'})" for name, shape in shapes.items())
