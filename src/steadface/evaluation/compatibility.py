"""Whether templates enrolled with one model still serve another that takes its place.

Images i, j of labelled people; z under the old model, z' under the new one. Pairs are compared in three ways,

    old      z_i . z_j        new      z'_i . z'_j        mixed      z_i . z'_j

mixed being an old template and a new probe. The threshold in use is that of an FMR among old pairs, and stays.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadface.errors import InvalidInput, too_few
from steadface.evaluation.verification import pairs_needed, threshold_at

Embeddings = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Pairs compared in one way: mean cosines, and the error rates at the threshold in use."""

    genuine: float
    impostor: float
    fnmr: float
    fmr: float


@dataclass(frozen=True, kw_only=True)
class Compatibility:
    """`threshold` is that of `fmr` among old pairs, `drift` the mean cosine of an image's new to its old embedding."""

    threshold: float
    fmr: float
    drift: float
    images: int
    people: int
    old: Compared
    new: Compared
    mixed: Compared

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compatibility(old: Embeddings, new: Embeddings, people: Indices, *, fmr: float = 1e-2) -> Compatibility:
    """From unit embeddings (n, D) of the same images of `people` (n,) under both models; rows of NaN are left out.

    Raises SteadfaceError for embeddings of different dimensions, and where the impostor pairs do not support `fmr`.
    """
    if old.shape != new.shape:
        raise InvalidInput(
            f"embeddings of {old.shape[1]} and {new.shape[1]} numbers cannot be compared: old templates are lost"
        )
    used = np.isfinite(old).all(1) & np.isfinite(new).all(1)
    old, new, people = old[used], new[used], people[used]
    same = people[:, None] == people
    upper = np.triu(np.ones_like(same), 1)
    genuine, impostor = same & upper, ~same & upper
    for what, pairs, needed in (("genuine", genuine, 1), ("impostor", impostor, pairs_needed(fmr))):
        if pairs.sum() < needed:
            raise too_few(
                f"{what} pairs",
                int(pairs.sum()),
                needed,
                why=f"what becomes of templates at FMR {fmr:g}",
                remedy="bring more people with two images or more",
            )
    before = old @ old.T
    threshold = threshold_at(before[impostor], fmr)

    def compared(similarity: Embeddings) -> Compared:
        return Compared(
            genuine=float(similarity[genuine].mean(dtype=np.float64)),
            impostor=float(similarity[impostor].mean(dtype=np.float64)),
            fnmr=float(np.mean(similarity[genuine] < threshold)),
            fmr=float(np.mean(similarity[impostor] >= threshold)),
        )

    return Compatibility(
        threshold=threshold,
        fmr=fmr,
        drift=float((old * new).sum(1).mean(dtype=np.float64)),
        images=len(people),
        people=len(np.unique(people)),
        old=compared(before),
        new=compared(new @ new.T),
        mixed=compared(old @ new.T),
    )
